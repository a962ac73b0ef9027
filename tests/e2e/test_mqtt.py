"""Events through a real MQTT broker: killed and started again, with passwords, TLS, both protocols and discovery."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mosquitto as servers
import pytest
from needs import need

from edge.config.events import MqttSettings
from edge.errors import SinkError
from edge.events.delivery import DeliveryWorker
from edge.events.outbox import Outbox
from edge.events.schema import EnvelopeMaker, Place
from edge.interfaces import SwitchPart
from edge.sinks.home_assistant import Standing
from edge.sinks.mqtt import MqttTarget
from edge.sinks.retained import Retained
from edge.threads.backoff import Backoff
from edge.types import Event

pytestmark = pytest.mark.real_server
ROOT = Path(__file__).parents[2]


@contextmanager
def broker(folder: Path, *lines: str) -> Iterator[Any]:
    running = servers.Broker(folder, *lines)
    running.start()
    try:
        yield running
    finally:
        running.end()


@contextmanager
def delivering(
    outbox: Outbox,
    settings: MqttSettings | MqttTarget,
    streams: Sequence[str] = ("door",),
    standings: Callable[[], Mapping[str, Standing]] = dict,
    memory: Path | None = None,
) -> Iterator[DeliveryWorker]:
    if isinstance(settings, MqttTarget):
        target = settings
    else:
        target = MqttTarget(settings, lambda: streams, "box", standings, memory)
    worker = DeliveryWorker(outbox, target, Backoff(base_s=0.05, cap_s=0.3))
    stopping = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stopping,))
    thread.start()
    try:
        yield worker
    finally:
        stopping.set()
        thread.join(20)
        assert not thread.is_alive()
        outbox.close()


class Feed:
    """Puts numbered events into an outbox and remembers their ids."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._maker = EnvelopeMaker("test")
        self.ids: list[str] = []

    def put(self, count: int) -> None:
        for _ in range(count):
            now_ns = time.monotonic_ns()
            event = Event("line_crossed", "door", now_ns, len(self.ids), {"line": "gate"})
            envelope = self._maker.make(event, Place(0, len(self.ids), now_ns, None), 0, None, {})
            self._outbox.put([envelope])
            self.ids.append(envelope.id)


def ids_in(got: list[tuple[str, str, bool]]) -> list[str]:
    return [json.loads(text)["id"] for topic, text, _ in got if topic == "edge/door/events"]


@pytest.mark.parametrize("outage_s", [2.0, pytest.param(60.0, marks=pytest.mark.soak)])
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_killed_broker_delays_events_and_loses_none(tmp_path: Path, protocol: Any, outage_s: float) -> None:
    outbox = Outbox(tmp_path / "e.db", ["mqtt"])
    feed = Feed(outbox)
    with broker(tmp_path) as mosquitto:
        settings = MqttSettings(host="127.0.0.1", port=mosquitto.port, protocol=protocol, timeout_s=3)
        listener = servers.Listener(mosquitto)
        # the broker writes the subscription down: what comes while the listener is away is kept for it
        mosquitto.send(signal.SIGUSR1)
        with delivering(outbox, settings) as worker:
            feed.put(20)
            listener.wait_for(lambda got: len(ids_in(got)) >= 20)
            mosquitto.end(signal.SIGKILL)
            began = time.monotonic()
            feed.put(20)
            while time.monotonic() - began < outage_s:
                feed.put(1)
                time.sleep(0.1)
            assert worker.failing.last_error
            mosquitto.start()
            feed.put(5)
            listener.wait_for(lambda got: set(ids_in(got)) == set(feed.ids))
        listener.close()
    first_seen = list(dict.fromkeys(ids_in(listener.got)))
    assert first_seen == feed.ids
    assert worker.counters["delivered"] >= len(feed.ids)


