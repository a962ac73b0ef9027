"""The process before the server: what it lets through, what it survives, and that nobody waits behind it."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from daemon_process import TOKEN, gate_of
from e2e.live_show import mjpeg_pictures, show, wait_until

import edge.server.gate
from edge.server import LiveServer, gate_process
from edge.server.board import LiveBoard

RIGHT = {"Authorization": f"Bearer {TOKEN}"}
WHOLE = f"GET /api/stats HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
WRONG = WHOLE.replace(TOKEN.encode(), b"wrong")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses other loopback addresses and /proc")


def connected(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 5, (source, 0))


def asked(port: int, data: bytes, source: str = "127.0.0.1") -> bytes:
    """All that is answered until the connection ends, or nothing more comes for a moment."""
    with connected(port, source) as connection:
        connection.sendall(data)
        connection.settimeout(20.0)
        answer = b""
        try:
            while more := connection.recv(65536):
                connection.settimeout(0.5)
                answer += more
        except TimeoutError:
            pass
        return answer


def statuses(answer: bytes) -> list[int]:
    return [int(part.split(b" ", 2)[1]) for part in answer.split(b"HTTP/1.1")[1:]]


def test_a_gate_that_dies_costs_no_viewer_and_is_begun_anew() -> None:
    with (
        show("door", token=TOKEN) as running,
        running.play(),
        httpx.stream("GET", f"{running.url}/stream/door.mjpeg", headers=RIGHT) as response,
    ):
        pictures = mjpeg_pictures(response)
        next(pictures)
        before = gate_of(os.getpid())
        os.kill(before, signal.SIGKILL)
        for _ in range(5):
            next(pictures)
        # whoever comes meanwhile waits in the listening socket
        assert httpx.get(f"{running.url}/api/stats", headers=RIGHT, timeout=20).status_code == 200
        assert gate_of(os.getpid()) not in (0, before)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_gate_that_dies_sixty_times_leaves_nothing_behind() -> None:
    dice = random.Random(11)
    with show("door", token=TOKEN) as running, running.play():
        assert statuses(asked(running.port, WHOLE)) == [200]
        files = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(60):
            with connected(running.port, "127.0.0.3") as half:
                half.sendall(WHOLE[: dice.randrange(len(WHOLE))])
                time.sleep(dice.uniform(0, 0.2))
                if gate := gate_of(os.getpid()):
                    os.kill(gate, dice.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT]))
                begin_s = time.monotonic()
                assert statuses(asked(running.port, WHOLE)) == [200]
                assert time.monotonic() - begin_s < 10
        assert len(list(Path("/proc/self/fd").iterdir())) <= files + 2


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_thousand_odd_beginnings_end_no_gate() -> None:
    dice = random.Random(12)
    with show("door", token=TOKEN) as running:
        assert statuses(asked(running.port, WHOLE)) == [200]
        gate = gate_of(os.getpid())
        for number in range(10_000):
            data = bytearray(dice.choice([WHOLE, WRONG, dice.randbytes(200)]))
            for _ in range(dice.randrange(4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            with suppress(OSError), connected(running.port, f"127.0.{dice.randrange(200)}.3") as connection:
                connection.sendall(data[: dice.randrange(1, len(data) + 1)])
                if number % 50 == 0:
                    # half of a request is answered by nothing
                    connection.settimeout(0.02)
                    connection.recv(4096)
        assert statuses(asked(running.port, WHOLE)) == [200]
        assert gate_of(os.getpid()) == gate
        assert len(list(Path(f"/proc/{gate}/fd").iterdir())) < 300


def test_signals_of_the_terminal_are_left_to_the_server() -> None:
    with show("door", token=TOKEN) as running:
        wait_until(lambda: asked(running.port, WHOLE) != b"")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(gate_of(os.getpid()), number)
        assert statuses(asked(running.port, WHOLE)) == [200]


def test_the_end_of_the_server_is_the_end_of_the_gate() -> None:
    code = (
        "from edge.server.board import LiveBoard; from edge.server.server import LiveServer; import time\n"
        f"server = LiveServer(LiveBoard(), port=0, token={TOKEN!r})\n"
        "print(server.start()[1], flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert statuses(asked(port, WHOLE)) == [200]
        gate = gate_of(process.pid)
        process.kill()
    wait_until(lambda: not Path(f"/proc/{gate}").exists())
    with pytest.raises(ConnectionRefusedError):
        connected(port)


def test_no_token_stands_where_other_processes_can_read_it() -> None:
    with show("door", token=TOKEN) as running:
        assert statuses(asked(running.port, WHOLE)) == [200]
        gate = Path(f"/proc/{gate_of(os.getpid())}")
        assert TOKEN.encode() not in (gate / "cmdline").read_bytes() + (gate / "environ").read_bytes()


def test_who_came_in_with_a_right_token_is_asked_for_it_every_time() -> None:
    with show("door", token=TOKEN) as running:
        assert statuses(asked(running.port, WHOLE * 3)) == [200, 200, 200]
        # and loses the connection with the first wrong one
        assert statuses(asked(running.port, WHOLE + WRONG * 3)) == [200, 401]


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_a_body_that_nobody_wants_does_not_hide_the_answer(size: int) -> None:
    with show("door", token=TOKEN) as running:
        assert httpx.post(f"{running.url}/api/reload", content=b"x" * size).status_code == 401


def test_a_request_in_pieces_is_put_together() -> None:
    with show("door", token=TOKEN) as running, connected(running.port) as connection:
        for begin in range(0, len(WHOLE), 7):
            connection.sendall(WHOLE[begin : begin + 7])
            time.sleep(0.002)
        assert statuses(connection.recv(4096)) == [200]


@pytest.mark.parametrize("data", [b"", b"GET /api/stats HTTP/1.1\r\nHost: localhost\r\nX-A: "])
def test_silent_and_slow_ones_make_room_for_others(data: bytes) -> None:
    with show("door", token=TOKEN) as running, ExitStack() as stack:
        for _ in range(2 * gate_process.MAX_WAITING):
            stack.enter_context(connected(running.port, "127.0.0.3")).sendall(data)
        # slow ones of another network keep their place: the crowd loses its own
        slow = stack.enter_context(connected(running.port, "127.0.0.4"))
        slow.sendall(WHOLE[:40])
        for _ in range(gate_process.MAX_WAITING):
            stack.enter_context(connected(running.port, "127.0.0.3"))
        assert statuses(asked(running.port, WHOLE)) == [200]
        slow.sendall(WHOLE[40:])
        assert statuses(slow.recv(4096)) == [200]
        assert len(list(Path(f"/proc/{gate_of(os.getpid())}/fd").iterdir())) < 1.2 * gate_process.MAX_WAITING


def test_a_gate_without_files_left_serves_on() -> None:
    with show("door", token=TOKEN) as running, ExitStack() as stack:
        assert statuses(asked(running.port, WHOLE)) == [200]
        gate = gate_of(os.getpid())
        resource.prlimit(gate, resource.RLIMIT_NOFILE, (40, 40))
        for _ in range(100):
            stack.enter_context(connected(running.port, "127.0.0.3"))
        assert statuses(asked(running.port, WHOLE)) == [200]
        assert gate_of(os.getpid()) == gate


def test_a_gate_that_cannot_be_begun_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.server.gate, "RETRY_S", 0.2)
    with show("door", token=TOKEN) as running:
        assert statuses(asked(running.port, WHOLE)) == [200]
        gate = gate_of(os.getpid())
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.close(free := os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            os.kill(gate, signal.SIGKILL)
            time.sleep(1.2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert gate_of(os.getpid()) == 0
        assert statuses(asked(running.port, WHOLE)) == [200]


def test_a_busy_server_loses_nobody_who_has_a_token() -> None:
    with show("door", token=TOKEN) as running, ExitStack() as stack:
        assert statuses(asked(running.port, WHOLE)) == [200]
        loop = running.server._loop
        assert loop is not None
        loop.call_soon_threadsafe(time.sleep, 1.5)
        many = [stack.enter_context(connected(running.port)) for _ in range(100)]
        for connection in many:
            connection.sendall(WHOLE)
        for connection in many:
            connection.settimeout(10)
            assert statuses(connection.recv(65536)) == [200]


def test_a_right_token_comes_in_from_an_address_of_many_guesses() -> None:
    with show("door", token=TOKEN) as running:
        assert [statuses(asked(running.port, WRONG)) for _ in range(12)] == [[401]] * 10 + [[429]] * 2
        assert statuses(asked(running.port, WHOLE)) == [200]


def test_a_server_that_hangs_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    with show("door", token=TOKEN) as running:
        assert httpx.get(f"{running.url}/healthz").status_code == 200
        loop = running.server._loop
        assert loop is not None
        loop.call_soon_threadsafe(time.sleep, gate_process.SILENT_S + 3)
        wait_until(lambda: httpx.get(f"{running.url}/healthz").status_code == 503)
        wait_until(lambda: httpx.get(f"{running.url}/healthz").status_code == 200)


# TLS


@contextmanager
def secure(tls: tuple[Path, Path]) -> Iterator[tuple[int, LiveBoard, httpx.Client]]:
    board = LiveBoard()
    board.add_stream("door", {})
    server = LiveServer(board, port=0, tls=tls, token=TOKEN, max_peers=0)
    _, port = server.start()
    trusted = ssl.create_default_context(cafile=str(tls[0]))
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted, timeout=30) as client:
            yield port, board, client
    finally:
        server.stop()


def test_over_tls_the_gate_deciphers(tls: tuple[Path, Path]) -> None:
    with secure(tls) as (_, _, client):
        refused = client.get("/api/stats")
        assert refused.status_code == 401
        allowed = client.get("/api/stats", headers=RIGHT)
        assert allowed.status_code == 200
        # a browser that was here once comes over TLS from then on
        assert all("max-age=" in answer.headers["strict-transport-security"] for answer in (refused, allowed))
        assert "Secure" in client.get(f"/?token={TOKEN}").headers["set-cookie"]
        assert client.get("/").status_code == 200


def test_certificates_may_be_named_from_the_current_folder(
    tls: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tls[0].parent)
    with secure((Path(tls[0].name), Path(tls[1].name))) as (_, _, client):
        assert client.get("/api/stats", headers=RIGHT).status_code == 200


def test_silent_handshakes_keep_nobody_out(tls: tuple[Path, Path]) -> None:
    with secure(tls) as (port, _, client), ExitStack() as stack:
        for _ in range(2 * gate_process.MAX_WAITING):
            stack.enter_context(connected(port, "127.0.0.3"))
        assert client.get("/api/stats", headers=RIGHT).status_code == 200


def test_a_viewer_over_tls_that_does_not_read_slows_nobody(tls: tuple[Path, Path]) -> None:
    with secure(tls) as (_, board, client), client.stream("GET", "/api/results/door", headers=RIGHT):
        wait_until(lambda: board.counts()["door"]["viewers"] == 0 and bool(board._channels["door"].viewers))
        begin_s = time.monotonic()
        for _ in range(2000):
            board.publish("door", b'{"x":"' + b"x" * 10_000 + b'"}')
        assert time.monotonic() - begin_s < 5
        assert client.get("/api/stats", headers=RIGHT).status_code == 200
    wait_until(lambda: not board._channels["door"].viewers)


@pytest.mark.parametrize("send", [lambda c: c.sendall(WHOLE), lambda c: c.sendall(b"\x16\x03\x01" + b"\xff" * 500)])
def test_what_is_no_tls_ends(
    send: Callable[[socket.socket], None], tls: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    with secure(tls) as (port, _, client):
        with connected(port) as connection:
            send(connection)
            while connection.recv(4096):
                pass
        assert client.get("/api/stats", headers=RIGHT).status_code == 200
    # a log that strangers can fill would be an attack of its own
    assert capfd.readouterr().err == ""
