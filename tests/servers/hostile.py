"""A server whose every connection is a function of the test: for brokers and web servers that mean no good."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Behaviour = Callable[[socket.socket], None]


class Hostile:
    """Listens on a free port; ``behaviour`` may be changed while it runs. Its threads end with it."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.num_connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self.num_connections += 1
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            self.behaviour(connection)
        with contextlib.suppress(OSError):
            connection.close()
        self._open.discard(connection)

    def close(self) -> None:
        # a thread that accepts keeps a socket that is only closed
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def read_exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def read_packet(connection: socket.socket) -> tuple[int, bytes]:
    """First byte and body of an MQTT packet."""
    head, length, shift = read_exactly(connection, 1)[0], 0, 0
    while True:
        byte = read_exactly(connection, 1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return head, read_exactly(connection, length)


def message_number(body: bytes) -> bytes:
    """Of a PUBLISH with QoS 1."""
    start = 2 + int.from_bytes(body[:2], "big")
    return body[start : start + 2]