def test_birth_will_and_clean_end_are_told(tmp_path: Path) -> None:
    code = """
import sys, threading
from pathlib import Path
from edge.config.events import MqttSettings
from edge.sinks.mqtt import MqttTarget
from edge.sinks.retained import Retained
target = MqttTarget(MqttSettings(host="127.0.0.1", port=int(sys.argv[1])), lambda: ["door"], "box")
target.keep_alive()
print("up", flush=True)
sys.stdin.read(1)
target.close()
"""
    with broker(tmp_path) as mosquitto:
        listener = servers.Listener(mosquitto, "edge/status")
        for is_killed in (True, False):
            listener.got.clear()
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(mosquitto.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            listener.wait_for(lambda got: [text for _, text, _ in got] == ["online"])
            if is_killed:
                process.kill()
            process.communicate(b"x")
            listener.wait_for(lambda got: [text for _, text, _ in got] == ["online", "offline"])
        listener.close()


def test_home_assistant_finds_every_stream(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", ["mqtt"])
    with broker(tmp_path) as mosquitto:
        settings = MqttSettings(host="127.0.0.1", port=mosquitto.port, discovery="homeassistant", topic="site/edge")
        with delivering(outbox, settings, ("door", "yard")):
            early = servers.Listener(mosquitto)
            early.wait_for(lambda got: len({topic for topic, _, _ in got}) >= 10)
            early.close()
            late = servers.Listener(mosquitto)
            late.wait_for(lambda got: sum(is_retained for _, _, is_retained in got) >= 10)
            late.close()
    found = {topic: text for topic, text, is_retained in late.got if is_retained}
    assert found["site/edge/status"] == "online"
    door = json.loads(found["homeassistant/event/edgeloop-box/door-event/config"])
    assert door["state_topic"] == "site/edge/door/events"
    assert door["unique_id"] == "edgeloop-box-door-event"
    assert door["device"]["name"] == "door" and door["device"]["via_device"] == "edgeloop-box"
    assert "line_crossed" in door["event_types"]
    assert json.loads(found["homeassistant/binary_sensor/edgeloop-box/status/config"])["payload_on"] == "online"
    assert "homeassistant/event/edgeloop-box/yard-event/config" in found


def test_home_assistant_sees_how_a_camera_stands_and_what_happened_last(tmp_path: Path) -> None:
    picture = tmp_path / "event.jpg"
    picture.write_bytes(b"\xff\xd8 a picture \xff\xd9")
    outbox = Outbox(tmp_path / "e.db", ["mqtt"])
    maker = EnvelopeMaker("test")
    standing = {"door": Standing("streaming", (), {"zones": {"yard": {"occupancy": 0, "entered": 0}}})}
    with broker(tmp_path) as mosquitto:
        settings = MqttSettings(host="127.0.0.1", port=mosquitto.port, discovery="homeassistant")
        listener = servers.Listener(mosquitto)

        def state(got: list[tuple[str, str, bool]]) -> Any:
            told = [text for topic, text, _ in got if topic == "edge/door/state" and text]
            return json.loads(told[-1]) if told else {}

        with delivering(outbox, settings, ["door"], lambda: standing):
            listener.wait_for(lambda got: state(got).get("connected") == "ON")
            listener.wait_for(lambda got: any("zone-yard/config" in topic for topic, _, _ in got))
            standing["door"] = Standing("backing_off", ("dark",), {"zones": {"yard": {"occupancy": 3, "entered": 3}}})
            listener.wait_for(
                lambda got: state(got).get("zones") == {"yard": {"occupancy": 3, "entered": 3, "by_class": {}}}
            )
            assert state(listener.got)["connected"] == "OFF" and state(listener.got)["health"] == "dark"
            event = Event("zone_entered", "door", time.monotonic_ns(), 1, {"zone": "yard"})
            outbox.put([maker.make(event, None, 0, None, {"snapshot": str(picture)})])
            listener.wait_for(lambda got: any(topic == "edge/door/snapshot" for topic, _, _ in got))
            del standing["door"]
            listener.wait_for(lambda got: ("edge/door/state", "", False) in got)
            listener.wait_for(lambda got: any("zone-yard/config" in topic and not text for topic, text, _ in got))
        listener.close()
        late = servers.Listener(mosquitto, "edge/door/#")
        late.wait_for(lambda got: any(topic == "edge/door/snapshot" for topic, _, _ in got))
        late.close()


def test_home_assistant_hears_of_streams_that_come_and_go(tmp_path: Path) -> None:
    running = ["door"]
    yard = "homeassistant/event/edgeloop-box/yard-event/config"
    outbox = Outbox(tmp_path / "e.db", ["mqtt"])
    with broker(tmp_path) as mosquitto:
        settings = MqttSettings(host="127.0.0.1", port=mosquitto.port, discovery="homeassistant")
        listener = servers.Listener(mosquitto)
        with delivering(outbox, settings, running):
            listener.wait_for(lambda got: any(topic.endswith("/door-event/config") for topic, _, _ in got))
            running.append("yard")
            listener.wait_for(lambda got: any(topic == yard and text for topic, text, _ in got))
            running.remove("yard")
            listener.wait_for(lambda got: (yard, "", False) in got)
        listener.close()
        assert sum(topic.endswith("/door-event/config") for topic, _, _ in listener.got) == 1
        late = servers.Listener(mosquitto, "homeassistant/#")
        late.wait_for(lambda got: len(got) >= 2)
        late.close()
        assert yard not in [topic for topic, _, _ in late.got]


def test_what_is_removed_while_nothing_runs_is_taken_back_at_the_next_start(tmp_path: Path) -> None:
    memory = tmp_path / "e.mqtt.json"
    (tmp_path / "seen.jpg").write_bytes(b"\xff\xd8 a picture")
    zone = {"zones": {"step": {"occupancy": 0, "entered": 0}}}
    standings = {"door": Standing("streaming", counts=zone), "yard": Standing("streaming", counts=zone)}
    with broker(tmp_path) as mosquitto:
        settings = MqttSettings(host="127.0.0.1", port=mosquitto.port, discovery="homeassistant")
        outbox = Outbox(tmp_path / "e.db", ["mqtt"])
        with delivering(outbox, settings, ["door", "yard"], lambda: standings, memory):
            for stream in standings:
                envelope = EnvelopeMaker("test").make(
                    Event("line_crossed", stream, time.monotonic_ns(), 1, {"line": "gate"}),
                    Place(0, 1, time.monotonic_ns(), None), 0, None, {"snapshot": str(tmp_path / "seen.jpg")},
                )  # fmt: skip
                outbox.put([envelope])
            watching = servers.Listener(mosquitto)
            pictures = {"edge/door/snapshot", "edge/yard/snapshot"}
            watching.wait_for(lambda got: pictures <= {topic for topic, _, _ in got})
            watching.close()
        # before it is known what the door counts, nothing of it is taken back; the yard and the door's zone are gone
        known: dict[str, Standing] = {}
        late = servers.Listener(mosquitto)
        with delivering(Outbox(tmp_path / "e2.db", ["mqtt"]), settings, ["door"], lambda: known, memory):
            late.wait_for(lambda got: any(topic == "edge/status" and text == "online" for topic, text, _ in got))
            time.sleep(1.5)
            assert not [topic for topic, text, _ in late.got if topic.endswith("config") and not text]
            known["door"] = Standing("streaming")
            late.wait_for(lambda got: ("edge/yard/snapshot", "", False) in got)
        late.close()
        left = servers.Listener(mosquitto, "#")
        stay = {*("edge/door/state", "edge/door/snapshot"), "homeassistant/event/edgeloop-box/door-event/config"}
        left.wait_for(lambda got: stay <= {topic for topic, _, _ in got})
        left.close()
        assert not [topic for topic, text, _ in left.got if text and ("yard" in topic or "step" in topic)]
        # whoever switches discovery off leaves nothing behind
        silent = settings.model_copy(update={"discovery": None})
        with delivering(Outbox(tmp_path / "e3.db", ["mqtt"]), silent, ["door"], dict, memory):
            end = servers.Listener(mosquitto, "#")
            end.wait_for(lambda got: ("edge/door/snapshot", "", False) in got)
            end.close()
    assert json.loads(memory.read_text(encoding="utf-8")) == {"topics": []}
    assert memory.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"topics": 3}', '{"topics": ["a/#", 3, "someone/else/config", "\\u0000/state"]}']
)
def test_a_damaged_memory_of_topics_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "topics.json").write_text(text)
    assert not Retained(tmp_path / "topics.json")


