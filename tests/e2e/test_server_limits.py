"""Connections that take without giving: silent ones with TLS, and viewers whose machine has vanished."""

from __future__ import annotations

import select
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from e2e.live_show import Show, mjpeg_pictures, show, wait_until

import edge.server.server
from edge.server import LiveServer, limits
from edge.server.board import LiveBoard

MANY = 60


@contextmanager
def serving(tls: tuple[Path, Path] | None) -> Iterator[int]:
    board = LiveBoard()
    board.add_stream("door", {})
    server = LiveServer(board, port=0, tls=tls, max_peers=0)
    _, port = server.start()
    try:
        yield port
    finally:
        server.stop()


def silent(stack: ExitStack, port: int, count: int) -> list[socket.socket]:
    address = ("127.0.0.1", port)
    return [stack.enter_context(socket.create_connection(address, timeout=5)) for _ in range(count)]


def num_open(connections: list[socket.socket]) -> int:
    """How many the server has not closed; none of them was ever sent anything."""
    ended, _, _ = select.select(connections, [], [], 0)
    return len(connections) - len(ended)


@pytest.mark.parametrize("is_tls", [False, True])
def test_silent_connections_are_bounded_and_keep_nobody_out(
    is_tls: bool, tls: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", MANY)
    with serving(tls if is_tls else None) as port, ExitStack() as stack:
        connections = silent(stack, port, 2 * MANY)
        wait_until(lambda: num_open(connections) <= MANY, timeout_s=3)
        # the newest ones stay, and make room for one who asks for something
        assert num_open(connections[MANY:]) == MANY
        trusted = ssl.create_default_context(cafile=str(tls[0]))
        answer = httpx.get(f"http{'s' if is_tls else ''}://127.0.0.1:{port}/healthz", verify=trusted)
        assert answer.status_code == 200


def test_a_tls_handshake_that_does_not_come_is_given_up(
    tls: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_S", 0.5)
    with serving(tls) as port, ExitStack() as stack:
        trusted = ssl.create_default_context(cafile=str(tls[0]))
        client = stack.enter_context(httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted))
        assert client.get("/healthz").status_code == 200
        connections = silent(stack, port, 5)
        assert num_open(connections) == 5
        wait_until(lambda: num_open(connections) == 0, timeout_s=5)
        assert client.get("/healthz").status_code == 200


def test_who_asks_again_and_again_keeps_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers are so quick that whoever looks now and then finds it waiting for nothing."""
    monkeypatch.setattr(limits, "IDLE_S", 0.5)
    with serving(None) as port, closing(HTTPConnection("127.0.0.1", port, timeout=5)) as client:
        client.connect()
        connection = client.sock
        until_s = time.monotonic() + 6 * limits.IDLE_S
        while time.monotonic() < until_s:
            client.request("GET", "/healthz")
            assert client.getresponse().read() == b"ok\n" and client.sock is connection
            time.sleep(0.02)
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert connection.recv(4096) == b"", "a request that does not end"


def test_who_watches_keeps_the_place_while_silent_ones_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", MANY)
    with (
        show("door") as running,
        running.play(),
        httpx.stream("GET", f"{running.url}/stream/door.mjpeg") as response,
        ExitStack() as stack,
    ):
        pictures = mjpeg_pictures(response)
        next(pictures)
        connections = silent(stack, running.port, 2 * MANY)
        wait_until(lambda: num_open(connections) < MANY, timeout_s=5)
        for _ in range(5):
            next(pictures)


def test_places_that_were_left_are_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 3)
    with show("door") as running:
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(watcher(running))
            wait_until(lambda: viewers(running) == 3)
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{running.url}/healthz")
        wait_until(lambda: viewers(running) == 0)
        assert httpx.get(f"{running.url}/healthz").status_code == 200


def watcher(running: Show) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", running.port), timeout=5)
    connection.sendall(b"GET /stream/door.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection


def viewers(running: Show) -> int:
    return running.board.counts()["door"]["viewers"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets connections inherit the options of their listener")
def test_a_viewer_of_a_silent_stream_whose_machine_vanished_is_noticed() -> None:
    listener = edge.server.server._listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()) as _, listener.accept()[0] as connection:
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle_s, every_s, times = (
            connection.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
    assert idle_s + every_s * times <= 30


def test_stop_does_not_wait_for_handshakes(tls: tuple[Path, Path]) -> None:
    with ExitStack() as stack:
        with serving(tls) as port:
            connections = silent(stack, port, 5)
            started_s = time.monotonic()
        assert time.monotonic() - started_s < 3.5
        wait_until(lambda: num_open(connections) == 0, timeout_s=5)
