"""All parts put together: sources, models, trackers, outputs and the live page of one configuration."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edge.backoff import HostGate
from edge.capture import CaptureWorker
from edge.config import Config, ModelConfig, StreamConfig
from edge.errors import ConfigError, EdgeError, SinkError
from edge.follower import Follower
from edge.handoff import LatestFrames
from edge.inference import InferenceWorker
from edge.interfaces import Sink, Tracker
from edge.lane import Lane
from edge.manifest import Manifest
from edge.model import Model, open_model
from edge.output import OutputWorker
from edge.overlay import Overlay, Theme
from edge.sinks.choose import open_sink
from edge.trackers.choose import open_tracker
from edge.trackers.settings import TrackerSettings
from edge.uris import is_live
from edge.worker import Worker

if TYPE_CHECKING:
    from edge.live import LiveBoard

log = logging.getLogger(__name__)
OPEN_TIMEOUT_S = 30.0
POLL_S = 0.1


class Pipeline:
    """Runs a configuration. ``start`` it, ``wait`` for its end or ``stop`` it; one object runs once."""

    def __init__(self, config: Config, board: LiveBoard | None = None) -> None:
        """Load the models and prepare every stream.

        Args:
            config: what to run.
            board: the live page's board, where there is one.

        Raises:
            EdgeError: a model, a manifest or a setting is wrong.
        """
        self.config = config
        self._board = board
        self.models = {model.name: _load(model) for model in config.models if _is_used(model, config)}
        self.lanes = {stream.name: self._lane(stream) for stream in config.streams}
        self._latest = LatestFrames()
        self._gate = HostGate()
        self._inference = InferenceWorker(
            self.models, self.lanes, self._latest, {model.name: model.linger_ms / 1e3 for model in config.models}
        )
        self._captures: list[Worker] = []
        self._outputs: list[Worker] = []
        self._worker = Worker("inference", self._inference.run)
        self.started_ns = 0

    def start(self) -> None:
        """Open the sources and sinks and begin.

        Raises:
            EdgeError: a file that is no video, a sink that cannot be written: nothing runs then.
        """
        self.started_ns = time.monotonic_ns()
        try:
            for lane in self.lanes.values():
                self._add_slot(lane)
                capture = Worker(f"capture {lane.name}", CaptureWorker(lane, self._latest, self._gate).run)
                self._captures.append(capture)
                capture.start()
            self._wait_for_files()
            outputs = [self._output(lane) for lane in self.lanes.values()]
        except EdgeError:
            self._latest.stop()
            for capture in self._captures:
                capture.stop()
            raise
        self._outputs = outputs
        for worker in (*outputs, self._worker):
            worker.start()

    @property
    def is_running(self) -> bool:
        return any(worker.is_alive for worker in (*self._outputs, self._worker))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every stream has ended; False if the time is over first."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self.is_running:
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def stop(self) -> bool:
        """End capture, let what is under way come out, close everything; False if something did not end in time."""
        deadline = time.monotonic() + self.config.stop_timeout_s
        for worker in self._captures:
            worker.stop()
        for lane in self.lanes.values():
            self._latest.end(lane.name)
        for worker in (*self._captures, self._worker, *self._outputs):
            worker.join(max(0.0, deadline - time.monotonic()))
        self._latest.stop()
        for worker in (self._worker, *self._outputs):
            worker.stop()
            worker.join(1.0)
        for lane in self.lanes.values():
            lane.follower.save()
        for model in self.models.values():
            model.close()
        return not any(worker.is_alive for worker in (*self._captures, self._worker, *self._outputs))

    def not_ready(self) -> str | None:
        """Why no results can be expected now, None when they can."""
        if not self._worker.is_alive:
            return "inference is not running"
        waiting = [lane.name for lane in self.lanes.values() if lane.state in ("connecting", "backing_off", "failed")]
        return f"no picture from {', '.join(waiting)}" if len(waiting) == len(self.lanes) else None

    def failures(self) -> list[BaseException]:
        """What ended a worker before its time, the first cause first."""
        workers = (*self._captures, self._worker, *self._outputs)
        return [worker.failure for worker in workers if worker.failure is not None]

    def _add_slot(self, lane: Lane) -> None:
        self._latest.add(
            lane.name,
            group=lane.model,
            is_lossless=lane.config.is_lossless,
            on_drop=lambda _: lane.counters.add("drop_replaced"),
            has_room=lambda: lane.has_room,
            capacity=2 if lane.config.is_lossless else 1,
        )

    def _lane(self, stream: StreamConfig) -> Lane:
        model = self.config.model_of(stream)
        manifest = self.models[model.name].manifest
        if manifest.task == "embed":
            raise ConfigError(
                f"stream {stream.name!r}: {model.path.name} makes embeddings, which show nothing by themselves; "
                "expected a detector, segmenter or classifier"
            )
        return Lane(stream, model.name, manifest, self._follower(stream, manifest))

    def _follower(self, stream: StreamConfig, manifest: Manifest) -> Follower:
        folder = self.config.state_dir
        return Follower(
            stream.name,
            manifest.classes,
            tracker=_tracker(stream, manifest),
            settings=stream.analytics,
            state_file=None if folder is None else folder / f"{stream.name}.analytics.json",
        )

    def _wait_for_files(self) -> None:
        """A file that cannot be opened is an error at once, a camera is waited for while the others run."""
        for lane, capture in zip(self.lanes.values(), self._captures, strict=True):
            if not is_live(lane.config.source):
                lane.opened.wait(OPEN_TIMEOUT_S)
                if isinstance(capture.failure, EdgeError) or lane.state == "failed":
                    capture.join(1.0)
                    raise capture.failure if isinstance(capture.failure, EdgeError) else EdgeError(lane.state_reason)

    def _output(self, lane: Lane) -> Worker:
        sinks = self._open_sinks(lane)
        theme = Theme(score=_score(lane.config, lane.manifest))
        output = OutputWorker(lane, sinks, Overlay(lane.manifest.classes, theme), self._latest.wake)
        return Worker(f"output {lane.name}", output.run)

    def _open_sinks(self, lane: Lane) -> Sequence[Sink]:
        fps = lane.info.fps if lane.info else 0.0
        score = _score(lane.config, lane.manifest)
        sinks: list[Sink] = []
        try:
            for spec in lane.config.sinks:
                sinks.append(open_sink(spec, stream=lane.name, classes=lane.manifest.classes, fps=fps, score=score))
        except EdgeError:
            for sink in sinks:
                _close_quietly(sink)
            raise
        if self._board is not None:
            from edge.sinks.live import LiveSink

            sinks.append(LiveSink(self._board, lane.name, lane.manifest.classes, score=score))
        return sinks


def _load(model: ModelConfig) -> Model:
    return open_model(
        model.path, manifest=model.manifest, engine=model.engine, threads=model.threads, max_batch=model.max_batch
    )


def _is_used(model: ModelConfig, config: Config) -> bool:
    return any(config.model_of(stream).name == model.name for stream in config.streams)


def _score(stream: StreamConfig, manifest: Manifest) -> float:
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
    return open_tracker(stream.track.method, tracker_settings(_score(stream, manifest), manifest))


def _close_quietly(sink: Sink) -> None:
    try:
        sink.close()
    except SinkError as error:
        log.warning("%s", error)
