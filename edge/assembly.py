"""How the parts of one stream are made from its configuration: lane, tracker, analytics and sinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.capture.health import HealthSettings
from edge.capture.motion_gate import GateSettings
from edge.capture.picture import PictureSettings
from edge.config import Config, ModelConfig, StreamConfig
from edge.crop_models import CropModels
from edge.errors import ConfigError, EdgeError
from edge.follower import Follower
from edge.interfaces import Sink, Tracker
from edge.lane import Lane
from edge.manifest import Manifest
from edge.memory_plan import LARGEST_PX, child_limit_mb
from edge.outlets import close_sink
from edge.sinks.choose import open_sink
from edge.sources.isolated import Deadlines
from edge.sources.prepared import Preparation
from edge.trackers.camera_motion import CameraMotion
from edge.trackers.choose import open_tracker
from edge.trackers.settings import TrackerSettings

if TYPE_CHECKING:
    from edge.server.live import LiveBoard


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
