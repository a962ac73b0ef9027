"""How a stream is made from its configuration and opened: analysis, capture, sinks and output."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from edge.addresses.uris import is_live
from edge.analytics.schedule import utc
from edge.config.picture import HealthSettings, MotionGateSettings
from edge.errors import ConfigError, EdgeError
from edge.models.keypoints import limbs_of
from edge.overlay import Overlay, Theme
from edge.pipeline.analysis import StreamAnalysis
from edge.pipeline.capture import CaptureWorker
from edge.pipeline.guarded import GuardedSink, GuardedTracker, close_all, open_stages
from edge.pipeline.memory_plan import LARGEST_PX, child_limit_mb
from edge.pipeline.output import OutputWorker
from edge.pipeline.shared_outputs import close_sink
from edge.pipeline.stream import Stream, StreamThreads
from edge.sinks.choose import is_plugin as is_plugin_sink
from edge.sinks.choose import open_sink, passes_sound
from edge.sinks.late import open_now_or_later
from edge.sources.deadlines import Deadlines
from edge.sources.health import HealthLimits
from edge.sources.motion_gate import GateLimits
from edge.sources.picture import PictureSettings
from edge.sources.prepared import Preparation
from edge.threads.backoff import HostGate
from edge.threads.guard import PART_LIMIT_S
from edge.threads.worker import LATE_S, Worker
from edge.trackers.camera_motion import CameraMotion
from edge.trackers.choose import is_plugin as is_plugin_tracker
from edge.trackers.choose import open_tracker
from edge.trackers.settings import TrackerSettings

if TYPE_CHECKING:
    from pathlib import Path

    from edge.config.schema import Config, ModelSettings, StreamSettings
    from edge.interfaces import Sink, SwitchPart, Tracker
    from edge.models.manifest import Manifest
    from edge.pipeline.latest_frames import LatestFrames, StreamSlot
    from edge.pipeline.live_source import LiveSource
    from edge.pipeline.shared_outputs import SharedOutputs
    from edge.second_stage.models import CropModels
    from edge.server.board import LiveBoard
    from edge.types import Frame, Result

OPEN_TIMEOUT_S = 30.0
# the picture that is analysed tells how the camera is
OFF = HealthSettings(frozen_s=0, hold_s=0)
# frames of which the watch log has taken no note yet: minutes, should its disk hang
MAX_ANALYSED = 16_384


@dataclass(frozen=True, slots=True)
class Shared:
    """What the streams of a pipeline share; makes and opens them.

    Attributes:
        config: of the whole; its streams are not looked at.
        latest: where frames wait for inference.
        outputs: events and recordings.
        crops: the models that look at objects.
        board: the live page's, None where there is none. It must know a stream before that is opened.
        is_alone: whether no other stream runs, so that there is nothing to go on with when the machine lacks what this
            one needs.
        on_result: told of every result that comes out, in the output thread of its stream.
        appends: whether files of lines were begun by another process, and go on here.
        off: gives what is switched off of a stream now.
        gate: limits attempts per host.
    """

    config: Config
    latest: LatestFrames[Frame]
    outputs: SharedOutputs
    crops: CropModels
    board: LiveBoard | None
    is_alone: Callable[[], bool]
    on_result: Callable[[Result], object] | None = None
    appends: bool = False
    off: Callable[[str], frozenset[SwitchPart]] = lambda _: frozenset()
    gate: HostGate = field(default_factory=HostGate)

    def make(self, stream: StreamSettings, model: ModelSettings, manifest: Manifest) -> Stream:
        """A stream that is not open yet.

        Raises:
            ConfigError: the model makes nothing that could be shown, or a model for its objects is missing.
        """
        folder = self.config.state_dir
        state_file = None if folder is None else folder / f"{stream.name}.analytics.json"
        analysis = analysis_of(stream, model, manifest, self.crops, state_file)
        on_event = self.outputs.report_event
        made = Stream(
            stream,
            model.name,
            manifest,
            analysis,
            on_event=on_event,
            on_lost=self.outputs.report_lost,
            is_served=self.config.rtsp.enabled,
            off=partial(self.off, stream.name),
            is_heard=self.board is not None or any(map(passes_sound, stream.sinks)),
        )
        log = analysis.log = analysis.rounding = self.outputs.log_of(made)
        if log is not None:
            # what is stored tells this time too: rules that are evaluated later see the same
            analysis.clock = lambda _: utc(analysis.captured_ns + log.offset_ns)
        made.note_guards([analysis.tracker])
        if self.config.watch_log is not None:
            made.analysed = deque(maxlen=MAX_ANALYSED)
        return made

    def open(self, stream: Stream) -> None:
        """Open the source and the sinks of a stream, and begin. A file must open; a camera is waited for meanwhile.

        Raises:
            EdgeError: a file that is no video, a sink that cannot be written; nothing is open then.
        """
        if self.board is not None:
            self.board.set_sound(stream.name, stream.sound)
        slot = self.latest.add(
            stream.name,
            group=stream.model,
            is_lossless=stream.config.is_lossless,
            on_drop=lambda _: stream.metrics.counters.add("drop_replaced"),
            has_room=lambda: stream.has_room,
            capacity=2 if stream.config.is_lossless else 1,
            weight=stream.config.priority,
        )
        how, deadlines = preparation_of(stream.config, self.config), deadlines_of(stream.config, self.config)
        capture = CaptureWorker(stream, self.latest, slot, self.gate, how, deadlines, self.is_alone)
        capturing = Worker(f"capture {stream.name}", capture.run)
        with ExitStack() as undo:
            undo.callback(_give_up, self.latest, slot, capturing)
            capturing.start()
            _wait_for_file(stream, capturing)
            output = Worker(f"output {stream.name}", _output(stream, self).run)
            undo.pop_all()
        others = _second_sources(stream, self.gate, deadlines_of(stream.config, self.config))
        stream.run(StreamThreads(self.latest, slot, capturing, output, others))
        output.start()
        for other in others:
            other.start()


def analysis_of(
    stream: StreamSettings,
    model: ModelSettings,
    manifest: Manifest,
    crops: CropModels,
    state_file: Path | None = None,
    limit_s: float = PART_LIMIT_S,
) -> StreamAnalysis:
    """What a stream's predictions go through: tracker, second stage, lines and zones.

    ``limit_s`` is how long the tracker of an installed package may take for a frame.

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
    return StreamAnalysis(
        stream.name,
        manifest.classes,
        tracker=_tracker(stream, manifest, limit_s),
        settings=stream.analytics,
        duplicate_iou=stream.track.duplicate_iou,
        camera=_camera_motion(stream),
        embedder=crops.embedder_of(stream),
        second_stage=crops.view_of(stream, manifest.classes),
        model_anchors=manifest.anchors,
        state_file=state_file,
    )


