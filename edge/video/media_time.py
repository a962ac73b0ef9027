"""When each picture of a file is shown, in nanoseconds since its first one."""

from __future__ import annotations

from fractions import Fraction

NS_PER_S = 1_000_000_000
# of a file that does not state its own
DEFAULT_FPS = 25.0


class MediaTime:
    """Takes the pictures of one file in order; where their time stands still or jumps back, adds one period."""

    def __init__(self, fps: float) -> None:
        """Args: pictures per second, 0 where unknown."""
        self._period_ns = round(NS_PER_S / (fps or DEFAULT_FPS))
        self._first_ns: int | None = None
        self._last_ns = -1

    def next_ns(self, pts: int | None, time_base: Fraction | None) -> int:
        """The time of the next picture, larger than that of the last one.

        Args:
            pts: its presentation time in ticks, None where the file does not say.
            time_base: seconds per tick.
        """
        stated = self._last_ns
        if pts is not None and time_base is not None:
            stated = round(pts * time_base * NS_PER_S)
            if self._first_ns is None:
                self._first_ns = stated
            stated -= self._first_ns
        if stated <= self._last_ns:
            stated = self._last_ns + self._period_ns if self._last_ns >= 0 else 0
        self._last_ns = stated
        return stated
