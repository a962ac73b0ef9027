"""Running a pipeline as a process: signals, systemd's notifications, the live page, and the summary at the end."""

from __future__ import annotations

import faulthandler
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np

from edge.config.workers import WorkersSettings
from edge.daemon.accuracy_facts import AccuracyFacts
from edge.daemon.credentials import with_secrets
from edge.daemon.helpers import Helpers
from edge.daemon.notify import notify, status
from edge.daemon.operations import Operations
from edge.daemon.rehearsal import keep_seen_until, rehearse, rehearse_start
from edge.daemon.reload import Reloader
from edge.daemon.serving import announce, bring_up_to_date, live_page, serve
from edge.daemon.state import CrashLoopGuard, held, state_dir, with_state_dir, with_swapped
from edge.daemon.watchdog import Watchdog
from edge.daemon.workers.deal import check_workers
from edge.daemon.workers.pool import WorkerPool
from edge.diagnose.gpu_stats import gpu_facts
from edge.diagnose.jetpack import jetson_facts
from edge.diagnose.process_facts import process_facts
from edge.errors import EdgeError, UsageError
from edge.pipeline import Pipeline
from edge.pipeline.tally import FrameBudget
from edge.threads.worker import Worker

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings
    from edge.daemon.run import Run
    from edge.server.board import LiveBoard
    from edge.types import Result

