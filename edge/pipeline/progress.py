"""What each stage of the pipeline has done and whether work waits for it, for the watchdog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.config.schema import StreamSettings
    from edge.pipeline.stream import Stream

# capture has deadlines of its own; beyond these and this grace its thread hangs
CAPTURE_GRACE_S = 5.0


# cameras of one host wait for each other before they connect
CONNECTING_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Progress:
    """What a stage has done so far, whether work waits for it now, and how long one piece of work may take."""

    done: int
    has_work: bool
    limit_s: float = 0.0


def progress_of(streams: Mapping[str, Stream], num_taken: int, waiting: Mapping[str, int]) -> dict[str, Progress]:
    """The progress of every stage of a running pipeline.

    Args:
        streams: its streams.
        num_taken: frames that inference has taken so far.
        waiting: stream → frames that wait for inference.
    """
    return dict(_stages(streams, num_taken, waiting))


def _stages(
    streams: Mapping[str, Stream], num_taken: int, waiting: Mapping[str, int]
) -> Iterator[tuple[str, Progress]]:
    # a stream whose output is full waits for that output, and is no work for inference
    has_frames = any(waiting.get(name, 0) > 0 and stream.has_room for name, stream in streams.items())
    yield "inference", Progress(num_taken, has_frames)
    for name, stream in streams.items():
        yield f"output of {name}", Progress(stream.results.num_taken, len(stream.results) > 0)
        yield f"capture of {name}", _capture_progress(stream)


def _capture_progress(stream: Stream) -> Progress:
    """Capture hangs when it does not even notice that its camera does: every state has a deadline of its own."""
    config, counts = stream.config, stream.metrics.counters.snapshot()
    # the state counts as progress: a camera that comes and goes is watched by its back-off
    done = hash((stream.status.state, counts.get("captured", 0), counts.get("reconnects", 0)))
    if stream.status.state == "connecting":
        return Progress(done, True, CONNECTING_ROUNDS * config.open_timeout_s + CAPTURE_GRACE_S)
    if stream.status.state in ("streaming", "frozen") and not config.is_lossless:
        return Progress(done, True, 2 * config.stall_timeout_s + _held_back_s(config) + CAPTURE_GRACE_S)
    return Progress(done, False)


def _held_back_s(config: StreamSettings) -> float:
    """How long a camera that is well may give nothing, because what it gives is held back as configured."""
    pace_s = 1 / config.max_fps if config.max_fps is not None else 0.0
    # the gate looks only at what the pace lets through, so its wait comes on top
    return pace_s + (1 / config.motion_gate.floor_fps if config.motion_gate.enabled else 0.0)
