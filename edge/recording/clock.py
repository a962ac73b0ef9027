"""The wall clock next to the monotonic one: it names files, and ages go by it only while nobody has set it lately."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edge.metrics.clock import WallClock, measured_offset_ns

log = logging.getLogger(__name__)
NS_PER_S = 1_000_000_000
# smaller steps make no file old that was not nearly so
STEP_NS = 300 * NS_PER_S
# a device without a clock of its own hears from NTP much sooner
STEADY_NS = 3600 * NS_PER_S


class RecordingClock:
    """What one folder knows of time; its start counts as a step, because the clock may have been wrong until then.

    Args:
        offset_ns: gives wall clock minus monotonic clock now; any thread may ask.
        now_ns: the monotonic clock.
    """

    def __init__(
        self, offset_ns: Callable[[], int] = measured_offset_ns, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.offset_ns = offset_ns
        self.now_ns = now_ns
        self._known_offset_ns = offset_ns()
        self._steady_since_ns = now_ns()

    @classmethod
    def of(cls, clock: WallClock | None) -> RecordingClock:
        """One that goes by this clock, or by those of the device."""
        return cls() if clock is None else cls(lambda: clock.offset_ns, clock.now_ns)

    def is_steady(self) -> bool:
        """Whether no call within the last hour has seen the wall clock step."""
        now_ns, offset_ns = self.now_ns(), self.offset_ns()
        step_ns = offset_ns - self._known_offset_ns
        if abs(step_ns) > STEP_NS:
            log.warning("record: the wall clock was set by %+d s; nothing goes by age for an hour", step_ns // NS_PER_S)
            self._known_offset_ns, self._steady_since_ns = offset_ns, now_ns
        return now_ns - self._steady_since_ns >= STEADY_NS
