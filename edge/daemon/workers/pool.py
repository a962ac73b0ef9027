"""All workers of a daemon behind one face: what ``edge.pipeline.Pipeline`` is for one process, this is for several.

Each worker is a whole pipeline of some of the streams, with engines of its own. Here are the one configuration, the one
outbox, the one page and the supervision. A worker that is lost costs its streams until the next one has loaded.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.daemon.watcher import watch_folder
from edge.daemon.workers.deal import check_workers, deal, has_spare, least_loaded, places_of
from edge.daemon.workers.events import EventTaker
from edge.daemon.workers.pages import MAX_STREAMS, ShownPage
from edge.daemon.workers.process import ChildWorker
from edge.daemon.workers.seat import Seat, WorkerStream, settings_of
from edge.errors import ConfigError, EdgeError, look_up
from edge.pipeline.shared_outputs import SharedOutputs, tracks_path
from edge.pipeline.switches import Switches
from edge.server.published import Demand
from edge.sinks.home_assistant import Standing
from edge.threads.finish import finish
from edge.threads.worker import Worker
from edge.trackstore.asking import have_written
from edge.types import Event
from edge.watchlog.keys import DeviceKey

if TYPE_CHECKING:
    from edge.config.schema import Config, ModelSettings, StreamSettings
    from edge.config.workers import WorkerSettings
    from edge.daemon.workers.link import Link, Message
    from edge.daemon.workers.pages import PageMemory
    from edge.daemon.workers.process import ModelFacts
    from edge.interfaces import SwitchPart
    from edge.models.manifest import Manifest
    from edge.pipeline.progress import Progress
    from edge.pipeline.swap.report import Phase, SwapReport
    from edge.server.board import LiveBoard
    from edge.server.recordings import Archive, Shelf
    from edge.types import UInt8

log = logging.getLogger(__name__)
STOP_GRACE_S = 5.0
LOOK_EVERY_S = 0.5
SPARE_PAUSE_S, SPARE_RETRY_S = 3.0, 20.0
MAX_THREADS = 4
HEAT_TIMEOUT_S = 2.0


class WorkerPool:
    """Runs a configuration in several processes; see ``edge.daemon.run.Run``.

    Attributes:
        config: what runs, with what was changed since.
        streams: by name; replaced as a whole.
    """

    def __init__(self, config: Config, board: LiveBoard | None = None) -> None:
        """Begin the workers and wait until their models are loaded; no stream begins before ``start``.

        Raises:
            EdgeError: a model, a manifest or a setting is wrong, or several processes cannot run this.
        """
        check_workers(config)
        self.config = config
        self.started_ns = 0
        self.rehearse: Callable[[Config, Mapping[str, object]], None] = lambda config, mapped: None
        # told of events that may turn a camera, in the thread of a worker's link
        self.on_event: Callable[[Event], None] = lambda event: None
        self._away: frozenset[str] = frozenset()
        self._board = board
        self._indices = iter(range(MAX_STREAMS))
        self._free_indices: list[int] = []
        self._changing, self._swapping = threading.RLock(), threading.Lock()
        self._stopping = threading.Event()
        self._living: set[ChildWorker] = set()
        self._looked_s = 0.0
        self._events: queue.SimpleQueue[tuple[Link, PageMemory, Message] | None] = queue.SimpleQueue()
        # what streams see, and frames for the night, are kept by their workers
        own = config.model_copy(update={"track_store": None, "night": None})
        self.switches = Switches(config.state_dir)
        self._shared = SharedOutputs(own, lambda: tuple(self.streams), standings=self._standings, switch=self.switch)
        self._taker = EventTaker(self._shared)
        self._event_thread = Worker("events of workers", lambda _: self._take_events())
        self.outputs = PoolOutputs(self, self._shared)
        self.streams: Mapping[str, WorkerStream] = {}
        self._seats = [Seat(number, place, self) for number, place in enumerate(places_of(config), 1)]
        self._threads = [Worker(f"worker {seat.number}", seat.run) for seat in self._seats]
        self._spares = Worker("spare worker", self._keep_spare)
        self._spare: ChildWorker | None = None
        self._deal()
        try:
            self._begin_all()
        except EdgeError:
            self._kill_all()
            raise

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """Of the workers, which all have the same."""
        for seat in self._seats:
            if seat.process is not None:
                return seat.process.heard.models
        return {}

    @property
    def num_workers(self) -> int:
        return len(self._seats)

    def start(self) -> None:
        """Open the sources and sinks and begin.

        Raises:
            EdgeError: a file that is no video, a sink that cannot be written: nothing runs then.
        """
        self.started_ns = time.monotonic_ns()
        if self._board is not None:
            self._board.listen_demand(self._note_demand)
        for stream in self.streams.values():
            self._offer_sound(stream)
        self._event_thread.start()
        self._shared.start()
        failures: list[EdgeError] = []
        finish({f"worker {seat.number}": lambda seat=seat: _try(seat.go, failures) for seat in self._seats}, 120.0)  # type: ignore[misc]
        if failures:
            raise failures[0]
        for thread in (*self._threads, *([self._spares] if has_spare(self.config) else [])):
            thread.start()

    def stop(self) -> bool:
        """Drain and end all workers, then deliver what waits; False if something did not end in time."""
        deadline_s = time.monotonic() + self.config.stop_timeout_s
        self._stopping.set()
        for thread in (*self._threads, self._spares):
            thread.stop()
        left_s = self.config.stop_timeout_s
        stops = {f"worker {seat.number}": lambda seat=seat: seat.stop(left_s) for seat in self._seats}
        is_clean = finish(stops, left_s + STOP_GRACE_S)
        self._kill_all()
        self._events.put(None)
        self._event_thread.join(STOP_GRACE_S)
        return self._shared.stop(deadline_s) and is_clean

    @property
    def is_running(self) -> bool:
        return not all(seat.is_over for seat in self._seats)

    def failures(self) -> list[BaseException]:
        """What ends the run, the first cause first."""
        return [seat.failure for seat in self._seats if seat.failure is not None]

    def not_ready(self) -> str | None:
        """Why no results can be expected now, None when they can."""
        seats = [seat for seat in self._seats if not seat.is_over]
        lost = [seat.reason for seat in seats if seat.reason]
        if lost:
            return lost[0]
        reasons = [reason for seat in seats if (reason := seat.status.get("not_ready"))]
        return "; ".join(reasons) if reasons and len(reasons) == len(seats) else None

    def progress(self) -> Mapping[str, Progress]:
        """Of the supervision of each worker: it watches over what happens inside."""
        return {f"supervision of worker {seat.number}": seat.progress() for seat in self._seats}

    def add_stream(self, config: StreamSettings) -> WorkerStream:
        """Begin a stream in the worker that has the fewest.

        Raises:
            EdgeError: as ``Pipeline.add_stream``.
        """
        with self._changing:
            if config.name in self.streams:
                raise ConfigError(f"a stream called {config.name!r} runs already; names must differ")
            self._plan((*self.config.streams, config))
            seat = self._roomiest()
            stream = WorkerStream(config, self._next_index(), seat, self._manifest_of)
            _empty_files([config])
            self.streams = {**self.streams, config.name: stream}
            self._offer_sound(stream)
            try:
                seat.add(stream)
            except EdgeError:
                self._forget(stream)
                raise
            self.config = self.config.with_stream(config)
        return stream

    def change_analytics(self, config: StreamSettings) -> None:
        """Watch other lines and zones in a stream; see ``Pipeline.change_analytics``."""
        with self._changing:
            stream = look_up("stream", config.name, self.streams)
            stream.seat.change(stream, config)
            self.config = self.config.with_stream(config)

    def switch(self, stream: str, part: SwitchPart, *, is_on: bool) -> None:
        """Switch analysis or recording of a stream on or off; see ``Pipeline.switch``."""
        known = look_up("stream", stream, self.streams)
        if self.switches.change(known.config, part, is_on=is_on):
            known.seat.tell_off(stream)

    def is_away(self, stream: str) -> bool:
        """Whether the camera of a stream is turned away from its home; see ``Pipeline.is_away``."""
        return stream in self._away

    def tell_away(self, stream: str, *, is_away: bool) -> None:
        """The camera of a stream is turned away, or is back; its worker is told, and the one that takes over."""
        known = self.streams.get(stream)
        if known is None:
            return
        with self._changing:
            self._away = self._away | {stream} if is_away else self._away - {stream}
        known.seat.tell_away(stream)

    def remove_stream(self, name: str) -> bool:
        """End a stream; see ``Pipeline.remove_stream``."""
        with self._changing:
            stream = look_up("stream", name, self.streams)
            has_ended = stream.seat.remove(name)
            self._forget(stream)
            self.config = self.config.without_stream(name)
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
        """Change a model in all workers: in the first one as in a single process, and where it is kept in the others.

        Raises:
            EdgeError: no model of this name runs, another swap is under way, or a worker is being started again.
        """
        from edge.daemon.workers.swap import PoolSwap

        look_up("model", name, self.models)
        if not self._swapping.acquire(blocking=False):
            raise EdgeError("another model swap is under way; wait for its end")
        try:
            seats = [seat for seat in self._seats if not seat.is_over]
            before = next(model for model in self.config.models if model.name == name)
            self._rehearse(before, path, renamed or {})
            swap = PoolSwap(seats, self.config.swap, before)
            report = swap.run(path, renamed or {}, has_trial=has_trial, on_phase=on_phase)
            if report.outcome == "kept":
                with self._changing:
                    self.config = self.config.with_model_file(name, path)
        finally:
            self._swapping.release()
        return report

    def _rehearse(self, before: ModelSettings, path: Path, renamed: Mapping[str, str]) -> None:
        """Run the clip tests with another file for a model; see ``Pipeline``."""
        classes = {"classes": list(self.models[before.name].manifest.classes), "renamed": dict(renamed)}
        self.rehearse(self.config.with_model_file(before.name, path), {before.name: classes})

    def heat(self, name: str) -> UInt8 | None:
        """Where objects spent their time in a stream; None where there is no heat map, or its worker is away."""
        stream = self.streams.get(name)
        process = None if stream is None else stream.seat.process
        if process is None:
            return None
        try:
            answer = process.link.ask("heat", HEAT_TIMEOUT_S, name=name)
        except EdgeError:
            return None
        if answer["place"] is None:
            return None
        data = process.memory.take(answer["place"], math.prod(answer["shape"]))
        drawn: UInt8 = np.frombuffer(data, np.uint8).reshape(answer["shape"])
        return drawn

    def facts(self) -> list[dict[str, Any]]:
        """What there is to say of each worker, as JSON values; asks them for newer ones."""
        now_s = time.monotonic()
        if now_s - self._looked_s > LOOK_EVERY_S:
            self._looked_s = now_s
            for process in [seat.process for seat in self._seats if seat.process is not None]:
                with suppress(EdgeError):
                    process.link.send("look", may_drop=True)
        return [_facts_of(seat) for seat in self._seats]

    # what the seats ask for

    def begin(self, place: WorkerSettings, streams: tuple[WorkerStream, ...]) -> ChildWorker:
        """Begin a process for a place, with these streams or with none."""
        process = ChildWorker(self._setup(streams), place, self._handle)
        self._living = {one for one in self._living if one.is_alive} | {process}
        return process

    def take_spare(self) -> ChildWorker | None:
        """The process that stands by, if it can do so."""
        spare, self._spare = self._spare, None
        if spare is not None and (spare.trouble() or not spare.heard.is_ready.is_set()):
            spare.kill()
            return None
        return spare

    def move_streams(self, seat: Seat) -> bool:
        """Give the streams of a worker that stays away to the others; False if there is none."""
        with self._changing:
            others = [other for other in self._seats if other is not seat and other.takes_streams]
            if not others:
                return False
            for stream in seat.take_all():
                target = self._roomiest()
                log.error("%s: moved from worker %d to worker %d", stream.name, seat.number, target.number)
                try:
                    target.add(stream)
                except EdgeError as error:
                    stream.refused = str(error)
                    log.error("%s: %s", stream.name, error)
        return True

    def off(self, stream: str) -> list[str]:
        """What is switched off of a stream."""
        return sorted(self.switches.off(stream))

    def demand(self, stream: str) -> Demand:
        """What viewers of a stream want now."""
        return Demand() if self._board is None else self._board.demand(stream)

    def _setup(self, streams: tuple[WorkerStream, ...]) -> Message:
        config = self.config
        num_cores = len(os.sched_getaffinity(0))
        threads = max(1, min(MAX_THREADS, num_cores // len(self._seats)))
        models = tuple(
            model if model.threads is not None else model.model_copy(update={"threads": threads})
            for model in config.models
        )
        raw = config.model_copy(update={"models": models}).model_dump(mode="json")
        return {
            "config": {**raw, "streams": [settings_of(stream) for stream in config.streams]},
            "streams": [stream.name for stream in streams],
            "indices": {stream.name: stream.index for stream in streams},
            "off": {stream.name: sorted(self.switches.off(stream.name)) for stream in streams},
            "log_level": logging.getLogger().level,
            "log_form": config.log.form,
        }

    def _deal(self) -> None:
        hands = deal(self.config.streams, len(self._seats))
        for seat, hand in zip(self._seats, hands, strict=True):
            seat.streams = {
                stream.name: WorkerStream(stream, self._next_index(), seat, self._manifest_of) for stream in hand
            }
        found = {name: stream for seat in self._seats for name, stream in seat.streams.items()}
        self.streams = {stream.name: found[stream.name] for stream in self.config.streams}

    def _begin_all(self) -> None:
        if self.config.watch_log is not None:
            # one key for all workers, before two of them make one
            folder = watch_folder(self.config).parent
            with suppress(OSError, EdgeError):
                folder.mkdir(parents=True, exist_ok=True)
                DeviceKey.made_in(folder)
        for seat in self._seats:
            seat.process = self.begin(seat.place, tuple(seat.streams.values()))
        for process in [seat.process for seat in self._seats if seat.process is not None]:
            process.wait_until_ready(self._stopping.is_set)
        self._plan(self.config.streams)
        _empty_files(self.config.streams)

    def _standings(self) -> Mapping[str, Standing]:
        stats = {name: stream.stats() for name, stream in self.streams.items()}
        return {
            name: Standing(
                str(said["state"]),
                tuple(said["health"]),  # type: ignore[arg-type]
                self.streams[name].counts_said,
                self.switches.off(name),
                has_recording=self.streams[name].config.record is not None,
            )
            for name, said in stats.items()
        }

    def _plan(self, streams: tuple[StreamSettings, ...]) -> None:
        """Refuse streams for which the memory that was allowed does not suffice, over all workers."""
        from edge.pipeline.memory_plan import plan_memory

        heard = [seat.process.heard for seat in self._seats if seat.process is not None]
        crops = heard[0].crop_models if heard else {}
        manifests = {**crops, **{name: model.manifest for name, model in self.models.items()}}
        config = self.config.model_copy(update={"streams": streams})
        num_processes = len(self._seats) + has_spare(self.config)
        plan_memory(config, manifests, num_processes).refuse_over(config.memory_budget_mb)

    def _manifest_of(self, stream: StreamSettings) -> Manifest:
        return self.models[self.config.model_of(stream).name].manifest

    def _roomiest(self) -> Seat:
        seats = [seat for seat in self._seats if not seat.is_over] or self._seats
        by_number = {seat.number: seat for seat in seats}
        return by_number[least_loaded({seat.number: len(seat.streams) for seat in seats})]

    def _next_index(self) -> int:
        if self._free_indices:
            return self._free_indices.pop()
        index = next(self._indices, None)
        if index is None:
            raise EdgeError(f"there are {MAX_STREAMS} streams already; expected no more in one daemon")
        return index

    def _forget(self, stream: WorkerStream) -> None:
        self.streams = {name: other for name, other in self.streams.items() if other is not stream}
        self._free_indices.append(stream.index)
        # one of its name that is added later counts as being home
        self._away = self._away - {stream.name}

    def _keep_spare(self, stopping: threading.Event) -> None:
        # what takes over has the processor first
        while not stopping.wait(SPARE_PAUSE_S):
            if self._spare is not None and not self._spare.trouble():
                continue
            try:
                spare = self.begin(self._seats[0].place, ())
                spare.wait_until_ready(stopping.is_set)
            except EdgeError as error:
                if not stopping.is_set():
                    log.error("the spare worker cannot begin: %s", error)
                stopping.wait(SPARE_RETRY_S)
            else:
                self._spare = spare

    def _offer_sound(self, stream: WorkerStream) -> None:
        """Let who looks at the page or by RTSP hear it."""
        if self._board is not None:
            self._board.set_sound(stream.name, stream.sound if stream.config.has_sound else None)

    def _note_demand(self, stream: str, demand: Demand) -> None:
        known = self.streams.get(stream)
        process = None if known is None else known.seat.process
        if known is not None and process is not None:
            process.memory.put_demand(known.index, demand)

    def _handle(self, process: ChildWorker, message: Message) -> None:
        """What a worker says that is not about itself; in the thread of its link."""
        match message["kind"]:
            case "events" | "snapshot":
                self._events.put((process.link, process.memory, message))
            case "show":
                if self._board is not None and message["stream"] in self.streams:
                    ShownPage(process.memory, self._board).show(message)
            case "video":
                if self._board is not None and message["stream"] in self.streams:
                    ShownPage(process.memory, self._board).show_video(message)
            case "sound form" | "sound":
                stream = self.streams.get(message["stream"])
                if stream is not None:
                    stream.sound.take_message(message)
            case "happened":
                self.on_event(Event(message["event"], message["stream"], 0, data=message["data"]))
            case "stream":
                self._note_stream(message)

    def _note_stream(self, message: Message) -> None:
        stream = self.streams.get(message["name"])
        if stream is not None:
            stream.stats_said, stream.summary_said = message["stats"], message["summary"]
            stream.recording = message["recording"] or stream.recording

    def _take_events(self) -> None:
        while (given := self._events.get()) is not None:
            self._taker.take(*given)

    def _kill_all(self) -> None:
        for process in list(self._living):
            process.kill()


class PoolOutputs:
    """Events and recordings of all workers; see ``edge.daemon.run.Outputs``."""

    def __init__(self, pool: WorkerPool, shared: SharedOutputs) -> None:
        self._pool = pool
        self._shared = shared

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values; the desk's counts are those of all workers."""
        events = self._shared.stats()["events"]
        facts = self._pool.facts()
        if isinstance(events, dict) and events:
            desk: Counter[str] = Counter()
            for worker in facts:
                desk.update(worker.pop("desk"))
            events = {**events, "desk": dict(desk)}
        recordings = {name: stream.recording for name, stream in self._pool.streams.items() if stream.recording}
        return {"events": events, "recordings": recordings, "workers": facts}

    def archive(self) -> Archive:
        """What the live page may show of the past: recordings are read from their folders."""
        return self._shared.archive(self._shelves)

    def report_event(self, event: Event) -> None:
        """Report an event that belongs to no frame."""
        self._shared.report_event(event)

    def flush_tracks(self, timeout_s: float) -> None:
        """Have each worker write what waits, for a question about what has just happened."""
        config = self._pool.config
        if config.track_store is not None:
            folder = tracks_path(config)
            have_written([folder / name for name in self._pool.streams if (folder / name).is_dir()], timeout_s)

    def _shelves(self) -> Mapping[str, Shelf]:
        from edge.recording.index import RecordingIndex
        from edge.server.recordings import Shelf

        shelves = {}
        for name, stream in self._pool.streams.items():
            if stream.config.record is None:
                continue
            index = RecordingIndex(stream.config.record.folder / name)
            with suppress(OSError):
                index.load()
            shelves[name] = Shelf(stream.config.record.folder / name, index.entries)
        return shelves


def _facts_of(seat: Seat) -> dict[str, Any]:
    process = seat.process
    heard = {} if process is None else process.heard.facts
    return {
        "number": seat.number,
        "pid": None if process is None else process.pid,
        "state": "lost" if seat.reason else "over" if seat.is_over else "running",
        "reason": seat.reason,
        "restarts": seat.restarts,
        "streams": list(seat.streams),
        "stuck": seat.status.get("stuck"),
        "process": heard.get("process", {}),
        "governor": heard.get("governor"),
        "track_store": heard.get("track_store"),
        "desk": heard.get("desk", {}),
    }


def _empty_files(streams: Iterable[StreamSettings]) -> None:
    """Begin the files of lines again, which the workers only append to: one that is replaced must not lose the rest."""
    from edge.sinks.choose import place_of

    for stream in streams:
        for spec in stream.sinks:
            kind, place = place_of(spec, stream.name)
            if kind == "jsonl" and place != "-":
                # who writes to it says why that does not work
                with suppress(OSError):
                    Path(place).open("w", encoding="utf-8").close()


def _try(act: Callable[[], object], failures: list[EdgeError]) -> None:
    try:
        act()
    except EdgeError as error:
        failures.append(error)
