"""When to try again: exponential back-off with full jitter and a cap, for instant failures as well."""

from __future__ import annotations

import random


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