log = logging.getLogger(__name__)
TICK_S = 0.25
# how long a run must last to count as started well
GOOD_AFTER_S = 60.0
SHOW_EVERY_S = 1.0
# for the process of a shift to be ended
NIGHT_END_S = 3.0
# frames through, and of how many
OnProgress: TypeAlias = Callable[[int, "int | None"], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. Ages are from the camera's hand-over to the last sink, in milliseconds.

    Attributes:
        objects: boxes in all frames together.
        tracks: different objects that were followed.
        dropped: frames that were lost before the end was asked for.
        counts: stream → its tracks, lines and zones, see ``edge.pipeline.tally``, and ``fault`` where it cannot count.
        was_stopped: whether a signal ended it.
    """

    frames: int
    seconds: float
    fps: float
    objects: int
    tracks: int
    age_median_ms: float
    age_p99_ms: float
    dropped: int
    sink_errors: int
    counts: Mapping[str, Mapping[str, Any]]
    was_stopped: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Watching:
    """Who looks at a run from outside, see ``run_service``."""

    max_frames: int | None
    on_address: Callable[[str], None] | None
    on_progress: OnProgress | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a configuration came from: its file, and why it is not the file's (empty if it is)."""

    path: Path | None = None
    safe_reason: str = ""


def run_service(
    config: Config,
    *,
    origin: Origin = Origin(),
    max_frames: int | None = None,
    on_address: Callable[[str], None] | None = None,
    on_progress: OnProgress | None = None,
) -> Summary:
    """Run a configuration until its streams end, a signal comes, or enough frames are out.

    Args:
        config: what to run.
        origin: its file, which SIGHUP reads again.
        max_frames: stop after this many emitted frames of all streams together.
        on_address: told the address of the live page once it can be opened.
        on_progress: told now and then how many frames are through, and of how many; None where no end is known.

    Raises:
        EdgeError: it could not start, or a part failed on the way.
    """
    # what hangs when the watchdog ends us stands in the journal then
    if not faulthandler.is_enabled() and hasattr(sys.stderr, "fileno"):
        faulthandler.enable()
    # for pieces of a millisecond OpenCV's own threads cost more than they give
    cv2.setNumThreads(1)
    with _Signals() as signals:
        return _run(config, origin, Watching(max_frames, on_address, on_progress), signals)


def _run(config: Config, origin: Origin, watching: Watching, signals: _Signals) -> Summary:
    folder = state_dir(config) if origin.path is not None else None
    with held(folder):
        return _run_alone(config, origin, folder, watching, signals)


def _run_alone(
    config: Config,
    origin: Origin,
    folder: Path | None,
    watching: Watching,
    signals: _Signals,
) -> Summary:
    if watching.max_frames is not None:
        config = _for_so_many_frames(config)
    starts = CrashLoopGuard(folder)
    _wait_out_crash_loop(starts, signals.stopping)
    daemon = _Daemon(config, origin, folder)
    server = None
    try:
        if daemon.board is not None:
            server = serve(daemon.config, daemon.board, daemon.pipeline, daemon.stats, daemon.operations, daemon.turner)
            if watching.on_address is not None and server.address is not None:
                watching.on_address(server.address)
        if watching.max_frames is not None and isinstance(daemon.pipeline, Pipeline):
            budget = FrameBudget(watching.max_frames)
            for stream in daemon.pipeline.streams.values():
                stream.budget = budget
        daemon.start()
        notify("READY=1")
        status("safe mode: the last good configuration runs" if origin.safe_reason else "running")
        _supervise(daemon, signals, watching, starts)
    finally:
        notify("STOPPING=1")
        is_clean = daemon.stop()
        if server is not None:
            server.stop()
    if not is_clean:
        log.error("some parts did not end within %g s", config.stop_timeout_s)
    for failure in daemon.pipeline.failures():
        raise failure if isinstance(failure, EdgeError) else EdgeError(f"a part failed: {failure!r}; see the log")
    starts.end()
    return replace(summarise(daemon.pipeline), was_stopped=signals.stopping.is_set())


def _for_so_many_frames(config: Config) -> Config:
    """The configuration for one process: only there the frames of all streams can be counted while they come out.

    Raises:
        UsageError: several were asked for.
    """
    if config.workers.count != "auto" and check_workers(config):
        raise UsageError("--frames counts in a single process; leave it out, or set workers.count = 1")
    return config.model_copy(update={"workers": WorkersSettings(count=1)})


def summarise(run: Run) -> Summary:
    """The totals over all streams."""
    summaries = {name: stream.summary() for name, stream in run.streams.items()}
    counts = [summary["counts"] for summary in summaries.values()]
    frames = sum(count.get("emitted", 0) for count in counts)
    seconds = max(1e-9, (time.monotonic_ns() - run.started_ns) / 1e9)
    told = {
        name: {**summary["tally"], **({"fault": summary["fault"]} if summary["fault"] else {})}
        for name, summary in summaries.items()
    }
    ages = [(summary["age_median_ms"], summary["age_p99_ms"]) for summary in summaries.values()] or [(0.0, 0.0)]
    return Summary(
        frames=frames,
        seconds=round(seconds, 3),
        fps=round(frames / seconds, 2),
        objects=sum(count.get("objects", 0) for count in counts),
        age_median_ms=round(float(np.median([age[0] for age in ages])), 2),
        age_p99_ms=round(max(age[1] for age in ages), 2),
        tracks=sum(tally["tracks"] for tally in told.values()),
        dropped=sum(
            value
            for count in counts
            for name, value in count.items()
            if name.startswith("drop_") and name != "drop_stopped"
        ),
        sink_errors=sum(count.get("sink_errors", 0) for count in counts),
        counts=told,
    )


class _Daemon:
    """The pipeline and what goes with it."""

    def __init__(self, config: Config, origin: Origin, folder: Path | None) -> None:
        loaded = with_secrets(config)
        # the file is compared with ``loaded`` later, so what was added here is no change of it
        self.config = with_state_dir(with_swapped(loaded, folder), folder)
        self._lost_at_start = rehearse_start(self.config, folder)
        self.board: LiveBoard | None = live_page(self.config)
        # its imports are many
        from edge.daemon.turning import Turner

        self.pipeline: Run
        if not check_workers(self.config):
            can_turn = any(stream.ptz for stream in self.config.streams)
            self.pipeline = Pipeline(self.config, self.board, on_result=self._note if can_turn else None)
            self.turner = Turner(self.pipeline)
        else:
            self.pipeline = pool = WorkerPool(self.config, self.board)
            self.turner = Turner(pool)
            pool.on_event = self.turner.note
        self.pipeline.rehearse = lambda config, mapped: rehearse(config, folder, mapped, self.pipeline.config)
        path = origin.path
        reloader = None if path is None else Reloader(path, loaded, self.pipeline, self._announce)
        self.operations = Operations(self.pipeline, reloader, path, folder, origin.safe_reason)
        self.watchdog = Watchdog(self.pipeline.progress)
        self._orders = Worker("operations", self.operations.run)
        # workers have their own
        self._helpers = Helpers(self.config, self.pipeline) if isinstance(self.pipeline, Pipeline) else None
        self._accuracy: AccuracyFacts | None = None
        self._reading: Worker | None = None
        self._keeping: Worker | None = None
        if folder is not None:
            self._accuracy = AccuracyFacts(folder, lambda: list(self.pipeline.streams))
            self._reading = Worker("accuracy", self._accuracy.run)
            self._keeping = Worker(
                "rehearsal", lambda stopping: keep_seen_until(stopping, lambda: self.pipeline.config, folder)
            )
        self._night = self._night_shift()
        self._is_proven = False
        self._show_at_s = time.monotonic() + SHOW_EVERY_S

    def start(self) -> None:
        if self._helpers is not None:
            self._helpers.start()
        self.pipeline.start()
        self._orders.start()
        for worker in (self._reading, self._keeping, self._night):
            if worker is not None:
                worker.start()

    def stop(self) -> bool:
        """End everything; False if a part did not end in time."""
        self._orders.stop()
        for worker in (self._reading, self._keeping, self._night):
            if worker is not None:
                worker.stop()
        if self._helpers is not None:
            self._helpers.stop()
        is_clean = self.pipeline.stop()
        if self._helpers is not None:
            self._helpers.finish()
        self._orders.join(1.0)
        if self._night is not None:
            self._night.join(NIGHT_END_S)
        return is_clean

    def _night_shift(self) -> Worker | None:
        """What begins the night's shifts; None where none is wanted."""
        if self.config.night is None:
            return None
        from edge.daemon.night import Around, NightShift
        from edge.pipeline.shared_outputs import night_folder

        around = Around(report_event=self.pipeline.outputs.report_event)
        return Worker("night", NightShift(self.pipeline, self.operations, night_folder(self.config), around).run)

    def note_time(self, starts: CrashLoopGuard) -> None:
        """Once it has run for a while with results, it is in no crash loop and its configuration is good."""
        if not self._is_proven and (time.monotonic_ns() - self.pipeline.started_ns) / 1e9 >= GOOD_AFTER_S:
            self._is_proven = True
            starts.end()
        self.operations.keep_proven(GOOD_AFTER_S)

    def _note(self, result: Result) -> None:
        for event in result.events:
            self.turner.note(event)

    def stats(self) -> dict[str, Any]:
        """What ``/api/stats`` says."""
        return {
            "streams": {name: stream.stats() for name, stream in self.pipeline.streams.items()},
            "process": process_facts(),
            "gpu": gpu_facts(),
            "jetson": jetson_facts(),
            "stuck": self.watchdog.stuck(),
            "config": {**self.operations.config_state(), "lost_at_start": self._lost_at_start},
            **self.pipeline.outputs.stats(),
            "accuracy": {} if self._accuracy is None else self._accuracy.by_stream,
            "governor": self._governor_facts(),
        }

    def _governor_facts(self) -> dict[str, Any] | None:
        """What the governor does; of several workers, which all look at the same device, that of the first."""
        if isinstance(self.pipeline, WorkerPool):
            return next((facts for worker in self.pipeline.facts() if (facts := worker["governor"])), None)
        governor = None if self._helpers is None else self._helpers.governor
        return None if governor is None else governor.facts()

    def show_changes(self) -> None:
        """Bring the page up to what runs now, at most once a second."""
        if self.board is not None and time.monotonic() >= self._show_at_s:
            self._show_at_s = time.monotonic() + SHOW_EVERY_S
            bring_up_to_date(self.board, self.pipeline)

    def _announce(self, stream: StreamSettings) -> None:
        if self.board is not None:
            announce(self.board, self.pipeline, stream)


class _Signals:
    """What signals ask for while the block lasts; afterwards they do what they did before. Handlers set events only."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.reloading = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._reload}
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: FrameType | None) -> None:
        log.info("signal %s: stopping", signal.Signals(number).name)
        self.stopping.set()

    def _reload(self, _: int, __: FrameType | None) -> None:
        self.reloading.set()


def _wait_out_crash_loop(starts: CrashLoopGuard, stopping: threading.Event) -> None:
    """Wait before a start that followed many bad ones, and tell systemd to wait too."""
    delay_s = starts.begin()
    if not delay_s:
        return
    log.error("too many starts without a clean end, or they cannot be counted: this one begins in %g s", delay_s)
    status(f"crash loop: the next attempt is in {delay_s:g} s")
    notify(f"EXTEND_TIMEOUT_USEC={int((delay_s + 60) * 1e6)}")
    stopping.wait(delay_s)


def _supervise(daemon: _Daemon, signals: _Signals, watching: Watching, starts: CrashLoopGuard) -> None:
    """Wait for the end; feed the watchdog only while every stage that has work does some."""
    pipeline, told = daemon.pipeline, ""
    while pipeline.is_running and not signals.stopping.is_set() and not pipeline.failures():
        signals.stopping.wait(TICK_S if watching.max_frames is None else 0.02)
        emitted = sum(stream.num_emitted for stream in pipeline.streams.values())
        if watching.on_progress is not None:
            watching.on_progress(emitted, _total(pipeline, watching.max_frames))
        if watching.max_frames is not None and emitted >= watching.max_frames:
            return
        if daemon.watchdog.may_feed():
            notify("WATCHDOG=1")
        stuck = daemon.watchdog.stuck() or ""
        if bool(stuck) != bool(told):
            log.log(logging.ERROR if stuck else logging.INFO, stuck or "all stages go on")
            status(stuck or "running")
        told = stuck
        daemon.note_time(starts)
        daemon.show_changes()
        if signals.reloading.is_set():
            signals.reloading.clear()
            _reload(daemon)


def _total(run: Run, max_frames: int | None) -> int | None:
    """How many frames will come out; None where a stream has no known end."""
    lengths = [stream.num_frames for stream in run.streams.values()]
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths):
        return max_frames
    return sum(known) if max_frames is None else min(sum(known), max_frames)


def _reload(daemon: _Daemon) -> None:
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        daemon.operations.order_reload()
    except EdgeError as error:
        log.error("SIGHUP: %s", error)
    notify("READY=1")
