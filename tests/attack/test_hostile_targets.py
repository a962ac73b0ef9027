"""Brokers and web servers that are silent, slow, endless or wrong: given up in time, tried again, bounded in memory."""

from __future__ import annotations

import contextlib
import gc
import random
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until as until

from edge.commands.api_client import ApiClient
from edge.config.events import MqttSettings, NotifySettings, WebhookSettings
from edge.errors import EdgeError, SinkError
from edge.events.delivery import DeliveryWorker
from edge.events.message import Message
from edge.events.outbox import Outbox
from edge.events.schema import Envelope
from edge.events.stored import StoredEvent
from edge.sinks.mqtt import MqttTarget
from edge.sinks.notify import NotifyTarget
from edge.sinks.webhook import WebhookTarget
from edge.sinks.whip_http import ask
from edge.threads.backoff import Backoff

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
from hostile import Behaviour, Hostile, message_number, read_packet

TIMEOUT_S = 0.4
# for a thread that waits for a busy processor
SLACK_S = 2.0
MAX_GROWTH_BYTES = 4 << 20
EVENT = StoredEvent(1, "id-1", "door", "tick", '{"n":1}')
CONNACK = b"\x20\x02\x00\x00"


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Hostile]:
    server = Hostile(behaviour)
    try:
        yield server
    finally:
        server.close()


def mqtt(server: Hostile, *, protocol: Any = "3.1.1", timeout_s: float = TIMEOUT_S) -> MqttTarget:
    settings = MqttSettings(host="127.0.0.1", port=server.port, protocol=protocol, timeout_s=timeout_s)
    return MqttTarget(settings, lambda: ["door"], "box")


def webhook(server: Hostile, timeout_s: float = TIMEOUT_S) -> WebhookTarget:
    return WebhookTarget(WebhookSettings(url=f"http://127.0.0.1:{server.port}/hook", timeout_s=timeout_s))


def costs(act: Callable[[], object]) -> tuple[float, int]:
    """Seconds, and bytes that were taken on the way, at most."""
    tracemalloc.start()
    began_s = time.monotonic()
    act()
    spent_s = time.monotonic() - began_s
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return spent_s, peak


# brokers


def honest_broker(connection: socket.socket) -> None:
    while True:
        head, body = read_packet(connection)
        match head >> 4:
            case 1:
                connection.sendall(CONNACK)
            case 3:
                connection.sendall(b"\x40\x02" + message_number(body))
            case 12:
                connection.sendall(b"\xd0\x00")
            case _:
                return


def forever(connection: socket.socket, data: bytes) -> None:
    while True:
        connection.sendall(data)


def drip(connection: socket.socket, data: bytes) -> None:
    for byte in data:
        connection.sendall(bytes([byte]))
        time.sleep(TIMEOUT_S / 3)


def after_connack(behave: Behaviour) -> Behaviour:
    def behaviour(connection: socket.socket) -> None:
        read_packet(connection)
        connection.sendall(CONNACK)
        behave(connection)

    return behaviour


def silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


BROKERS: dict[str, Behaviour] = {
    "silent": silent,
    "closes": lambda connection: None,
    "a CONNACK byte by byte": lambda connection: drip(connection, b"\x20\xff\xff\xff\x7f" + bytes(99)),
    "random bytes for ever": lambda connection: forever(connection, bytes(range(256))),
    "HTTP": lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "no PUBACK": after_connack(silent),
    "a PUBLISH of 256 MB": after_connack(
        lambda connection: forever(connection, b"\x30\xff\xff\xff\x7f" + bytes(65536))
    ),
    "small PUBLISHes for ever": after_connack(lambda connection: forever(connection, b"\x30\x05\x00\x01axx" * 1000)),
    "PINGRESPs for ever": after_connack(lambda connection: forever(connection, b"\xd0\x00" * 1000)),
    "QoS 2 for ever": after_connack(lambda connection: forever(connection, b"\x34\x07\x00\x01a\x00\x01xx" * 1000)),
    "PUBACKs of messages that nobody sent": after_connack(lambda connection: forever(connection, b"\x40\x02\xff\xff")),
    "PUBACK byte by byte": after_connack(lambda connection: drip(connection, b"\x40\x02\x00\x01" * 9)),
    "takes nothing": lambda connection: time.sleep(20 * TIMEOUT_S),
}


