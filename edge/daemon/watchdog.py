"""Whether every stage makes progress: the watchdog is fed by work that is done, not by a timer.

A stage that has nothing to do is well: a camera that is offline keeps nobody from feeding. A stage that has work and
does none is stuck, and the feed stops until it goes on; systemd then ends the process and starts a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.pipeline.progress import Progress

# a stuck stage is named in the log and in /readyz after this time
TELL_AFTER_S = 5.0


@dataclass(slots=True)
class _Seen:
    done: int
    well_s: float


class Watchdog:
    """Looks at the progress of all stages. Used by one thread."""

    def __init__(
        self, stages: Callable[[], Mapping[str, Progress]], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: stage → what it has done; the clock."""
        self._progress = stages
        self._clock_s = clock_s
        self._seen: dict[str, _Seen] = {}
        self._fed_s = clock_s()

    def may_feed(self) -> bool:
        """Whether every stage has done something, or had nothing to do, since this was last true."""
        now_s = self._clock_s()
        stages = self._progress()
        self._seen = {name: seen for name, seen in self._seen.items() if name in stages}
        for name, stage in stages.items():
            seen = self._seen.setdefault(name, _Seen(stage.done, now_s))
            if stage.done != seen.done or not stage.has_work:
                seen.done, seen.well_s = stage.done, now_s
        is_well = all(
            seen.well_s > self._fed_s or now_s - seen.well_s <= stages[name].limit_s
            for name, seen in self._seen.items()
        )
        if is_well:
            self._fed_s = now_s
        return is_well

    def stuck(self) -> str | None:
        """The stage that has made no progress for longest, as a sentence; None while all is well."""
        stages = self._progress()
        now_s = self._clock_s()
        idle = {
            name: now_s - seen.well_s
            for name, seen in self._seen.items()
            if name in stages and now_s - seen.well_s > max(TELL_AFTER_S, stages[name].limit_s)
        }
        if not idle:
            return None
        name = max(idle, key=lambda stage: idle[stage])
        return f"{name} has made no progress for {idle[name]:.0f} s"