def preparation_of(stream: StreamSettings, config: Config) -> Preparation:
    """What is done to the pictures of a stream before its first queue."""
    picture = PictureSettings(
        max_fps=stream.max_fps,
        masks=stream.masks,
        roi=stream.roi,
        rotate=stream.rotate,
        size=stream.size,
        # the memory plan counts on it
        limit=PictureSettings().limit if config.memory_budget_mb is None else LARGEST_PX,
    )
    return Preparation(
        picture, GateLimits(**stream.motion_gate.model_dump()), HealthLimits(**stream.health.model_dump())
    )


def deadlines_of(stream: StreamSettings, config: Config) -> Deadlines:
    """When a capture child is given up: silent for too long, or grown beyond the memory plan."""
    deadlines = Deadlines(stream.open_timeout_s, stream.stall_timeout_s)
    return deadlines if config.memory_budget_mb is None else replace(deadlines, memory_mb=child_limit_mb(stream))


def score_of(stream: StreamSettings, manifest: Manifest) -> float:
    """The least score of an object that is shown: the stream's, else the model's."""
    return manifest.thresholds.score if stream.score is None else stream.score


def tracker_settings(score: float, manifest: Manifest) -> TrackerSettings:
    """Settings whose idea of a good detection is the model's, not that of the data sets they were tuned on."""
    return TrackerSettings.for_scores(score, manifest.thresholds.track_score)


def _tracker(stream: StreamSettings, manifest: Manifest, limit_s: float) -> Tracker | None:
    if stream.track.method == "off" or manifest.task != "detect":
        return None
    method = stream.track.method
    if is_plugin_tracker(method):
        return GuardedTracker(stream.name, method, lambda: open_tracker(method), limit_s)
    # the published algorithms have thresholds of their own
    ours = tracker_settings(score_of(stream, manifest), manifest) if method == "edge" else None
    return open_tracker(method, ours)


