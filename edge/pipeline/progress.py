"""What each stage of the pipeline has done and whether work waits for it, for the watchdog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edge.config.schema import StreamConfig
from edge.pipeline.stream import Lane

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