def test_a_wrong_password_is_one_sentence_without_it_and_is_mended_without_a_restart(tmp_path: Path) -> None:
    canary, right = "canary-7f3a-password", "right-password"
    passwords = tmp_path / "passwords"
    subprocess.run([need("mosquitto_passwd"), "-b", "-c", str(passwords), "edge", right], check=True)
    secret = tmp_path / "secret"
    secret.write_text(canary + "\n")
    outbox = Outbox(tmp_path / "e.db", ["mqtt"])
    feed = Feed(outbox)
    with broker(tmp_path, "allow_anonymous false", f"password_file {passwords}") as mosquitto:
        settings = MqttSettings(host="127.0.0.1", port=mosquitto.port, username="edge", password_file=secret)
        target = MqttTarget(settings, lambda: ["door"], "box")
        with pytest.raises(SinkError, match="let nobody in") as refused:
            target.keep_alive()
        assert canary not in str(refused.value)
        listener = servers.Listener(mosquitto, username="edge", password=right)
        with delivering(outbox, settings) as worker:
            feed.put(1)
            while not worker.failing.last_error:
                time.sleep(0.02)
            secret.write_text(right)
            listener.wait_for(lambda got: ids_in(got) == feed.ids)
        listener.close()


def test_tls_is_checked_against_the_given_authority(tmp_path: Path) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run([need("openssl"), *arguments], check=True, capture_output=True, cwd=tmp_path)

    curve = ("-pkeyopt", "ec_paramgen_curve:prime256v1")
    alternative = ("-addext", "subjectAltName=IP:127.0.0.1")
    for name in ("server", "stranger"):
        names = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl(
            "req",
            "-x509",
            "-newkey",
            "ec",
            *curve,
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            *alternative,
            *names,
        )
    lines = ("allow_anonymous true", f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key")
    with broker(tmp_path, *lines) as mosquitto:
        known = MqttSettings(host="127.0.0.1", port=mosquitto.port, tls=True, tls_ca_file=tmp_path / "server.pem")
        target = MqttTarget(known, lambda: ["door"], "box")
        target.keep_alive()
        target.close()
        stranger = known.model_copy(update={"tls_ca_file": tmp_path / "stranger.pem"})
        with pytest.raises(SinkError, match="cannot be reached"):
            MqttTarget(stranger, lambda: ["door"], "box").keep_alive()


def test_a_broker_that_accepts_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = MqttSettings(host="127.0.0.1", port=silent.getsockname()[1], timeout_s=0.5)
        began = time.monotonic()
        with pytest.raises(SinkError, match="no answer within"):
            MqttTarget(settings, lambda: ["door"], "box").keep_alive()
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_command_is_obeyed_told_back_and_not_repeated(tmp_path: Path, protocol: Any) -> None:
    off: set[SwitchPart] = set()

    def switch(stream: str, part: SwitchPart, *, is_on: bool) -> None:
        assert stream == "door"
        (off.discard if is_on else off.add)(part)

    def standings() -> dict[str, Standing]:
        return {"door": Standing("streaming", off=frozenset(off), has_recording=True)}

    def told(got: list[tuple[str, str, bool]]) -> list[str]:
        return [json.loads(text)["analysis"] for topic, text, _ in got if topic == "edge/door/state"]

    with broker(tmp_path) as mosquitto:
        settings = MqttSettings(host="127.0.0.1", port=mosquitto.port, protocol=protocol, commands=True)
        listener = servers.Listener(mosquitto)
        # it lies there before anybody has subscribed: nobody meant it for now
        listener.publish("edge/door/recording/set", "OFF", retain=True)
        target = MqttTarget(settings, lambda: ["door"], "box", standings, None, switch)
        with delivering(Outbox(tmp_path / "e.db", ["mqtt"]), target):
            listener.wait_for(lambda got: told(got) == ["ON"])
            listener.publish("edge/door/analysis/set", "OFF")
            listener.wait_for(lambda got: told(got)[-1] == "OFF")
            listener.publish("edge/door/analysis/set", "ON", qos=0)
            listener.wait_for(lambda got: told(got)[-1] == "ON")
        assert off == set()
        listener.close()


def told_by(listener: servers.Listener) -> int:
    """How many messages were refused, as far as it heard."""
    return sum(json.loads(text)["count"] for _, text, _ in list(listener.got))


def test_hostile_messages_cost_no_event_and_change_nothing(tmp_path: Path) -> None:
    done: list[str] = []
    outbox = Outbox(tmp_path / "e.db", ["mqtt"])
    feed = Feed(outbox)
    with broker(tmp_path) as mosquitto:
        settings = MqttSettings(host="127.0.0.1", port=mosquitto.port, commands=True, timeout_s=5)
        target = MqttTarget(settings, lambda: ["door"], "box", dict, None, lambda *a, **_: done.append(a[0]))
        listener = servers.Listener(mosquitto)
        attacker = servers.Listener(mosquitto, "edge/refused", client_id="attacker")
        with delivering(outbox, target) as worker:
            listener.wait_for(lambda got: any(topic == "edge/status" for topic, _, _ in got))
            for size in (0, 3, 200_000, 5_000_000):
                attacker.publish("edge/door/analysis/set", b"\xff" * size, qos=size % 2)
            attacker.publish(f"edge/{'x' * 60_000}/analysis/set", "OFF")
            for number in range(3_000):
                attacker.publish(f"edge/door{number % 7}/recording/set", "OFF", qos=0)
            feed.put(50)
            listener.wait_for(lambda got: set(ids_in(got)) == set(feed.ids), 60)
            refused = [json.loads(text) for _, text, _ in attacker.got]
            # a broker that is busy drops what has QoS 0: all that came is told when no more is
            num_told = -1
            while num_told <= 0 or num_told < told_by(attacker):
                num_told = told_by(attacker)
                time.sleep(3)
            assert num_told <= 3_005
            assert worker.counters["failures"] == 0
        assert done == [] and all({"topic", "reason", "count"} == set(one) for one in refused)
        assert len(attacker.got) < 60
        attacker.close()
        listener.close()


def test_a_broker_that_lets_nobody_subscribe_still_gets_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rights = tmp_path / "rights"
    # version 5 tells a refused subscription apart from one that never hears anything
    rights.write_text("topic write edge/#\n")
    outbox = Outbox(tmp_path / "e.db", ["mqtt"])
    feed = Feed(outbox)
    with broker(tmp_path, "allow_anonymous true", f"acl_file {rights}") as mosquitto:
        settings = MqttSettings(host="127.0.0.1", port=mosquitto.port, protocol="5", commands=True)
        target = MqttTarget(settings, lambda: ["door"], "box", dict, None, lambda *_, **__: None)
        with delivering(outbox, target) as worker:
            feed.put(3)
            while worker.counters["delivered"] < 3:
                time.sleep(0.02)


def test_a_check_logs_in_without_a_word_to_anybody(tmp_path: Path) -> None:
    with broker(tmp_path) as mosquitto:
        listener = servers.Listener(mosquitto)
        settings = MqttSettings(host="127.0.0.1", port=mosquitto.port, discovery="homeassistant")
        MqttTarget(settings, lambda: ["door"], "box").try_login()
        # a connection that nobody keeps is cut off, and the broker tells of it
        stays = MqttTarget(settings.model_copy(update={"client_id": "other"}), lambda: ["door"], "box")
        stays.keep_alive()
        listener.wait_for(lambda got: any(topic == "edge/status" for topic, _, _ in got))
        assert [payload for topic, payload, _ in listener.got if topic == "edge/status"] == ["online"]
        stays.close()
        listener.close()
