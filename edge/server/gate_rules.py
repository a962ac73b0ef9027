"""Which connections the gate lets through to the server, from the first bytes that they send."""

from __future__ import annotations

import re
from collections.abc import Callable

from edge.server.access import Access, Credentials, GuessLimit
from edge.server.answers import NO_TOKEN, OPEN_PATHS, raw_answer
from edge.server.login import LOGIN_HEADERS, login_page

MAX_HEAD_BYTES = 16 * 1024
END = b"\r\n\r\n"
_REQUEST = re.compile(rb"([A-Z]{1,16}) (?:http://[^/? ]*)?([^? ]*)(?:\?([^ ]*))? HTTP/1\.[01]\Z")
_AUTHORIZATION = re.compile(rb"\r\nauthorization:([^\r\n]*)", re.IGNORECASE)
_COOKIES = re.compile(rb"\r\ncookie:([^\r\n]*)", re.IGNORECASE)


class GateRules:
    """Looks for a right token, no more: what a request asks for, the server reads.

    Args:
        access: the tokens.
        is_alive: whether the server answers, for ``/healthz``.
        is_secure: whether the connections are HTTPS.
    """

    def __init__(self, access: Access, is_alive: Callable[[], bool], *, is_secure: bool) -> None:
        self._access = access
        self._is_alive = is_alive
        self._is_secure = is_secure
        self._limit = GuessLimit()
        self._no_token = self._raw(401, NO_TOKEN, {"www-authenticate": "Bearer"})

    def answer_to(self, head: bytes, address: str) -> bytes | None:
        """The answer to who must stay outside; None lets the connection through.

        Args:
            head: what came first of a connection, to the end of the request's headers; shorter, it is refused.
            address: that it comes from.
        """
        line, found, _ = head.partition(b"\r\n")
        request = _REQUEST.match(line)
        if len(head) > MAX_HEAD_BYTES and END not in head[:MAX_HEAD_BYTES]:
            return self._raw(431, f"expected a request with at most {MAX_HEAD_BYTES} bytes of headers\n")
        if request is None or not found:
            return self._raw(400, "expected an HTTP/1.1 request\n")
        method, path, query = request.groups()
        shown = _credentials(head.partition(END)[0], query or b"")
        text = (query or b"").decode("latin-1")
        if self._access.role_of(shown) or self._access.is_snooze(path.decode("latin-1"), text):
            return None
        if path.decode("latin-1") in OPEN_PATHS:
            return self._health(method)
        wait_s = self._limit.note(address) if shown else 0.0
        if wait_s:
            words = f"too many wrong tokens; try again in {wait_s:.0f} s\n"
            return self._raw(429, words, {"retry-after": f"{wait_s:.0f}"})
        if method == b"GET" and path == b"/":
            return self._raw(401, login_page("This is not the token." if shown else ""), {**LOGIN_HEADERS})
        return self._no_token

    def _health(self, method: bytes) -> bytes:
        if method not in (b"GET", b"HEAD"):
            return self._raw(405, "expected GET\n", {"allow": "GET, HEAD"})
        answer = self._raw(200, "ok\n") if self._is_alive() else self._raw(503, "the server does not answer\n")
        return answer if method == b"GET" else answer.partition(END)[0] + END

    def _raw(self, status: int, words: str, more: dict[str, str] | None = None) -> bytes:
        return raw_answer(status, words, more or {}, is_secure=self._is_secure)


def _credentials(head: bytes, query: bytes) -> Credentials:
    authorization, cookies = _AUTHORIZATION.search(head), _COOKIES.search(head)
    return Credentials.of(
        authorization[1].decode("latin-1") if authorization else "",
        query.decode("latin-1"),
        cookies[1].decode("latin-1") if cookies else "",
    )
