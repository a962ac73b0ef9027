"""Whether every stage makes progress: the watchdog is fed by work that is done, not by a timer.

A stage that has nothing to do is well: a camera that is offline keeps nobody from feeding. A stage that has work and
does none is stuck, and the feed stops until it goes on; systemd then ends the process and starts a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from edge.config import StreamConfig
from edge.lane import Lane

# a stuck stage is named in the log and in /readyz after this time
TELL_AFTER_S = 5.0
# capture has deadlines of its own; beyond these and this grace its thread hangs
CAPTURE_GRACE_S = 5.0
# cameras of one host wait for each other before they connect
CONNECTING_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Mark:
    """What a stage has done so far, whether work waits for it now, and how long one piece of work may take."""

    done: int
    has_work: bool
    limit_s: float = 0.0


@dataclass(slots=True)
class _Seen:
    done: int
    well_s: float


class Watchdog:
    """Looks at the marks of all stages. Used by one thread."""

    def __init__(self, marks: Callable[[], Mapping[str, Mark]], clock_s: Callable[[], float] = time.monotonic) -> None:
        """Args: stage → what it has done; the clock."""
        self._marks = marks
        self._clock_s = clock_s
        self._seen: dict[str, _Seen] = {}
        self._fed_s = clock_s()

    def may_feed(self) -> bool:
        """Whether every stage has done something, or had nothing to do, since this was last true."""
        now_s = self._clock_s()
        marks = self._marks()
        self._seen = {name: seen for name, seen in self._seen.items() if name in marks}
        for name, mark in marks.items():
            seen = self._seen.setdefault(name, _Seen(mark.done, now_s))
            if mark.done != seen.done or not mark.has_work:
                seen.done, seen.well_s = mark.done, now_s
        is_well = all(
            seen.well_s > self._fed_s or now_s - seen.well_s <= marks[name].limit_s for name, seen in self._seen.items()
        )
        if is_well:
            self._fed_s = now_s
        return is_well

    def stuck(self) -> str | None:
        """The stage that has made no progress for longest, as a sentence; None while all is well."""
        marks = self._marks()
        now_s = self._clock_s()
        idle = {
            name: now_s - seen.well_s
            for name, seen in self._seen.items()
            if name in marks and now_s - seen.well_s > max(TELL_AFTER_S, marks[name].limit_s)
        }
        if not idle:
            return None
        name = max(idle, key=lambda stage: idle[stage])
        return f"{name} has made no progress for {idle[name]:.0f} s"


def marks_of(lanes: Mapping[str, Lane], num_taken: int, waiting: Mapping[str, int]) -> dict[str, Mark]:
    """The marks of a running pipeline.

    Args:
        lanes: its streams.
        num_taken: frames that inference has taken so far.
        waiting: stream → frames that wait for inference.
    """
    return dict(_marks(lanes, num_taken, waiting))


def _marks(lanes: Mapping[str, Lane], num_taken: int, waiting: Mapping[str, int]) -> Iterator[tuple[str, Mark]]:
    # a stream whose output is full waits for that output, and is no work for inference
    has_frames = any(waiting.get(name, 0) > 0 and lane.has_room for name, lane in lanes.items())
    yield "inference", Mark(num_taken, has_frames)
    for name, lane in lanes.items():
        yield f"output of {name}", Mark(lane.results.num_taken, len(lane.results) > 0)
        yield f"capture of {name}", _capture_mark(lane)


def _capture_mark(lane: Lane) -> Mark:
    """Capture hangs when it does not even notice that its camera does: every state has a deadline of its own."""
    config, counts = lane.config, lane.counters.snapshot()
    # the state counts as progress: a camera that comes and goes is watched by its back-off
    done = hash((lane.state, counts.get("captured", 0), counts.get("reconnects", 0)))
    if lane.state == "connecting":
        return Mark(done, True, CONNECTING_ROUNDS * config.open_timeout_s + CAPTURE_GRACE_S)
    if lane.state in ("streaming", "frozen") and not config.is_lossless:
        return Mark(done, True, 2 * config.stall_timeout_s + _held_back_s(config) + CAPTURE_GRACE_S)
    return Mark(done, False)


def _held_back_s(config: StreamConfig) -> float:
    """How long a camera that is well may give nothing, because what it gives is held back as configured."""
    pace_s = 1 / config.max_fps if config.max_fps is not None else 0.0
    # the gate looks only at what the pace lets through, so its wait comes on top
    return pace_s + (1 / config.motion_gate.floor_fps if config.motion_gate.enabled else 0.0)
