"""Who may do what with the API: by token, user and session, and a limit on guessing."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote_plus

from edge.addresses.networks import network_of
from edge.net.signed import SNOOZE_PURPOSE, signed_data
from edge.server.proxies import NO_PROXIES, Proxies

Role = Literal["view", "operate"]
COOKIE = "edgeloop"
# of a session; a browser takes the second one over HTTPS alone, from this host alone, and for no other
SESSION, SECURE_SESSION = "edgeloop-session", "__Host-edgeloop-session"
SNOOZE_PATH = "/snooze"
# wrong tokens within the window: from one network, and from all of them together
MAX_FAILURES = 10
MAX_FAILURES_OF_ALL = 300
FAILURE_WINDOW_S = 60.0
# networks that are remembered; an attacker with more of them costs no more memory
MAX_NETWORKS = 1024
MAX_TOKEN_CHARS = 512
MAX_COOKIE_CHARS = 4096
_BEARER = re.compile(rf"\s*bearer\s+(\S{{1,{MAX_TOKEN_CHARS}}})\s*\Z", re.IGNORECASE)
_COOKIE = re.compile(rf"(?:^|[;\s]){COOKIE}=([0-9a-f]{{64}})(?=[;\s]|\Z)")
_LINK = re.compile(r"(?:^|&)k=([\w.-]{1,1500})(?=&|\Z)", re.ASCII)
_SESSIONS = {
    is_secure: re.compile(rf"(?:^|[;\s]){name}=([0-9a-f]{{64}})(?=[;\s]|\Z)")
    for is_secure, name in ((False, SESSION), (True, SECURE_SESSION))
}
_TOKEN = re.compile(rf"(?:^|&)token=([^&]{{1,{MAX_TOKEN_CHARS}}})")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows for itself; an empty text is nothing.

    Attributes:
        bearer: the token of its Authorization header.
        in_address: the token of ``?token=``.
        cookie: of the page, 64 hexadecimal digits.
        session: the cookie of a session, 64 hexadecimal digits.
        vouched: the user whom a trusted proxy names.
    """

    bearer: str = ""
    in_address: str = ""
    cookie: str = ""
    session: str = ""
    vouched: str = ""

    @classmethod
    def of(cls, authorization: str, query: str, cookie: str) -> Credentials:
        """From the two headers and the query, as they came; takes bounded time whatever they are."""
        bearer = _BEARER.match(authorization[: 2 * MAX_TOKEN_CHARS])
        in_address = _TOKEN.search(query)
        crumb = _COOKIE.search(cookie[:MAX_COOKIE_CHARS])
        return cls(
            bearer[1] if bearer else "",
            unquote_plus(in_address[1]) if in_address else "",
            crumb[1] if crumb else "",
        )

    def __bool__(self) -> bool:
        return bool(self.bearer or self.in_address or self.cookie or self.session or self.vouched)


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in.

    Attributes:
        operate: who has this token may do everything.
        view: who has it may look; None: there is no such token.
        allow_anyone: without tokens and users, whether other machines may look too.
        snooze_key: signs the links of messages, which open one page without a token; empty: there are none.
        users_file: named users; None: there are none. Without an operate token either, everybody who reaches the port
            may look.
        proxies: which are trusted, and what they tell.
        idle_s, max_s: how long a session may be without a request, and how long it may last.
        audit_file, audit_bytes: where is written who did what, and how much of it is kept; None: nowhere.
    """

    operate: str | None = None
    view: str | None = None
    allow_anyone: bool = False
    snooze_key: bytes = b""
    users_file: Path | None = None
    proxies: Proxies = NO_PROXIES
    idle_s: float = 86_400.0
    max_s: float = 14 * 86_400.0
    audit_file: Path | None = None
    audit_bytes: int = 16 << 20

    @property
    def is_closed(self) -> bool:
        """Whether a token or a login is needed."""
        return self.operate is not None or self.users_file is not None

    def is_snooze(self, path: str, query: str) -> bool:
        """Whether this is the link of a message; how old it is, the page says."""
        link = _LINK.search(query) if path == SNOOZE_PATH and self.snooze_key else None
        return link is not None and signed_data(link[1], self.snooze_key, SNOOZE_PURPOSE) is not None

    def role_of(self, shown: Credentials) -> Role | None:
        """What these allow; every comparison takes the same time.

        A token in an address ends up in histories and logs, and browsers send the cookie unasked: both only look.
        """
        if shown.bearer and (role := self.role_of_token(shown.bearer)):
            return role
        if shown.in_address and self.role_of_token(shown.in_address):
            return "view"
        return "view" if shown.cookie and self._is_cookie(shown.cookie) else None

    def role_of_token(self, token: str) -> Role | None:
        """What this token allows where it is shown in a header."""
        found: Role | None = None
        for role, known in self._tokens():
            if hmac.compare_digest(token.encode(), known.encode()):
                found = found or role
        return found

    def _is_cookie(self, cookie: str) -> bool:
        fits = [hmac.compare_digest(cookie.encode(), cookie_of(known).encode()) for _, known in self._tokens()]
        return any(fits)

    def _tokens(self) -> list[tuple[Role, str]]:
        pairs: list[tuple[Role, str | None]] = [("operate", self.operate), ("view", self.view)]
        return [(role, token) for role, token in pairs if token]


def session_in(cookie: str, *, is_secure: bool) -> str:
    """The cookie of a session in the header of cookies, empty without one."""
    found = _SESSIONS[is_secure].search(cookie[:MAX_COOKIE_CHARS])
    return found[1] if found else ""


def cookie_of(token: str) -> str:
    """A hash of the token: the token itself is stored nowhere."""
    return hmac.new(token.encode(), b"edgeloop page", hashlib.sha256).hexdigest()


@dataclass(slots=True)
class GuessLimit:
    """Counts wrong tokens and cookies, by network and of all networks together. Used in one thread.

    It never decides about a right token, so nobody can lock out its owner: that it cannot be guessed is due to its
    length. Wrong ones beyond the limit are told nothing but to wait.
    """

    clock_s: Callable[[], float] = time.monotonic
    # times of the newest failures, as many as are allowed
    _failures: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)
    _of_all: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_FAILURES_OF_ALL))

    def note(self, address: str) -> float:
        """A wrong one came from here; how long it should wait before another, 0 while it may guess on."""
        network = network_of(address)
        failures = self._failures.setdefault(network, deque(maxlen=MAX_FAILURES))
        self._failures.move_to_end(network)
        if len(self._failures) > MAX_NETWORKS:
            self._failures.popitem(last=False)
        wait_s = max(self._wait_s(failures), self._wait_s(self._of_all))
        if not wait_s:
            failures.append(self.clock_s())
            self._of_all.append(self.clock_s())
        return wait_s

    def forgive(self, address: str) -> None:
        """What was noted last from here was not wrong after all."""
        if failures := self._failures.get(network_of(address)):
            failures.pop()
        if self._of_all:
            self._of_all.pop()

    def _wait_s(self, times: deque[float]) -> float:
        return max(0.0, times[0] + FAILURE_WINDOW_S - self.clock_s()) if len(times) == times.maxlen else 0.0
