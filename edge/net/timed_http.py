"""HTTP requests whose answers are bounded in time and bytes, whatever the server does."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge.net.timed_socket import Limits, TimedSocket

# of the status line, the headers and any number of interim answers
MAX_HEAD_BYTES = 1 << 17
FAULTS = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said. Names of headers are in lower case; ``body`` ends where the caller's limit does."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class TimedHttp:
    """The server of an address, over one connection while that lasts. No redirects, no proxies. Used by one thread.

    Args:
        url: ``http`` or ``https``; its login and path are the caller's to send.
        tls: how a certificate is checked; needed for ``https``.
        is_allowed: whether an address of the host may be connected to.
    """

    def __init__(
        self, url: str, tls: ssl.SSLContext | None = None, is_allowed: Callable[[str], bool] = lambda address: True
    ) -> None:
        parts = urlsplit(url)
        self._limits = Limits()
        default = 443 if parts.scheme == "https" else 80
        self._connection = _Connection(parts.hostname or "", parts.port or default, self._limits, tls, is_allowed)
        self._is_used = False

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        max_bytes: int,
    ) -> Answer:
        """Send a request and read its answer.

        Args:
            method, target, body, headers: of the request.
            timeout_s: for all of it: name, connection, request and answer.
            max_bytes: of the body that are read; the rest is left unread, and the connection closed.

        Raises:
            OSError, http.client.HTTPException, ValueError: there is no answer, in time; or what came is no HTTP.
        """
        self._limits.grant(time.monotonic() + timeout_s, MAX_HEAD_BYTES + max_bytes)
        try:
            if self._is_used:
                # the other end closes a connection that is not used for long, and tells so only now
                with suppress(ConnectionError, http.client.BadStatusLine):
                    return self._ask(method, target, body, headers, max_bytes)
                self.close()
            return self._ask(method, target, body, headers, max_bytes)
        except FAULTS:
            self.close()
            raise

    def close(self) -> None:
        """May be called twice; the next request opens another connection."""
        self._connection.close()
        self._is_used = False

    def abort(self) -> None:
        """End what another thread waits for."""
        connected = self._connection.sock
        if isinstance(connected, TimedSocket):
            connected.abort()

    def _ask(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], max_bytes: int) -> Answer:
        self._connection.request(method, target, body, dict(headers))
        answer = self._connection.getresponse()
        data = answer.read(max_bytes)
        self._is_used = answer.isclosed() and not answer.will_close
        if not self._is_used:
            self.close()
        names = {name.lower() for name in answer.headers}
        # what is sent twice is one list (RFC 9110, 5.3)
        headers = {name: ", ".join(answer.headers.get_all(name) or ()) for name in names}
        return Answer(answer.status, headers, data)


def target_of(url: str) -> str:
    """The path and query that a request line names."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


class _Connection(http.client.HTTPConnection):
    def __init__(
        self, host: str, port: int, limits: Limits, tls: ssl.SSLContext | None, is_allowed: Callable[[str], bool]
    ) -> None:
        super().__init__(host, port)
        self._is_allowed = is_allowed
        self._limits = limits
        self._tls = tls
        # the Host header leaves out what the scheme implies
        self.default_port = 80 if tls is None else 443

    def connect(self) -> None:
        self.sock = TimedSocket.connect(self.host, self.port, self._limits, self._tls, self._is_allowed)