@pytest.mark.parametrize("behaviour", BROKERS.values(), ids=BROKERS.keys())
def test_a_hostile_broker_is_given_up_in_time_and_then_tried_again(behaviour: Behaviour) -> None:
    with serving(behaviour) as server:
        target = mqtt(server)

        def fails() -> None:
            with pytest.raises(SinkError, match=rf"mqtt broker 127.0.0.1:{server.port} "):
                target.deliver([EVENT])

        spent_s, peak = costs(fails)
        # logging in may take the time, and the first acknowledgement again
        assert spent_s < 2 * TIMEOUT_S + SLACK_S
        assert peak < MAX_GROWTH_BYTES
        server.behaviour = honest_broker
        assert target.deliver([EVENT]).num_taken == 1
        spent_s, _ = costs(target.close)
        assert spent_s < TIMEOUT_S + SLACK_S


@pytest.mark.parametrize("flood", [b"\xd0\x00" * 500, b"\x30\x05\x00\x01axx" * 500])
def test_a_flood_while_nothing_is_delivered_ends_the_connection(flood: bytes) -> None:
    is_flooding = threading.Event()

    def behaviour(connection: socket.socket) -> None:
        connection.settimeout(0.05)
        while not is_flooding.is_set():
            with contextlib.suppress(TimeoutError):
                honest_broker(connection)
        forever(connection, flood)

    with serving(behaviour) as server:
        target = mqtt(server)
        target.keep_alive()
        is_flooding.set()
        with pytest.raises(SinkError, match="which nobody asked for"):
            for _ in range(200):
                target.keep_alive()
                time.sleep(0.01)
        target.close()


def test_delivery_goes_on_when_a_broker_acknowledges_again(tmp_path: Path) -> None:
    """A client that joins its own thread waits here for ever, and says nothing."""
    outbox = Outbox(tmp_path / "e.db", ["mqtt"])
    with serving(after_connack(silent)) as server:
        worker = DeliveryWorker(outbox, mqtt(server), Backoff(base_s=0.05, cap_s=0.1))
        stopping = threading.Event()
        thread = threading.Thread(target=worker.run, args=(stopping,))
        thread.start()
        outbox.put([Envelope(f"id-{n}", "tick", "door", 1, "{}") for n in range(72)])
        until(lambda: worker.counters["failures"] >= 3)
        assert "no acknowledgement within 0.4 s" in worker.failing.last_error
        assert server.num_connections >= 3
        server.behaviour = honest_broker
        until(lambda: outbox.counts()["waiting_mqtt"] == 0)
        assert worker.failing.last_error == ""
        began_s = time.monotonic()
        stopping.set()
        thread.join(20)
        assert time.monotonic() - began_s < TIMEOUT_S + SLACK_S
    outbox.close()


def test_a_broker_is_asked_whether_it_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.mqtt.KEEP_ALIVE_S", 1)
    is_silent = threading.Event()

    def behaviour(connection: socket.socket) -> None:
        while True:
            head, body = read_packet(connection)
            if is_silent.is_set():
                continue
            answer = {1: CONNACK, 3: b"\x40\x02" + message_number(body), 12: b"\xd0\x00"}
            connection.sendall(answer[head >> 4])

    with serving(behaviour) as server:
        target = mqtt(server)
        for _ in range(30):
            target.keep_alive()
            time.sleep(0.05)
        is_silent.set()
        with pytest.raises(SinkError, match="is silent"):
            for _ in range(200):
                target.keep_alive()
                time.sleep(0.05)
        assert server.num_connections == 1
        target.close()


