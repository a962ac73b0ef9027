"""How the parts of one stream are made from its configuration: lane, tracker, analytics and sinks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.addresses.uris import is_live
from edge.config.schema import Config, ModelConfig, StreamConfig
from edge.errors import ConfigError, EdgeError
from edge.interfaces import Sink, Tracker
from edge.models.manifest import Manifest
from edge.overlay.overlay import Overlay, Theme
from edge.pipeline.analysis import Follower
from edge.pipeline.capture import CaptureWorker
from edge.pipeline.latest_frames import LatestFrames, Slot
from edge.pipeline.memory_plan import LARGEST_PX, child_limit_mb
from edge.pipeline.output import OutputWorker
from edge.pipeline.shared_outputs import Outlets, close_sink
from edge.pipeline.stream import Lane
from edge.second_stage.models import CropModels
from edge.sinks.choose import open_sink
from edge.sources.deadlines import Deadlines
from edge.sources.health import HealthSettings
from edge.sources.motion_gate import GateSettings
from edge.sources.picture import PictureSettings
from edge.sources.prepared import Preparation
from edge.threads.backoff import HostGate
from edge.threads.worker import Worker
from edge.trackers.camera_motion import CameraMotion
from edge.trackers.choose import open_tracker
from edge.trackers.settings import TrackerSettings

if TYPE_CHECKING:
    from edge.server.board import LiveBoard


def make_lane(
    stream: StreamConfig, model: ModelConfig, manifest: Manifest, state_dir: Path | None, crops: CropModels
) -> Lane:
    """The lane of a stream. ``crops`` are the models that look at its objects.

    Raises:
        ConfigError: the model makes nothing that could be shown, or a model for its objects is missing.
    """
    if manifest.task == "embed":
        raise ConfigError(
            f"stream {stream.name!r}: {model.path.name} makes embeddings, which show nothing by themselves; "
            "expected a detector, segmenter or classifier"
        )
    if stream.tiles is not None and manifest.task != "detect":
        raise ConfigError(
            f"stream {stream.name!r}: tiles are for detectors; {model.path.name} is made to {manifest.task}"
        )
    follower = Follower(
        stream.name,
        manifest.classes,
        tracker=_tracker(stream, manifest),
        settings=stream.analytics,
        camera=CameraMotion() if stream.track.camera_motion == "pictures" else None,
        embedder=crops.embedder_of(stream),
        second_stage=crops.view_of(stream, manifest.classes),
        state_file=None if state_dir is None else state_dir / f"{stream.name}.analytics.json",
    )
    return Lane(stream, model.name, manifest, follower)


def preparation_of(stream: StreamConfig, config: Config) -> Preparation:
    """What is done to the pictures of a stream before its first queue."""
    picture = PictureSettings(
        max_fps=stream.max_fps,
        masks=stream.masks,
        roi=stream.roi,
        rotate=stream.rotate,
        size=stream.size,
        # the memory plan counts on it
        limit=None if config.memory_budget_mb is None else LARGEST_PX,
    )
    return Preparation(
        picture, GateSettings(**stream.motion_gate.model_dump()), HealthSettings(**stream.health.model_dump())
    )


def deadlines_of(stream: StreamConfig, config: Config) -> Deadlines:
    """When a capture child is given up: silent for too long, or grown beyond the memory plan."""
    deadlines = Deadlines(stream.open_timeout_s, stream.stall_timeout_s)
    return deadlines if config.memory_budget_mb is None else replace(deadlines, memory_mb=child_limit_mb(stream))


def open_sinks(lane: Lane, board: LiveBoard | None) -> Sequence[Sink]:
    """The sinks that the stream's configuration names, and the live page where there is one.

    Raises:
        EdgeError: one of them cannot be written; none is open then.
    """
    fps = lane.info.fps if lane.info else 0.0
    score = score_of(lane.config, lane.manifest)
    sinks: list[Sink] = []
    try:
        for spec in lane.config.sinks:
            sinks.append(open_sink(spec, stream=lane.name, classes=lane.manifest.classes, fps=fps, score=score))
    except EdgeError:
        for sink in sinks:
            close_sink(sink)
        raise
    if board is not None:
        from edge.sinks.live import LiveSink

        sinks.append(LiveSink(board, lane.name, lane.manifest.classes, score=score))
    return sinks


def score_of(stream: StreamConfig, manifest: Manifest) -> float:
    """The least score of an object that is shown: the stream's, else the model's."""
    return manifest.thresholds.score if stream.score is None else stream.score


def tracker_settings(score: float, manifest: Manifest) -> TrackerSettings:
    """Settings whose idea of a good detection is the model's, not that of the data sets they were tuned on."""
    return replace(
        TrackerSettings(),
        score_low=min(manifest.thresholds.track_score, score),
        score_high=score,
        score_new=min(score + 0.1, 0.95),
    )


