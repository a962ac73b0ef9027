"""Connections that take without giving: too many, idle ones, and those that send their request a byte at a time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.server.gate import Handed

# how long a connection may be without a whole request
IDLE_S = 15.0
# how long it may take to begin, which with TLS means the handshake
HANDSHAKE_S = 5.0
CHECK_S = 2.0
MAX_CONNECTIONS = 256


class Listener(socket.socket):
    """A listening socket that tells ``on_accept`` of every connection, in the thread that accepts it."""

    on_accept: Callable[[socket.socket], None] | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        """As that of ``socket``."""
        connection, address = super().accept()
        if self.on_accept is not None:
            self.on_accept(connection)
        return connection, address


class Connections:
    """The open connections of one server, at most ``MAX_CONNECTIONS``. Used by its event loop.

    They count from when they are accepted: asyncio tells a protocol of one with TLS only after the handshake, which a
    silent client never begins.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # oldest first
        self._accepted: list[socket.socket] = []
        # by the number of the socket's file
        self._begun: dict[int, Any] = {}

    def accepted(self, connection: socket.socket) -> None:
        """Somebody came; where there are too many, somebody who waits for nothing makes room, the oldest first."""
        self._accepted = [one for one in self._accepted if one.fileno() >= 0]
        self._accepted.append(connection)
        if len(self._accepted) > MAX_CONNECTIONS:
            self._end(next((one for one in self._accepted if not self._is_busy(one)), connection))
        self._loop.call_later(HANDSHAKE_S, self._check_begun, connection)

    def begun(self, file_number: int, protocol: Any) -> None:
        """The connection can be used, by this protocol."""
        self._begun[file_number] = protocol

    def ended(self, file_number: int, protocol: Any) -> None:
        """The protocol's connection is closed."""
        # another one may have got the number meanwhile
        if self._begun.get(file_number) is protocol:
            del self._begun[file_number]

    def _is_busy(self, connection: socket.socket) -> bool:
        protocol = self._begun.get(connection.fileno())
        return protocol is not None and bool(protocol.is_busy())

    def _check_begun(self, connection: socket.socket) -> None:
        if connection in self._accepted and connection.fileno() >= 0 and connection.fileno() not in self._begun:
            self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        """Let the connection's owner, asyncio, read its end, so that it closes it."""
        self._accepted.remove(connection)
        # the client may have gone already
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def limited_protocol(connections: Connections) -> Any:
    """uvicorn's HTTP protocol class with these limits, for one server."""
    # not the parser that is found: only this one bounds what it keeps of a request that does not end
    from uvicorn.protocols.http.h11_impl import H11Protocol

    protocol: Any = H11Protocol

    class LimitedProtocol(protocol):  # type: ignore[misc]
        handed: Handed | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._file_number = transport.get_extra_info("socket").fileno()
            connections.begun(self._file_number, self)
            self._busy_s, self._last_cycle = self.loop.time(), None
            self._check_timer = self.loop.call_later(min(CHECK_S, IDLE_S), self._check)
            if self.handed is not None:
                self.client = self.handed.address
                self.scheme = "https" if self.handed.is_secure else "http"
                self.data_received(self.handed.first)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.ended(self._file_number, self)
            self._check_timer.cancel()
            super().connection_lost(exc)

        def is_busy(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _check(self) -> None:
            # a cycle is a request with its answer, which may have come and gone since the last look
            if self.is_busy() or self.cycle is not self._last_cycle:
                self._busy_s, self._last_cycle = self.loop.time(), self.cycle
            elif self.loop.time() - self._busy_s > IDLE_S:
                self.transport.abort()
                return
            self._check_timer = self.loop.call_later(min(CHECK_S, IDLE_S), self._check)

    return LimitedProtocol