def test_a_version_5_broker_limits_what_is_under_way_and_says_why_it_refuses() -> None:
    most, under_way = [0], [0]

    def behaviour(connection: socket.socket) -> None:
        while True:
            head, body = read_packet(connection)
            if head >> 4 == 1:
                # at most 3 at once, packets of at most 300 bytes, and texts that are passed over
                connection.sendall(b"\x20\x10\x00\x00\x0d\x21\x00\x03\x27\x00\x00\x01\x2c\x1f\x00\x02ok")
            elif head >> 4 == 3:
                under_way[0] += 1
                most[0] = max(most[0], under_way[0])
                threading.Timer(0.02, acknowledge, (connection, body)).start()

    def acknowledge(connection: socket.socket, body: bytes) -> None:
        under_way[0] -= 1
        reason = b"\x87" if b"forbidden" in body else b"\x10"
        connection.sendall(b"\x40\x03" + message_number(body) + reason)

    events = [StoredEvent(n, f"id-{n}", "door", "tick", "{}") for n in range(9)]
    with serving(behaviour) as server:
        target = mqtt(server, protocol="5", timeout_s=10)
        assert target.deliver(events).num_taken == 9
        assert most[0] <= 3
        too_long = StoredEvent(1, "id", "door", "tick", "x" * 400)
        refused = StoredEvent(1, "id", "door", "tick", '"forbidden"')
        assert target.deliver([events[0], refused]).num_taken == 1
        assert target.deliver([refused]).num_refused == 1
        assert target.deliver([too_long]).num_refused == 1
        target.close()


# web servers


