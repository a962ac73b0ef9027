"""When to try again: exponential back-off with jitter and a cap, and a limit of attempts at one host at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Backoff:
    """Delays between attempts: uniform between the base and an exponentially growing limit (AWS's "full jitter")."""

    def __init__(self, *, base_s: float = 0.5, cap_s: float = 30.0, seed: int | None = None) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._random = random.Random(seed)
        self.attempts = 0

    def next_delay_s(self) -> float:
        """Seconds to wait before the next attempt: never less than the base, never more than the cap."""
        limit = min(self._cap_s, self._base_s * 2.0 ** min(self.attempts, 32))
        self.attempts += 1
        return self._random.uniform(self._base_s, max(self._base_s, limit))

    def reset(self) -> None:
        """The last attempt lasted: start again with short delays."""
        self.attempts = 0


class HostGate:
    """Lets only a few attempts at one host happen at once: sixteen channels of one recorder do not storm it."""

    def __init__(self, max_per_host: int = 2) -> None:
        self._max_per_host = max_per_host
        self._changed = threading.Condition()
        self._trying: dict[str, int] = {}

    @contextmanager
    def attempt(self, host: str, is_stopping: Callable[[], bool]) -> Iterator[bool]:
        """Wait for a turn; gives whether it came (False: stopping). An empty host is never limited."""
        with self._changed:
            while host and self._trying.get(host, 0) >= self._max_per_host and not is_stopping():
                self._changed.wait(0.1)
            has_turn = not is_stopping()
            self._trying[host] = self._trying.get(host, 0) + 1
        try:
            yield has_turn
        finally:
            with self._changed:
                self._trying[host] -= 1
                if not self._trying[host]:
                    del self._trying[host]
                self._changed.notify_all()