def _camera_motion(stream: StreamSettings) -> CameraMotion | None:
    wanted = stream.track.camera_motion
    return None if wanted == "boxes" else CameraMotion(is_always=wanted == "pictures")


def _give_up(latest: LatestFrames[Frame], slot: StreamSlot[Frame], capture: Worker) -> None:
    """End the capture of a stream that cannot run; one that connects to a camera ends by itself if it takes longer."""
    capture.stop()
    latest.remove(slot)
    capture.join(LATE_S)


def _second_sources(stream: Stream, gate: HostGate, deadlines: Deadlines) -> list[Worker]:
    """The threads of the large pictures, to be recorded or looked at, where another one is analysed."""
    found = (stream.record_source, stream.live_source)
    return [
        Worker(f"{source.key} {stream.name}", partial(source.run, gate=gate, deadlines=deadlines))
        for source in found
        if source is not None
    ]


def _live_source(stream: Stream, shared: Shared) -> LiveSource | None:
    """What brings the large picture for who looks, where there is one and somebody may."""
    config, clock, board = stream.config, stream.event_clock, shared.board
    if config.live_source is None or clock is None or board is None:
        return None
    from edge.pipeline.live_source import LiveSource

    # at its own size and rate: masked, cut and turned as what is analysed
    bare = config.model_copy(update={"size": None, "max_fps": None, "motion_gate": MotionGateSettings(), "health": OFF})
    return LiveSource(
        config,
        clock,
        board,
        preparation_of(bare, shared.config),
        _overlay(stream),
        shapes=lambda: stream.analysis.shapes,
        rate=lambda: stream.metrics.emitted_rate.per_second(time.monotonic_ns()) or None,
    )


def _overlay(stream: Stream) -> Overlay:
    theme, manifest = Theme(score=stream.score), stream.manifest
    return Overlay(manifest.classes, theme, limbs=limbs_of(manifest.keypoint_names))


def _wait_for_file(stream: Stream, capture: Worker) -> None:
    """Wait until a file is open.

    Raises:
        EdgeError: it cannot be opened.
    """
    if is_live(stream.config.source):
        return
    stream.status.opened.wait(OPEN_TIMEOUT_S)
    if isinstance(capture.failure, EdgeError) or stream.status.state == "failed":
        capture.join(LATE_S)
        raise capture.failure if isinstance(capture.failure, EdgeError) else EdgeError(stream.status.reason)


def _output(stream: Stream, shared: Shared) -> OutputWorker:
    """The output of a stream with its open sinks.

    Raises:
        EdgeError: a sink cannot be opened; none is open then.
    """
    score = stream.score
    sinks: list[Sink] = []
    with ExitStack() as undo:
        stages = open_stages(stream.config.stages, stream=stream.name, classes=stream.manifest.classes)
        undo.callback(close_all, stages)
        for sink in _sinks(stream, shared, score):
            undo.callback(close_sink, sink)
            sinks.append(sink)
        undo.pop_all()
    stream.note_guards([*sinks, *stages])
    return OutputWorker(stream, sinks, _overlay(stream), shared.latest.wake, stages)


def _sinks(stream: Stream, shared: Shared, score: float) -> Iterator[Sink]:
    """Those that the configuration names, the live page, the recording and the events."""
    fps = stream.status.info.fps if stream.status.info else 0.0
    for spec in stream.config.sinks:
        opener = partial(
            open_sink,
            spec,
            stream=stream.name,
            classes=stream.manifest.classes,
            fps=fps,
            score=score,
            appends=shared.appends,
            sound=stream.sound,
        )
        if is_plugin_sink(spec):
            yield GuardedSink(stream.name, spec, opener)
        else:
            # what a file gives would be lost meanwhile, so a run over one does not begin
            yield opener() if stream.config.is_lossless else open_now_or_later(opener)
    if shared.on_result is not None:
        from edge.sinks.results import ResultSink

        classes, analysis = stream.manifest.classes, stream.analysis
        yield ResultSink(shared.on_result, classes, score=score, shapes=lambda: analysis.shapes)
    if shared.board is not None:
        from edge.sinks.live import LiveSink

        follow = stream.analysis
        stream.live_source = _live_source(stream, shared)
        yield LiveSink(
            shared.board,
            stream.name,
            stream.manifest.classes,
            score=score,
            shapes=lambda: follow.shapes,
            large=stream.live_source,
        )
    yield from shared.outputs.sinks(stream)
