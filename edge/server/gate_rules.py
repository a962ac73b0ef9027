"""Which connections the gate lets through to the server, from the first bytes that they send."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from edge.server.access import Access, Credentials, GuessLimit
from edge.server.answers import OPEN_PATHS, needed, raw_answer
from edge.server.known import FindSession, Known, credentials
from edge.server.login import LOGIN_HEADERS, login_page, words
from edge.server.logins import MAX_BODY_BYTES, PATH, LoginAnswer
from edge.server.proxies import FORWARDED_FOR, FORWARDED_PROTO
from edge.users.file import UsersFile

MAX_HEAD_BYTES = 16 * 1024
END = b"\r\n\r\n"
_REQUEST = re.compile(rb"([A-Z]{1,16}) (?:http://[^/? ]*)?([^? ]*)(?:\?([^ ]*))? HTTP/1\.[01]\Z")
_LOGIN = f"POST {PATH} HTTP/1.".encode()
_LENGTH = re.compile(r"\d{1,5}")
_READ = (
    *("authorization", "cookie", "host", "origin", "sec-fetch-site", "content-length"),
    *(FORWARDED_FOR, FORWARDED_PROTO),
)


@dataclass(frozen=True, slots=True)
class Form:
    """A login whose body is still to be read.

    Attributes:
        num_bytes: of its body.
        address: of who has sent it.
        headers: of the request.
        is_secure: whether the browser speaks HTTPS.
        session: the cookie of the session that it has, empty if none.
    """

    num_bytes: int
    address: str
    headers: Callable[[str], list[str]]
    is_secure: bool
    session: str


class GateRules:
    """Looks for a right token or session, no more: what a request asks for, the server reads.

    Args:
        access: tokens and users.
        is_alive: whether the server answers, for ``/healthz``.
        is_secure: whether the connections are HTTPS.
        users: None where there are none.
        find: the user and generation of a session.
        on_spoof: told where a request comes from that names a user as only trusted proxies may.
    """

    def __init__(
        self,
        access: Access,
        is_alive: Callable[[], bool],
        *,
        is_secure: bool,
        users: UsersFile | None = None,
        find: FindSession = lambda key: None,
        on_spoof: Callable[[str], None] = lambda address: None,
    ) -> None:
        self._access = access
        self._is_alive = is_alive
        self._is_secure = is_secure
        self._has_users = users is not None
        self._known = Known(access, users, find)
        self._on_spoof = on_spoof
        self._limit = GuessLimit()
        self._no_token = self._raw(401, needed(has_users=self._has_users), {"www-authenticate": "Bearer"})
        names = (*_READ, access.proxies.header) if access.proxies.header else _READ
        self._patterns = {
            name: re.compile(rb"\r\n" + re.escape(name.encode()) + rb":([^\r\n]*)", re.IGNORECASE) for name in names
        }

    def form_in(self, head: bytes, address: str) -> Form | None:
        """The login that a request is, if it is one; the arguments as those of ``answer_to``."""
        if not (self._has_users and head.startswith(_LOGIN)):
            return None
        headers = self._headers(head.partition(END)[0])
        length = headers("content-length")
        if len(length) != 1 or not _LENGTH.fullmatch(length[0]) or int(length[0]) > MAX_BODY_BYTES:
            return None
        proxies = self._access.proxies
        is_secure = self._is_secure or proxies.is_secure(address, headers)
        shown, _ = credentials(self._access, headers, "", address, is_secure=is_secure)
        return Form(int(length[0]), proxies.client_of(address, headers), headers, is_secure, shown.session)

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
        headers = self._headers(head.partition(END)[0])
        is_secure = self._is_secure or self._access.proxies.is_secure(address, headers)
        text = (query or b"").decode("latin-1")
        shown, is_spoofed = credentials(self._access, headers, text, address, is_secure=is_secure)
        if is_spoofed:
            self._on_spoof(address)
        client = self._access.proxies.client_of(address, headers)
        if self._has_users and head.startswith(_LOGIN):
            return self._raw(413, f"expected a form of at most {MAX_BODY_BYTES} bytes, with its content-length\n")
        if self._known.who(shown) is not None or self._access.is_snooze(path.decode("latin-1"), text):
            return None
        if path.decode("latin-1") in OPEN_PATHS:
            return self._health(method)
        return self._refusal(method, path, shown, client)

    def _refusal(self, method: bytes, path: bytes, shown: Credentials, client: str) -> bytes:
        # a session that is over is no guess: its cookie is random, and a browser goes on showing it
        is_guess = bool(shown.bearer or shown.in_address or shown.cookie)
        wait_s = self._limit.note(client) if is_guess else 0.0
        if wait_s:
            told = f"too many wrong tokens; try again in {wait_s:.0f} s\n"
            return self._raw(429, told, {"retry-after": f"{wait_s:.0f}"})
        if method == b"GET" and path == b"/":
            wrong = words("login.token.wrong") if is_guess else ""
            return self._raw(401, login_page(wrong, has_users=self._has_users), {**LOGIN_HEADERS})
        return self._no_token

    def login_answer(self, answer: LoginAnswer) -> bytes:
        """As it goes out."""
        return raw_answer(
            answer.status, answer.words, answer.headers, is_secure=self._is_secure, cookies=answer.cookies
        )

    def _headers(self, head: bytes) -> Callable[[str], list[str]]:
        def values(name: str) -> list[str]:
            return [found.decode("latin-1").strip() for found in self._patterns[name].findall(head)]

        return values

    def _health(self, method: bytes) -> bytes:
        if method not in (b"GET", b"HEAD"):
            return self._raw(405, "expected GET\n", {"allow": "GET, HEAD"})
        answer = self._raw(200, "ok\n") if self._is_alive() else self._raw(503, "the server does not answer\n")
        return answer if method == b"GET" else answer.partition(END)[0] + END

    def _raw(self, status: int, told: str, more: dict[str, str] | None = None) -> bytes:
        return raw_answer(status, told, more or {}, is_secure=self._is_secure)
