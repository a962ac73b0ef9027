"""Who may do what with the API: roles by token, and a limit on guessing."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["view", "operate"]
MAX_FAILURES = 10
FAILURE_WINDOW_S = 60.0
# addresses that are remembered; an attacker with more of them costs no more memory
MAX_ADDRESSES = 1024


@dataclass(frozen=True, slots=True)
class Access:
    """The tokens of the API.

    Attributes:
        operate: who has it may do everything; None: everybody who reaches the port may look.
        view: who has it may look; None: there is no such token.
    """

    operate: str | None = None
    view: str | None = None

    def role_of(self, token: str) -> Role | None:
        """What this token allows; every comparison takes the same time."""
        found: Role | None = None
        for role, known in self._tokens():
            if hmac.compare_digest(token.encode(), known.encode()):
                found = found or role
        return found

    def role_of_cookie(self, cookie: str) -> Role | None:
        """What the page's cookie allows: looking, whatever token it came from, as browsers send it unasked."""
        fits = [hmac.compare_digest(cookie.encode(), cookie_of(known).encode()) for _, known in self._tokens()]
        return "view" if any(fits) else None

    def _tokens(self) -> list[tuple[Role, str]]:
        pairs: list[tuple[Role, str | None]] = [("operate", self.operate), ("view", self.view)]
        return [(role, token) for role, token in pairs if token]


def cookie_of(token: str) -> str:
    """A hash of the token: the token itself is stored nowhere."""
    return hmac.new(token.encode(), b"edgeloop page", hashlib.sha256).hexdigest()


@dataclass(slots=True)
class FailureLimit:
    """Slows down who guesses tokens. Used in the event loop."""

    clock_s: Callable[[], float] = time.monotonic
    _failures: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    def wait_s(self, address: str) -> float:
        """How long this address must wait before another guess, 0 if it may try."""
        times = self._recent(address)
        return max(0.0, times[0] + FAILURE_WINDOW_S - self.clock_s()) if len(times) >= MAX_FAILURES else 0.0

    def note(self, address: str) -> None:
        """A wrong token came from here."""
        times = [*self._recent(address), self.clock_s()][-MAX_FAILURES:]
        self._failures[address] = times
        self._failures.move_to_end(address)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        now_s = self.clock_s()
        return [time_s for time_s in self._failures.get(address, ()) if now_s - time_s < FAILURE_WINDOW_S]
