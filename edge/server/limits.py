"""Connections that take without giving: idle ones and those that send their request a byte at a time are closed."""

from __future__ import annotations

import asyncio
from typing import Any

# how long a connection may be without a whole request
IDLE_S = 15.0
CHECK_S = 2.0
MAX_CONNECTIONS = 256


def limited_protocol(max_connections: int = MAX_CONNECTIONS, idle_s: float = IDLE_S) -> Any:
    """uvicorn's HTTP protocol class with these limits, for one server."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    # oldest first
    open_connections: dict[Any, None] = {}
    protocol: Any = AutoHTTPProtocol

    class LimitedProtocol(protocol):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._busy_s = self.loop.time()
            open_connections[self] = None
            self._check_timer = self.loop.call_later(min(CHECK_S, idle_s), self._check)
            if len(open_connections) > max_connections:
                # somebody who waits for nothing makes room for somebody who just came
                next((other for other in open_connections if not other._is_busy()), self)._give_up()

        def connection_lost(self, exc: Exception | None) -> None:
            open_connections.pop(self, None)
            self._check_timer.cancel()
            super().connection_lost(exc)

        def _is_busy(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _check(self) -> None:
            if self._is_busy():
                self._busy_s = self.loop.time()
            elif self.loop.time() - self._busy_s > idle_s:
                self._give_up()
                return
            self._check_timer = self.loop.call_later(min(CHECK_S, idle_s), self._check)

        def _give_up(self) -> None:
            open_connections.pop(self, None)
            self.transport.abort()

    return LimitedProtocol
