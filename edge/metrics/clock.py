"""The time of day at a moment of the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable

NS_PER_S = 1_000_000_000


class WallClock:
    """Says when something happened in UTC, given ``time.monotonic_ns()``.

    The offset between the two clocks is measured once, so times of one run never jump when the wall clock is set.

    Args:
        offset_ns: wall clock minus monotonic clock; None measures it now.
        now_ns: the monotonic clock.
    """

    def __init__(self, offset_ns: int | None = None, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.now_ns = now_ns
        self.offset_ns = time.time_ns() - now_ns() if offset_ns is None else offset_ns
        self._second = -1
        self._date = ""

    def iso(self, monotonic_ns: int) -> str:
        """``2026-11-22T10:00:00.123Z``: UTC with milliseconds, cut, not rounded."""
        second, rest_ns = divmod(monotonic_ns + self.offset_ns, NS_PER_S)
        if second != self._second:
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._date}.{rest_ns // 1_000_000:03d}Z"
