"""Who is logged in. A session is known by the SHA-256 of its cookie: the cookie itself is kept nowhere."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

MAX_SESSIONS = 256
MAX_OF_USER = 32
ID_DIGITS = 16


@dataclass(slots=True)
class Session:
    """One login.

    Attributes:
        key: SHA-256 of its cookie in hexadecimal.
        generation: of the user when it began.
        address: that it began from.
        begun: seconds since 1970, for people.
        begun_s, used_s: by the monotonic clock.
    """

    key: str
    user: str
    generation: str
    address: str
    begun: float
    begun_s: float
    used_s: float

    @property
    def id(self) -> str:
        """What it is called by."""
        return self.key[:ID_DIGITS]


class Sessions:
    """Lives in one thread.

    Args:
        idle_s, max_s: a session ends after so long without a request, and after so long at any rate.
        on_end: told of the key of every session that has ended.
    """

    def __init__(
        self,
        idle_s: float,
        max_s: float,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        on_end: Callable[[str], None] = lambda key: None,
    ) -> None:
        self._idle_s, self._max_s = idle_s, max_s
        self._clock_s = clock_s
        self.on_end = on_end
        # oldest first
        self._sessions: dict[str, Session] = {}

    def begin(self, key: str, user: str, generation: str, address: str) -> Session:
        """Somebody has logged in; where there are too many sessions, of the user or of all, the oldest ends."""
        of_user = [one for one in self._sessions.values() if one.user == user]
        crowd = of_user if len(of_user) >= MAX_OF_USER else list(self._sessions.values())
        if len(of_user) >= MAX_OF_USER or len(self._sessions) >= MAX_SESSIONS:
            self.end(min(crowd, key=lambda one: one.used_s).key)
        now_s = self._clock_s()
        session = self._sessions[key] = Session(key, user, generation, address, time.time(), now_s, now_s)
        return session

    def get(self, key: str, *, is_used: bool = True) -> Session | None:
        """The session of a key, if it is not over; ``is_used`` begins its idle time again."""
        session = self._sessions.get(key)
        if session is None:
            return None
        now_s = self._clock_s()
        if now_s - session.used_s > self._idle_s or now_s - session.begun_s > self._max_s:
            self.end(key)
            return None
        if is_used:
            session.used_s = now_s
        return session

    def end(self, key: str) -> None:
        """It is over; one that is not there is left as it is."""
        if self._sessions.pop(key, None) is not None:
            self.on_end(key)

    def all(self) -> list[Session]:
        """Those that are not over, oldest first."""
        return [one for key in list(self._sessions) if (one := self.get(key, is_used=False)) is not None]

    def idle_s(self, session: Session) -> float:
        """How long ago it was used."""
        return self._clock_s() - session.used_s


def key_of(cookie: str) -> str:
    """The key of the session that has this cookie."""
    return hashlib.sha256(cookie.encode()).hexdigest()