def read_request(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            raise EOFError
        data += part


def answering(behave: Behaviour) -> Behaviour:
    def behaviour(connection: socket.socket) -> None:
        read_request(connection)
        behave(connection)

    return behaviour


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
SITES: dict[str, Behaviour] = {
    "silent": answering(silent),
    "100 Continue for ever": answering(lambda connection: forever(connection, b"HTTP/1.1 100 Continue\r\n\r\n")),
    "status byte by byte": answering(lambda connection: drip(connection, OK)),
    "a header for ever": answering(lambda connection: forever(connection, b"HTTP/1.1 200 OK\r\nx: " + b"a" * 8192)),
    "headers for ever": answering(
        lambda connection: (connection.sendall(b"HTTP/1.1 200 OK\r\n"), forever(connection, b"x: a\r\n" * 1000))[1]
    ),
    "body byte by byte": answering(
        lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n" + b"x" * 999)
    ),
    "no HTTP": answering(lambda connection: connection.sendall(b"SSH-2.0-x\r\n")),
}


@pytest.mark.parametrize("behaviour", SITES.values(), ids=SITES.keys())
def test_a_hostile_web_server_is_given_up_in_time_and_then_tried_again(behaviour: Behaviour) -> None:
    with serving(behaviour) as server:
        target = webhook(server)

        def fails() -> None:
            with pytest.raises(SinkError, match="cannot be reached"):
                target.deliver([EVENT])

        spent_s, peak = costs(fails)
        assert spent_s < TIMEOUT_S + SLACK_S
        assert peak < MAX_GROWTH_BYTES
        server.behaviour = answering(lambda connection: connection.sendall(OK))
        assert target.deliver([EVENT]).num_taken == 1
        target.close()


def test_a_body_without_end_is_not_read_to_its_end() -> None:
    def behaviour(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        forever(connection, b"x" * 65536)

    with serving(behaviour) as server:
        target = webhook(server, 10)
        spent_s, peak = costs(lambda: target.deliver([EVENT]))
        assert spent_s < SLACK_S
        assert peak < MAX_GROWTH_BYTES
        target.close()


@pytest.mark.parametrize("behaviour", SITES.values(), ids=SITES.keys())
def test_whip_and_the_commands_give_such_a_server_up_too(behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.commands.api_client.TIMEOUT_S", TIMEOUT_S)
    with serving(behaviour) as server:
        url = f"http://127.0.0.1:{server.port}"
        began_s = time.monotonic()
        with pytest.raises(SinkError, match="cannot be reached"):
            ask("POST", f"{url}/whip", "v=0", {}, TIMEOUT_S)
        with pytest.raises(EdgeError, match="cannot be asked"):
            ApiClient(url).get("/api/stats")
        assert time.monotonic() - began_s < 2 * (TIMEOUT_S + SLACK_S)


# services that people get messages from

SERVICE_S = 3.0
ELSEWHERE: dict[str, Behaviour] = {
    "a body without end": answering(
        lambda connection: (connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n"), forever(connection, b"x" * 65536))[1]
    ),
    "a redirect to another port": answering(
        lambda connection: connection.sendall(
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.2:9/x\r\ncontent-length: 0\r\n\r\n"
        )
    ),
}


@pytest.mark.parametrize("behaviour", (SITES | ELSEWHERE).values(), ids=(SITES | ELSEWHERE).keys())
def test_a_hostile_message_service_costs_a_process_for_a_limited_time(behaviour: Behaviour, tmp_path: Path) -> None:
    with serving(behaviour) as server:
        (tmp_path / "url").write_text(f"json://127.0.0.1:{server.port}/")
        target = NotifyTarget(NotifySettings(url_file=tmp_path / "url", timeout_s=SERVICE_S))

        def fails() -> None:
            with pytest.raises(SinkError, match="json: "):
                target.send(Message("m", "title", "words"), threading.Event())

        spent_s, peak = costs(fails)
        assert spent_s < SERVICE_S + SLACK_S
        assert peak < MAX_GROWTH_BYTES
        server.behaviour = answering(lambda connection: connection.sendall(OK))
        target.send(Message("m", "title", "words"), threading.Event())


# answers of all kinds


class Damaged:
    """Answers what comes with the next of some texts, one of them damaged by chance."""

    def __init__(self, answers: Sequence[bytes], seed: int) -> None:
        self._answers = answers
        self._chance = random.Random(seed)

    def __call__(self, connection: socket.socket) -> None:
        victim = self._chance.randrange(len(self._answers))
        for index, answer in enumerate(self._answers):
            if not connection.recv(4096):
                return
            connection.sendall(self._damaged(answer) if index == victim else answer)
        connection.shutdown(socket.SHUT_WR)
        # unread data would make the end a reset, which hides what was sent
        connection.settimeout(0.2)
        while connection.recv(65536):
            pass

    def _damaged(self, answer: bytes) -> bytes:
        data = bytearray(answer)
        for _ in range(self._chance.randrange(1, 4)):
            place = self._chance.randrange(len(data))
            match self._chance.randrange(4):
                case 0:
                    data[place] = self._chance.randrange(256)
                case 1:
                    del data[place : place + self._chance.randrange(1, 9)]
                case 2:
                    data[place:place] = self._chance.randbytes(self._chance.randrange(1, 9))
                case _:
                    data[place:place] = data[max(0, place - 16) : place] * self._chance.randrange(1, 50)
            data = data or bytearray(b"\0")
        return bytes(data)


def num_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


CONNACK_5 = b"\x20\x14\x00\x00\x11\x21\x00\x0a\x12\x00\x03abc\x26\x00\x01a\x00\x02bc"
# an answer that got lost costs as much of each of 2,000 attempts
QUICK_S = 0.05
HELLO = b"content-length: 5\r\n\r\nhello"
ANSWERS: dict[str, tuple[Sequence[bytes], Callable[[Hostile], Any]]] = {
    "mqtt 3.1.1": (
        [CONNACK, b"\x40\x02\x00\x01", b"\x40\x02\x00\x02"],
        lambda server: mqtt(server, timeout_s=QUICK_S),
    ),
    "mqtt 5": (
        [CONNACK_5, b"\x40\x02\x00\x01", b"\x40\x03\x00\x02\x10"],
        lambda server: mqtt(server, protocol="5", timeout_s=QUICK_S),
    ),
    "webhook": ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nserver: x\r\n" + HELLO], webhook),
    "webhook, in chunks": (
        [b"HTTP/1.1 202 Accepted\r\nretry-after: 1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
        webhook,
    ),
}


@pytest.mark.parametrize(("answers", "opened"), ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.timeout(300)
def test_500_damaged_answers_end_attempts_and_nothing_else(
    answers: Sequence[bytes], opened: Callable[[Hostile], Any]
) -> None:
    """Of each of four kinds: 2,000 in all."""
    with serving(Damaged(answers, 7)) as server:
        target = opened(server)
        num_taken, slowest_s = 0, 0.0
        tracemalloc.start()
        for index in range(500):
            began_s = time.monotonic()
            try:
                num_taken += target.deliver([EVENT]).num_taken
            except SinkError as error:
                assert "\n" not in str(error)
            target.close()
            slowest_s = max(slowest_s, time.monotonic() - began_s)
            if index == 50:
                gc.collect()
                before, files, threads = tracemalloc.get_traced_memory()[0], num_open_files(), threading.active_count()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert slowest_s < 3 * TIMEOUT_S + SLACK_S
        assert grown < 1 << 20
        assert num_open_files() <= files + 20
        assert threading.active_count() <= threads + 20
        # the damage is small: some answers are good
        assert 0 < num_taken < 500
