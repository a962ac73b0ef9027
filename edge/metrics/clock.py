"""The time of day at a moment of the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable

NS_PER_S = 1_000_000_000
STEP_NS = 100_000_000


def measured_offset_ns() -> int:
    """Wall clock minus monotonic clock, as they are now."""
    return time.time_ns() - time.monotonic_ns()


class WallClock:
    """Says when something happened in UTC, given ``time.monotonic_ns()``.

    The offset between the two clocks is measured again every second, and taken over where the wall clock was set: a
    device without a battery clock boots in 1970. What is less than ``STEP_NS`` is the measurement, so times never
    tremble; NTP's slow corrections move both clocks.

    Args:
        offset_ns: wall clock minus monotonic clock, for good; None measures it.
        now_ns: the monotonic clock.
        measure_ns: how it is measured.
    """

    def __init__(
        self,
        offset_ns: int | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
        measure_ns: Callable[[], int] = measured_offset_ns,
    ) -> None:
        self.now_ns = now_ns
        self._measure_ns = measure_ns
        self._offset_ns = measure_ns() if offset_ns is None else offset_ns
        # never, where the offset is given
        self._measure_at_ns = now_ns() + NS_PER_S if offset_ns is None else None
        self._second = -1
        self._date = ""

    @property
    def offset_ns(self) -> int:
        """Wall clock minus monotonic clock."""
        if self._measure_at_ns is not None and self.now_ns() >= self._measure_at_ns:
            self._measure_at_ns = self.now_ns() + NS_PER_S
            found_ns = self._measure_ns()
            if abs(found_ns - self._offset_ns) > STEP_NS:
                self._offset_ns = found_ns
        return self._offset_ns

    @offset_ns.setter
    def offset_ns(self, offset_ns: int) -> None:
        self._offset_ns = offset_ns

    def iso(self, monotonic_ns: int) -> str:
        """``2026-11-22T10:00:00.123Z``: UTC with milliseconds, cut, not rounded."""
        second, rest_ns = divmod(monotonic_ns + self.offset_ns, NS_PER_S)
        if second != self._second:
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._date}.{rest_ns // 1_000_000:03d}Z"
