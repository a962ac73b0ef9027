"""All parts put together: sources, models, trackers, outputs and the live page of one configuration."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ConfigError, EdgeError, look_up
from edge.pipeline.latest_frames import LatestFrames
from edge.threads.finish import finish
from edge.threads.worker import LATE_S, Worker

if TYPE_CHECKING:
    from edge.config.schema import Config, ModelSettings, StreamSettings
    from edge.interfaces import SwitchPart
    from edge.model import Model
    from edge.models.manifest import Manifest
    from edge.pipeline.progress import Progress
    from edge.pipeline.shared_outputs import Elsewhere
    from edge.pipeline.stream import Stream
    from edge.pipeline.swap.report import Phase, SwapReport
    from edge.server.board import LiveBoard
    from edge.sinks.home_assistant import Standing
    from edge.types import Frame, Result, UInt8

log = logging.getLogger(__name__)
POLL_S = 0.1
SETTLE_TIMEOUT_S = 2.0
SAVE_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Part:
    """What a process has of a configuration that several processes run.

    Attributes:
        streams: that begin here; more may be added.
        outputs: the process that keeps the events of all.
        off: stream → what begins switched off.
    """

    streams: tuple[StreamSettings, ...]
    outputs: Elsewhere
    off: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Pipeline:
    """Runs a configuration. ``start`` it, ``wait`` for its end or ``stop`` it; one object runs once."""

    def __init__(
        self,
        config: Config,
        board: LiveBoard | None = None,
        *,
        on_result: Callable[[Result], object] | None = None,
        part: Part | None = None,
    ) -> None:
        """Load the models and prepare every stream.

        Args:
            config: what to run.
            board: the live page's board, where there is one.
            on_result: told of every result that comes out, in the output thread of its stream; while it works, only
                that stream waits. What it raises ends the stream.
            part: this process runs some of the streams, others the rest; None: all of them run here.

        Raises:
            EdgeError: a model, a manifest or a setting is wrong.
        """
        # what runs is imported when something is to run: the class alone costs nothing
        from edge.model import load_model
        from edge.pipeline.build import Shared
        from edge.pipeline.inference import InferenceWorker
        from edge.pipeline.shared_outputs import SharedOutputs
        from edge.pipeline.switches import Switches
        from edge.second_stage.models import CropModels
        from edge.video.allowed import allow_encoders

        allow_encoders(config.encoder)
        self.config = config
        rows = {model.name: config.rows_at_once(model) for model in config.models}
        used = [model for model in config.models if config.is_used(model)]
        self.models = {model.name: load_model(model, is_ahead=True, is_shared=rows[model.name] > 1) for model in used}
        _refuse_unlike_fallbacks(config, self.models)
        self._crops = CropModels(config)
        if part is not None:
            # models of every stream are loaded, for each of them may be moved here
            self.config = config = config.model_copy(update={"streams": part.streams})
        self._is_part = part is not None
        self._plan(config.streams)
        elsewhere = None if part is None else part.outputs
        self.switches = Switches(config.state_dir) if part is None else Switches(None, part.off)
        self.outputs = SharedOutputs(config, lambda: tuple(self.streams), elsewhere, self._standings, self.switch)
        self._latest: LatestFrames[Frame] = LatestFrames()
        self._shared = Shared(
            config,
            self._latest,
            self.outputs,
            self._crops,
            board,
            self._is_alone,
            on_result,
            self._is_part,
            self.switches.off,
        )
        # replaced as a whole when a stream comes or goes, so any thread may read it
        self.streams: Mapping[str, Stream] = {stream.name: self._stream(stream) for stream in config.streams}
        # the clip tests of what shall take over; raises EdgeError where something expected is lost
        self.rehearse: Callable[[Config, Mapping[str, object]], None] = lambda config, mapped: None
        self._changing = threading.Lock()
        self._swapping = threading.Lock()
        self._stopping = threading.Event()
        linger_s = {model.name: model.linger_ms / 1e3 for model in config.models}
        fallbacks = {model.name: model.fallback for model in used if model.fallback is not None}
        self._inference = InferenceWorker(
            self.models, lambda: self.streams, self._latest, linger_s, fallbacks, goes_on=self._is_part
        )
        self._worker = Worker("inference", self._inference.run)
        self.started_ns = 0

    @property
    def crop_manifests(self) -> Mapping[str, Manifest]:
        """Of the models that look at objects, by name."""
        return self._crops.manifests

    def run(self) -> None:
        """Start, wait until every stream has ended or one has failed, and stop; Ctrl-C stops it as well.

        Raises:
            EdgeError: it cannot start.
            Exception: what ended a stream before its time, such as what ``on_result`` raised.
        """
        with self:
            while not self.wait(POLL_S) and not self.failures():
                pass
        for failure in self.failures():
            raise failure

    def __enter__(self) -> Pipeline:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Open the sources and sinks and begin.

        Raises:
            EdgeError: a file that is no video, a sink that cannot be written: nothing runs then.
        """
        self.started_ns = time.monotonic_ns()
        with ExitStack() as undo:
            for stream in self.streams.values():
                undo.callback(stream.close)
                self._shared.open(stream)
            undo.pop_all()
        self.outputs.start()
        self._crops.start()
        self._worker.start()

    def add_stream(self, config: StreamSettings) -> Stream:
        """Begin a stream while the others run. A live page must know it already: ``LiveBoard.add_stream``.

        Raises:
            ConfigError: a stream of this name runs, or its model is not loaded.
            EdgeError: a file that is no video, a sink that cannot be written: it was not added then.
        """
        with self._changing:
            self._refuse_unfit(config)
            self._plan((*self.config.streams, config))
            stream = self._stream(config)
            self.streams = {**self.streams, stream.name: stream}
            with ExitStack() as undo:
                undo.callback(self._forget, stream)
                self._shared.open(stream)
                undo.pop_all()
            self.config = self.config.with_stream(config)
        return stream

    def change_analytics(self, config: StreamSettings) -> None:
        """Watch other lines and zones in a stream that goes on, whose other settings are the same.

        Raises:
            ConfigError: there is no such stream, or an unknown class, key point or time zone: nothing was changed.
        """
        with self._changing:
            look_up("stream", config.name, self.streams).watch(config)
            self.config = self.config.with_stream(config)

    def switch(self, stream: str, part: SwitchPart, *, is_on: bool) -> None:
        """Switch a part of a stream on or off, from the next frame on; see ``edge.interfaces.Switch``."""
        self.switches.change(look_up("stream", stream, self.streams).config, part, is_on=is_on)

    def is_away(self, stream: str) -> bool:
        """Whether the camera of a stream is turned away from its home; a stream that is not there is not."""
        known = self.streams.get(stream)
        return known is not None and known.analysis.is_away

    def tell_away(self, stream: str, *, is_away: bool) -> None:
        """The camera of a stream is turned away from its home, or is back: lines and zones rest meanwhile."""
        known = self.streams.get(stream)
        if known is not None:
            known.analysis.is_away = is_away

    def remove_stream(self, name: str) -> bool:
        """End a stream while the others run: what is under way comes out first. False if a part did not end in time.

        Raises:
            ConfigError: there is no such stream.
        """
        deadline = time.monotonic() + self.config.stop_timeout_s
        with self._changing:
            stream = look_up("stream", name, self.streams)
            stream.is_leaving = True
            stream.threads.end_capture()
            has_ended = stream.threads.join(deadline)
            self._forget(stream)
            self.config = self.config.without_stream(name)
        finish({f"counts of {name}": stream.analysis.save}, SAVE_TIMEOUT_S)
        return has_ended

    def swap_model(
        self,
        name: str,
        path: Path,
        *,
        renamed: Mapping[str, str] | None = None,
        has_trial: bool = True,
        on_phase: Callable[[Phase], None] = lambda phase: None,
    ) -> SwapReport:
        """Change a model while the cameras run; see ``edge.pipeline.swap.swap``. Blocks until the probation is over.

        Raises:
            ConfigError: no model of this name runs.
            EdgeError: another swap is under way.
        """
        from edge.pipeline.swap import Order, Swap

        if look_up("model", name, self.models).remote is not None:
            raise ConfigError(f"model {name!r} runs on a server: it is changed there")
        if not self._swapping.acquire(blocking=False):
            raise EdgeError("another model swap is under way; wait for its end")
        try:
            config = next(model for model in self.config.models if model.name == name)
            rehearse = partial(self._rehearse, name, path, renamed or {})
            note = self.outputs.note_disagreement
            order = Order(config, path, renamed or {}, has_trial, rehearse, note)
            swap = Swap(order, self.models[name], self._inference, self.config.swap, self._stopping, on_phase)
            report, self.models[name] = swap.run()
            for stream in self.streams.values():
                if stream.model == name:
                    # what draws and tells from now on names what runs
                    stream.manifest = self.models[name].manifest
            if report.outcome == "kept":
                with self._changing:
                    self.config = self.config.with_model_file(name, path)
        finally:
            self._swapping.release()
        return report

    @property
    def is_running(self) -> bool:
        return self._worker.is_alive or any(stream.is_running for stream in self.streams.values())

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
        self._stopping.set()
        with self._changing:
            streams = list(self.streams.values())
        has_drained = self._drain(streams, deadline)
        for stream in streams:
            stream.end_guards()
        finish({f"counts of {stream.name}": stream.analysis.save for stream in streams}, SAVE_TIMEOUT_S)
        # events go out before anything that an engine can hold up
        left_s = max(0.0, deadline - time.monotonic())
        has_told = finish({"outputs": lambda: self.outputs.stop(deadline)}, left_s + CLOSE_TIMEOUT_S)
        have_closed = self._close_models(deadline)
        return has_drained and has_told and have_closed

    def not_ready(self) -> str | None:
        """Why no results can be expected now, None when they can."""
        if not self._worker.is_alive or self._inference.failure is not None:
            return "inference is not running"
        away = [stream.name for stream in self.streams.values() if self.is_stranded(stream.model)]
        if away and len(away) == len(self.streams):
            return f"the model's server is away, for {', '.join(away)}"
        absent = ("connecting", "backing_off", "failed")
        waiting = [stream.name for stream in self.streams.values() if stream.status.state in absent]
        return f"no picture from {', '.join(waiting)}" if waiting and len(waiting) == len(self.streams) else None

    def heat(self, name: str) -> UInt8 | None:
        """Where objects spent their time in this stream, see ``Heatmap.draw``; None where there is no heat map."""
        stream = self.streams.get(name)
        return None if stream is None else stream.analysis.heat()

    def _standings(self) -> Mapping[str, Standing]:
        from edge.sinks.home_assistant import Standing

        return {
            name: Standing(
                stream.status.state,
                stream.status.health,
                stream.analysis.known_counts(),
                stream.off(),
                has_recording=stream.config.record is not None,
            )
            for name, stream in self.streams.items()
        }

    def progress(self) -> Mapping[str, Progress]:
        """What every stage has done and whether work waits for it, for the watchdog."""
        from edge.pipeline.progress import progress_of

        # who waits for a server is no work for inference
        waiting = {
            name: count
            for name, count in self._latest.waiting().items()
            if name in self.streams and not self.is_stranded(self.streams[name].model)
        }
        return progress_of(self.streams, self._latest.num_taken, waiting)

    def is_stranded(self, name: str) -> bool:
        """Whether a model's server is away and no other model takes its place."""
        remote = self.models[name].remote
        return remote is not None and remote.is_away and self._config_of(name).fallback is None

    def server(self, name: str) -> Mapping[str, object] | None:
        """How the server of a model is and which model answers now, as JSON values; None for a model of here."""
        remote = self.models[name].remote
        if remote is None:
            return None
        return {"model": name, **remote.state(), "runs": self._config_of(name).fallback if remote.is_away else name}

    def _config_of(self, name: str) -> ModelSettings:
        return next(model for model in self.config.models if model.name == name)

    def failures(self) -> list[BaseException]:
        """What ended a worker before its time, the first cause first."""
        threads = [stream.threads for stream in self.streams.values() if stream.is_open]
        captures, outputs = [one.capture for one in threads], [one.output for one in threads]
        others = [other for one in threads for other in one.others]
        workers = (*captures, *others, self._worker, *outputs)
        engine = [self._inference.failure] if self._inference.failure is not None else []
        return [*engine, *(worker.failure for worker in workers if worker.failure is not None)]

    def _drain(self, streams: Sequence[Stream], deadline_s: float) -> bool:
        """End capture and let what is under way come out, until a moment; whether every thread has ended."""
        threads = [stream.threads for stream in streams if stream.is_open]
        self._inference.is_draining = True
        for one in threads:
            one.end_capture()
        if not threads:
            self._worker.stop()
        for one in threads:
            one.capture.join(max(0.0, deadline_s - time.monotonic()))
        for worker in (self._worker, *(one.output for one in threads)):
            worker.join(max(0.0, deadline_s - time.monotonic()))
        self._latest.stop()
        self._worker.stop()
        self._worker.join(LATE_S)
        for one in threads:
            one.output.stop()
        late_s = time.monotonic() + LATE_S
        num_ended = sum(one.join(late_s) for one in threads)
        return num_ended == len(threads) and not self._worker.is_alive

    def _close_models(self, deadline_s: float) -> bool:
        """Close what no thread uses any more; an engine that hangs is left to the end of the process."""
        # a swap under way ends by itself now, and says which model is left
        has_settled = self._swapping.acquire(timeout=SETTLE_TIMEOUT_S)
        left_s = max(0.0, deadline_s - time.monotonic())
        have_closed = finish({"second stage": lambda: self._crops.stop(deadline_s)}, left_s + CLOSE_TIMEOUT_S)
        if self._worker.is_alive:
            log.error("inference did not end; its models stay open")
        else:
            for name, model in self.models.items():
                have_closed &= finish({f"model {name}": model.close}, CLOSE_TIMEOUT_S)
        if has_settled:
            self._swapping.release()
        return have_closed

    def _is_alone(self) -> bool:
        return not self._is_part and len(self.streams) < 2

    def _forget(self, stream: Stream) -> None:
        stream.close()
        if self.outputs.tracks is not None:
            self.outputs.tracks.end(stream.name)
        self.models[stream.model].release(stream.name)
        self.streams = {name: other for name, other in self.streams.items() if other is not stream}

    def _refuse_unfit(self, config: StreamSettings) -> None:
        if config.name in self.streams:
            raise ConfigError(f"a stream called {config.name!r} runs already; names must differ")
        model = config.model or self.config.model_of(config).name
        if model not in self.models:
            raise ConfigError(f"stream {config.name!r} asks for model {model!r}; loaded: {', '.join(self.models)}")
        if not self._worker.is_alive:
            raise EdgeError(f"stream {config.name!r} cannot be added: inference is not running")

    def _plan(self, streams: tuple[StreamSettings, ...]) -> None:
        """Refuse streams for which the memory that was allowed does not suffice."""
        from edge.pipeline.memory_plan import plan_memory

        if self._is_part:
            # who deals the streams plans for all of them
            return
        config = self.config.model_copy(update={"streams": streams})
        manifests = {**self._crops.manifests, **{name: model.manifest for name, model in self.models.items()}}
        plan_memory(config, manifests).refuse_over(config.memory_budget_mb)

    def _rehearse(self, name: str, path: Path, renamed: Mapping[str, str]) -> None:
        """Run the clip tests with another file for a model."""
        classes = {"classes": list(self.models[name].manifest.classes), "renamed": dict(renamed)}
        self.rehearse(self.config.with_model_file(name, path), {name: classes})

    def _stream(self, config: StreamSettings) -> Stream:
        model = self.config.model_of(config)
        stream = self._shared.make(config, model, self.models[model.name].manifest)
        stream.server = lambda: self.server(model.name)
        stream.note_guards((), lambda: self.models[model.name].guards(config.name))
        return stream


def _refuse_unlike_fallbacks(config: Config, models: Mapping[str, Model]) -> None:
    """What runs in the place of another one must find the same things, by the same numbers."""
    for model in config.models:
        if model.name not in models or model.fallback is None:
            continue
        wanted, found = models[model.name].manifest, models[model.fallback].manifest
        if (wanted.task, list(wanted.classes)) != (found.task, list(found.classes)):
            raise ConfigError(
                f"model {model.name!r}: fallback {model.fallback!r} finds other classes ({', '.join(found.classes)}); "
                f"expected {', '.join(wanted.classes)}"
            )
