"""All parts put together: sources, models, trackers, outputs and the live page of one configuration."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from edge.config.schema import Config, StreamConfig
from edge.errors import ConfigError, EdgeError
from edge.model import load_model
from edge.pipeline.build import Capture, drain, give_up, make_lane, open_output, start_capture, wait_for_file
from edge.pipeline.inference import InferenceWorker
from edge.pipeline.latest_frames import LatestFrames
from edge.pipeline.memory_plan import plan_memory
from edge.pipeline.progress import Mark, marks_of
from edge.pipeline.shared_outputs import Outlets
from edge.pipeline.stream import Lane
from edge.pipeline.swap.swap import NO_NAMES, Order, Phase, Swap, SwapReport
from edge.second_stage.models import CropModels
from edge.threads.backoff import HostGate
from edge.threads.finish import finish
from edge.threads.worker import Worker

if TYPE_CHECKING:
    from edge.server.board import LiveBoard

log = logging.getLogger(__name__)
POLL_S = 0.1
SETTLE_TIMEOUT_S = 2.0
SAVE_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 5.0


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
        rows = {model.name: config.rows_at_once(model) for model in config.models}
        used = [model for model in config.models if rows[model.name]]
        self.models = {model.name: load_model(model, is_ahead=True, is_shared=rows[model.name] > 1) for model in used}
        self._crops = CropModels(config)
        self._plan(config.streams)
        self.outlets = Outlets(config)
        # replaced as a whole when a stream comes or goes, so any thread may read it
        self.lanes: Mapping[str, Lane] = {stream.name: self._lane(stream) for stream in config.streams}
        self._changing = threading.Lock()
        self._swapping = threading.Lock()
        self._stopping = threading.Event()
        self._latest = LatestFrames()
        self._gate = HostGate()
        linger_s = {model.name: model.linger_ms / 1e3 for model in config.models}
        self._inference = InferenceWorker(self.models, lambda: self.lanes, self._latest, linger_s)
        self._captures: dict[str, Capture] = {}
        self._outputs: dict[str, Worker] = {}
        self._worker = Worker("inference", self._inference.run)
        self.started_ns = 0

    def start(self) -> None:
        """Open the sources and sinks and begin.

        Raises:
            EdgeError: a file that is no video, a sink that cannot be written: nothing runs then.
        """
        self.started_ns = time.monotonic_ns()
        with ExitStack() as undo:
            undo.callback(self._give_up)
            for lane in self.lanes.values():
                self._captures[lane.name] = self._start_capture(lane)
            for lane in self.lanes.values():
                wait_for_file(lane, self._captures[lane.name])
            for lane in self.lanes.values():
                self._outputs[lane.name] = self._output(lane)
            undo.pop_all()
        self.outlets.start()
        self._crops.start()
        for worker in (*self._outputs.values(), self._worker):
            worker.start()

    def add_stream(self, stream: StreamConfig) -> Lane:
        """Begin a stream while the others run. A live page must know it already: ``LiveBoard.add_stream``.

        Raises:
            ConfigError: a stream of this name runs, or its model is not loaded.
            EdgeError: a file that is no video, a sink that cannot be written: it was not added then.
        """
        with self._changing:
            self._refuse_unfit(stream)
            self._plan((*self.config.streams, stream))
            lane = self._lane(stream)
            self.lanes = {**self.lanes, lane.name: lane}
            capture = self._start_capture(lane)
            with ExitStack() as undo:
                undo.callback(self._forget, lane, capture)
                undo.callback(capture.worker.stop)
                wait_for_file(lane, capture)
                output = self._output(lane)
                undo.pop_all()
            self._captures[lane.name], self._outputs[lane.name] = capture, output
            output.start()
            self.config = self.config.model_copy(update={"streams": (*self.config.streams, stream)})
        return lane

    def remove_stream(self, name: str) -> bool:
        """End a stream while the others run: what is under way comes out first. False if a part did not end in time.

        Raises:
            ConfigError: there is no such stream.
        """
        deadline = time.monotonic() + self.config.stop_timeout_s
        with self._changing:
            lane = self.lanes.get(name)
            if lane is None:
                raise ConfigError(f"no stream is called {name!r}; running: {', '.join(self.lanes) or 'none'}")
            capture, output = self._captures[name], self._outputs[name]
            lane.is_leaving = True
            capture.worker.stop()
            self._latest.end(capture.slot)
            for worker in (capture.worker, output):
                worker.join(max(0.0, deadline - time.monotonic()))
            output.stop()
            self._forget(lane, capture)
            del self._captures[name], self._outputs[name]
            streams = tuple(stream for stream in self.config.streams if stream.name != name)
            self.config = self.config.model_copy(update={"streams": streams})
        finish({f"counts of {name}": lane.follower.save}, SAVE_TIMEOUT_S)
        return not (capture.worker.is_alive or output.is_alive)

    def swap_model(
        self,
        name: str,
        path: Path,
        *,
        renamed: Mapping[str, str] = NO_NAMES,
        has_trial: bool = True,
        on_phase: Callable[[Phase], None] = lambda phase: None,
    ) -> SwapReport:
        """Change a model while the cameras run; see ``edge.pipeline.swap.swap``. Blocks until the probation is over.

        Raises:
            ConfigError: no model of this name runs.
            EdgeError: another swap is under way.
        """
        if name not in self.models:
            raise ConfigError(f"no model is called {name!r}; running: {', '.join(self.models)}")
        if not self._swapping.acquire(blocking=False):
            raise EdgeError("another model swap is under way; wait for its end")
        try:
            config = next(model for model in self.config.models if model.name == name)
            order = Order(config, path, renamed, has_trial)
            swap = Swap(order, self.models[name], self._inference, self.config.swap, self._stopping, on_phase)
            report, self.models[name] = swap.run()
            for lane in self.lanes.values():
                if lane.model == name:
                    # what draws and tells from now on names what runs
                    lane.manifest = self.models[name].manifest
            if report.outcome == "kept":
                with self._changing:
                    changed = config.model_copy(update={"path": path, "manifest": None})
                    models = tuple(changed if model.name == name else model for model in self.config.models)
                    self.config = self.config.model_copy(update={"models": models})
        finally:
            self._swapping.release()
        return report

    @property
    def is_running(self) -> bool:
        return any(worker.is_alive for worker in (*list(self._outputs.values()), self._worker))

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
            captures, outputs = list(self._captures.values()), list(self._outputs.values())
        has_drained = drain(self._latest, captures, outputs, self._worker, deadline)
        finish({f"counts of {lane.name}": lane.follower.save for lane in self.lanes.values()}, SAVE_TIMEOUT_S)
        # events go out before anything that an engine can hold up
        left_s = max(0.0, deadline - time.monotonic())
        has_told = finish({"outlets": lambda: self.outlets.stop(deadline)}, left_s + CLOSE_TIMEOUT_S)
        have_closed = self._close_models(deadline)
        return has_drained and has_told and have_closed

    def not_ready(self) -> str | None:
        """Why no results can be expected now, None when they can."""
        if not self._worker.is_alive:
            return "inference is not running"
        waiting = [lane.name for lane in self.lanes.values() if lane.state in ("connecting", "backing_off", "failed")]
        return f"no picture from {', '.join(waiting)}" if waiting and len(waiting) == len(self.lanes) else None

    def marks(self) -> Mapping[str, Mark]:
        """What every stage has done and whether work waits for it, for the watchdog."""
        return marks_of(self.lanes, self._latest.num_taken, self._latest.waiting())

    def failures(self) -> list[BaseException]:
        """What ended a worker before its time, the first cause first."""
        captures = [capture.worker for capture in list(self._captures.values())]
        workers = (*captures, self._worker, *list(self._outputs.values()))
        return [worker.failure for worker in workers if worker.failure is not None]

    def _start_capture(self, lane: Lane) -> Capture:
        return start_capture(lane, self.config, self._latest, self._gate, lambda: len(self.lanes) < 2)

    def _output(self, lane: Lane) -> Worker:
        return open_output(lane, self._board, self.outlets, self._latest.wake)

    def _give_up(self) -> None:
        """End what ``start`` began: one of the streams cannot run."""
        self._latest.stop()
        for capture in self._captures.values():
            capture.worker.stop()
        for output in self._outputs.values():
            give_up(output)
        self._outputs = {}

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

    def _forget(self, lane: Lane, capture: Capture) -> None:
        self._latest.remove(capture.slot)
        self.outlets.forget(lane.name)
        self.lanes = {name: other for name, other in self.lanes.items() if name != lane.name}

    def _refuse_unfit(self, stream: StreamConfig) -> None:
        if stream.name in self.lanes:
            raise ConfigError(f"a stream called {stream.name!r} runs already; names must differ")
        model = stream.model or self.config.model_of(stream).name
        if model not in self.models:
            raise ConfigError(f"stream {stream.name!r} asks for model {model!r}; loaded: {', '.join(self.models)}")
        if not self._worker.is_alive:
            raise EdgeError(f"stream {stream.name!r} cannot be added: inference is not running")

    def _plan(self, streams: tuple[StreamConfig, ...]) -> None:
        """Refuse streams for which the memory that was allowed does not suffice."""
        config = self.config.model_copy(update={"streams": streams})
        manifests = {**self._crops.manifests, **{name: model.manifest for name, model in self.models.items()}}
        plan_memory(config, manifests).refuse_over(config.memory_budget_mb)

    def _lane(self, stream: StreamConfig) -> Lane:
        model = self.config.model_of(stream)
        manifest = self.models[model.name].manifest
        return self.outlets.attach(make_lane(stream, model, manifest, self.config.state_dir, self._crops))