def _tracker(stream: StreamConfig, manifest: Manifest) -> Tracker | None:
    if stream.track.method == "off" or manifest.task != "detect":
        return None
    # the published algorithms have thresholds of their own
    ours = tracker_settings(score_of(stream, manifest), manifest) if stream.track.method == "edge" else None
    return open_tracker(stream.track.method, ours)


OPEN_TIMEOUT_S = 30.0
# for what only has to notice that it is to end
LATE_S = 1.0


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture thread, and the place where its frames wait for inference."""

    slot: Slot
    worker: Worker


def start_capture(
    lane: Lane, config: Config, latest: LatestFrames, gate: HostGate, is_alone: Callable[[], bool]
) -> Capture:
    """Begin to open the source of a stream, see ``edge.pipeline.capture.CaptureWorker``."""
    slot = latest.add(
        lane.name,
        group=lane.model,
        is_lossless=lane.config.is_lossless,
        on_drop=lambda _: lane.counters.add("drop_replaced"),
        has_room=lambda: lane.has_room,
        capacity=2 if lane.config.is_lossless else 1,
        weight=lane.config.priority,
    )
    how, deadlines = preparation_of(lane.config, config), deadlines_of(lane.config, config)
    worker = Worker(f"capture {lane.name}", CaptureWorker(lane, latest, slot, gate, how, deadlines, is_alone).run)
    worker.start()
    return Capture(slot, worker)


def wait_for_file(lane: Lane, capture: Capture) -> None:
    """Wait until a file is open; a camera is waited for while the others run.

    Raises:
        EdgeError: it cannot be opened.
    """
    if is_live(lane.config.source):
        return
    lane.opened.wait(OPEN_TIMEOUT_S)
    failure = capture.worker.failure
    if isinstance(failure, EdgeError) or lane.state == "failed":
        capture.worker.join(1.0)
        raise failure if isinstance(failure, EdgeError) else EdgeError(lane.state_reason)


def open_output(lane: Lane, board: LiveBoard | None, outlets: Outlets, on_room: Callable[[], None]) -> Worker:
    """The output thread of a stream with its open sinks; not started.

    Raises:
        EdgeError: a sink cannot be opened; none is open then.
    """
    overlay = Overlay(lane.manifest.classes, Theme(score=score_of(lane.config, lane.manifest)))
    with ExitStack() as undo:
        sinks = list(open_sinks(lane, board))
        for sink in sinks:
            undo.callback(close_sink, sink)
        sinks += outlets.sinks(lane)
        undo.pop_all()
    output = OutputWorker(lane, sinks, overlay, on_room, lambda result: outlets.lost(lane, result))
    return Worker(f"output {lane.name}", output.run)


def give_up(output: Worker) -> None:
    """Close the sinks of an output that was never started; it does so itself, and waits for no result."""
    output.stop()
    output.start()
    output.join(LATE_S)


def drain(
    latest: LatestFrames, captures: Sequence[Capture], outputs: Sequence[Worker], inference: Worker, deadline_s: float
) -> bool:
    """End capture and let what is under way come out.

    Args:
        latest: where frames wait.
        captures, outputs, inference: the threads of the line.
        deadline_s: by ``time.monotonic()``; what has not ended by then is told to, and has ``LATE_S`` for it.

    Returns:
        Whether every thread has ended.
    """
    for capture in captures:
        capture.worker.stop()
        latest.end(capture.slot)
    if not captures:
        inference.stop()
    workers = (*(capture.worker for capture in captures), inference, *outputs)
    _join(workers, deadline_s)
    latest.stop()
    inference.stop()
    _join([inference], time.monotonic() + LATE_S)
    for output in outputs:
        output.stop()
    _join(outputs, time.monotonic() + LATE_S)
    return not any(worker.is_alive for worker in workers)


def _join(workers: Sequence[Worker], deadline_s: float) -> None:
    for worker in workers:
        worker.join(max(0.0, deadline_s - time.monotonic()))
