"""The place of one worker: its streams, the process that runs them now, and what happens when that is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from edge.daemon.workers.process import ChildWorker
from edge.daemon.workers.sounds import SoundElsewhere
from edge.errors import EdgeError
from edge.pipeline.progress import Progress
from edge.threads.backoff import Backoff

if TYPE_CHECKING:
    from edge.config.schema import StreamSettings
    from edge.config.workers import WorkerSettings
    from edge.daemon.workers.link import Message
    from edge.models.manifest import Manifest
    from edge.server.published import Demand

log = logging.getLogger(__name__)
POLL_S = 0.05
RETRY_BASE_S, RETRY_CAP_S = 0.2, 30.0
# a worker that lived so long is started again at once
STABLE_S = 30.0
# after so many attempts in a row that did not even load, its streams are moved
MAX_ATTEMPTS = 4
# of one that cannot infer any more: its recordings end as they should
SICK_STOP_S, SICK_GRACE_S = 1.0, 1.0
ADD_TIMEOUT_S = 40.0
SUPERVISION_LIMIT_S = 60.0


class WorkerStream:
    """One stream in a worker, as the daemon sees it; see ``edge.daemon.run.RunningStream``.

    Attributes:
        config: of the stream.
        index: its row in the memory of the page.
        seat: the worker that has it.
        sound: what its camera hears, for who listens here.
        stats_said, summary_said, recording: what its worker said last.
    """

    def __init__(
        self, config: StreamSettings, index: int, seat: Seat, manifest_of: Callable[[StreamSettings], Manifest]
    ) -> None:
        self.config = config
        self._manifest_of = manifest_of
        self.index = index
        self.seat = seat
        self.sound = SoundElsewhere(self._tell_heard)
        self.stats_said: dict[str, Any] = {}
        self.summary_said: dict[str, Any] = {}
        self.recording: dict[str, Any] | None = None
        # why its worker does not take it, empty where it does
        self.refused = ""

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def manifest(self) -> Manifest:
        """Of its model."""
        return self._manifest_of(self.config)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its pictures; zeros before they are known."""
        return self.stats_said.get("width", 0), self.stats_said.get("height", 0)

    @property
    def counts_said(self) -> Mapping[str, Any] | None:
        """Of its lines and zones; None where they are not known yet."""
        watched, said = self.config.analytics, self.stats_said.get("analytics")
        return said or (None if watched.lines or watched.zones else {})

    @property
    def num_emitted(self) -> int:
        said = self.summary_said.get("counts", {}).get("emitted", 0)
        return max(int(said), int(self.seat.status.get("emitted", {}).get(self.name, 0)))

    @property
    def num_frames(self) -> int | None:
        length: int | None = self.seat.status.get("lengths", {}).get(self.name)
        return length

    def _tell_heard(self, is_heard: bool) -> None:
        process = self.seat.process
        if process is not None:
            process.memory.heard[self.index] = is_heard

    def stats(self) -> dict[str, object]:
        said = {**EMPTY_STATS, **self.stats_said, "worker": self.seat.number}
        reason = self.refused or self.seat.reason
        return {**said, "state": "backing_off", "reason": reason, "fps_in": 0.0, "fps_out": 0.0} if reason else said

    def summary(self) -> dict[str, Any]:
        return {**EMPTY_SUMMARY, **self.summary_said}


EMPTY_STATS: dict[str, Any] = {
    "state": "connecting",
    "reason": "",
    "health": [],
    "switched_off": [],
    "width": 0,
    "height": 0,
    "decoder": "",
    "sound": False,
    "counts": {},
    "fps_in": 0.0,
    "fps_out": 0.0,
    "age_median_ms": 0.0,
    "age_p99_ms": 0.0,
    "stages": {},
    "parts": {},
    "analytics": {},
    "analytics_fault": "",
}
EMPTY_SUMMARY: dict[str, Any] = {
    "counts": {},
    "tally": {"tracks": 0, "tracks_by_class": {}, "lines": {}, "zones": {}},
    "fault": "",
    "age_median_ms": 0.0,
    "age_p99_ms": 0.0,
}


class Owner(Protocol):
    """What a seat asks of the pool."""

    def begin(self, place: WorkerSettings, streams: tuple[WorkerStream, ...]) -> ChildWorker: ...
    def take_spare(self) -> ChildWorker | None: ...
    def move_streams(self, seat: Seat) -> bool: ...
    def demand(self, stream: str) -> Demand: ...
    def off(self, stream: str) -> list[str]: ...
    def is_away(self, stream: str) -> bool: ...


class Seat:
    """Supervised by a thread of its own: ``run``. Orders may come from any thread.

    Attributes:
        number: from 1 on.
        place: where its worker runs.
        streams: by name; replaced as a whole.
        process: None while it is lost.
        reason: why its streams give nothing now, empty while they do.
        restarts: how often its process was replaced.
        is_over: its streams have come to their end, or were moved.
        failure: what ends the run.
    """

    def __init__(self, number: int, place: WorkerSettings, owner: Owner) -> None:
        self.number = number
        self.place = place
        self.streams: dict[str, WorkerStream] = {}
        self.process: ChildWorker | None = None
        self.reason = ""
        self.restarts = 0
        self.is_over = False
        self.failure: EdgeError | None = None
        self._owner = owner
        # held while its process is another one, and while an order is carried out
        self._lock = threading.RLock()
        self._backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        self._num_looks = 0

    @property
    def status(self) -> Message:
        """What its process said last."""
        process = self.process
        return {} if process is None else process.heard.status

    @property
    def takes_streams(self) -> bool:
        return self.process is not None and not self.is_over

    def progress(self) -> Progress:
        """Of the supervision, for the daemon's own watchdog."""
        return Progress(self._num_looks, not self.is_over, SUPERVISION_LIMIT_S)

    def go(self) -> None:
        """Let the streams begin that its process was begun with.

        Raises:
            EdgeError: a file is no video, a sink cannot be written.
        """
        assert self.process is not None
        self.process.link.ask("go", ADD_TIMEOUT_S)

    def add(self, stream: WorkerStream) -> None:
        """Begin a stream here; where the process is lost it begins with the next one.

        Raises:
            EdgeError: it cannot begin.
        """
        with self._lock:
            stream.seat = self
            self.streams = {**self.streams, stream.name: stream}
            try:
                if self.process is not None:
                    self._tell_of(self.process, stream)
            except EdgeError:
                self._forget(stream.name)
                raise

    def change(self, stream: WorkerStream, config: StreamSettings) -> None:
        """Watch other lines and zones in a stream that goes on.

        Raises:
            EdgeError: they cannot work: nothing was changed.
        """
        with self._lock:
            if self.process is not None:
                self.process.link.ask("watch", ADD_TIMEOUT_S, stream=settings_of(config))
            stream.config = config

    def tell_off(self, name: str) -> None:
        """Say what is switched off of a stream; does not wait. Where the process is lost, the next one is told."""
        process = self.process
        if process is not None:
            with suppress(EdgeError):
                process.link.send("off", name=name, off=self._owner.off(name))

    def tell_away(self, name: str) -> None:
        """Say whether the camera of a stream is turned away; does not wait. See ``tell_off``."""
        process = self.process
        if process is not None:
            with suppress(EdgeError):
                process.link.send("away", name=name, is_away=self._owner.is_away(name))

    def remove(self, name: str) -> bool:
        """End a stream. Whether all its parts ended in time."""
        with self._lock:
            self._forget(name)
            if self.process is None:
                return True
            return bool(self.process.link.ask("remove", ADD_TIMEOUT_S, name=name)["has_ended"])

    def take_all(self) -> list[WorkerStream]:
        """Its streams, which are not its own any more."""
        with self._lock:
            streams, self.streams = list(self.streams.values()), {}
            self.is_over = True
        return streams

    def run(self, stopping: threading.Event) -> None:
        """Replace the process whenever it is lost, until asked to stop or until its streams have ended."""
        while not stopping.wait(POLL_S):
            self._num_looks += 1
            process = self.process
            if process is None or process.has_ended:
                self.is_over = True
                return
            trouble = process.trouble()
            if trouble:
                self._replace(process, trouble, stopping)
            if self.is_over or self.failure is not None:
                return

    def stop(self, seconds: float) -> bool:
        """Drain and end the process; after ``run``."""
        process = self.process
        return process is None or process.has_ended or process.stop(seconds)

    def _replace(self, lost: ChildWorker, trouble: str, stopping: threading.Event) -> None:
        is_sick = lost.is_sick
        if not is_sick:
            self.process = None
            lost.kill()
        self.reason = f"worker {self.number}: {trouble}"
        log.error("worker %d: %s; a new one takes over %s", self.number, trouble, ", ".join(self.streams) or "nothing")
        files = [stream.name for stream in self.streams.values() if stream.config.is_lossless]
        if files:
            # what was read of it cannot be read again without coming out twice
            self.failure = EdgeError(f"{self.reason}; {files[0]} is no camera and cannot go on")
            return
        if time.monotonic() - lost.started_s > STABLE_S:
            self._backoff.reset()
        try:
            new = self._owner.take_spare() or self._next(stopping)
            if new is not None:
                self._change(lost if is_sick else None, new)
        finally:
            if lost is not self.process:
                lost.kill()

    def _next(self, stopping: threading.Event) -> ChildWorker | None:
        """A process whose models are loaded; None where it stops, or where the streams were moved."""
        num_attempts = 0
        while not self._waits(stopping, self._backoff.next_delay_s()):
            try:
                new = self._owner.begin(self.place, ())
                new.wait_until_ready(lambda: self._notes(stopping))
            except EdgeError as error:
                num_attempts += 1
                self.reason = f"worker {self.number}: {error}"
                log.error("worker %d cannot begin: %s", self.number, error)
            else:
                return new
            if num_attempts >= MAX_ATTEMPTS and self._owner.move_streams(self):
                return None
        return None

    def _change(self, sick: ChildWorker | None, new: ChildWorker) -> None:
        """Let the streams go on in another process."""
        with self._lock:
            if sick is not None:
                self.process = None
                sick.stop(SICK_STOP_S, SICK_GRACE_S)
            self.process = new
            self.restarts += 1
            try:
                self.go()
                for stream in self.streams.values():
                    self._begin_again(new, stream)
            except EdgeError as error:
                # lost again: the next look sees it
                log.error("worker %d: %s", self.number, error)
                return
            self.reason = ""
        log.info("worker %d: process %d has taken over", self.number, new.pid)

    def _begin_again(self, process: ChildWorker, stream: WorkerStream) -> None:
        stream.refused = ""
        try:
            self._tell_of(process, stream)
        except EdgeError as error:
            if not process.is_alive:
                raise
            stream.refused = str(error)
            log.error("%s: %s", stream.name, error)

    def _tell_of(self, process: ChildWorker, stream: WorkerStream) -> None:
        process.memory.put_demand(stream.index, self._owner.demand(stream.name))
        process.memory.heard[stream.index] = stream.sound.is_heard
        off = self._owner.off(stream.name)
        process.link.ask("add", ADD_TIMEOUT_S, stream=settings_of(stream.config), index=stream.index, off=off)
        # it may be another by now
        process.link.send("off", name=stream.name, off=self._owner.off(stream.name))
        process.link.send("away", name=stream.name, is_away=self._owner.is_away(stream.name))

    def _forget(self, name: str) -> None:
        self.streams = {key: stream for key, stream in self.streams.items() if key != name}

    def _waits(self, stopping: threading.Event, seconds: float) -> bool:
        """Wait, and whether it stops meanwhile."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0 and not self._notes(stopping):
            stopping.wait(min(left_s, 1.0))
        return stopping.is_set()

    def _notes(self, stopping: threading.Event) -> bool:
        self._num_looks += 1
        return stopping.is_set()


def settings_of(stream: StreamSettings) -> dict[str, Any]:
    """A stream as JSON values. Its password stands in its addresses by now."""
    bare = stream.model_copy(update={"username": None, "password_file": None})
    settings: dict[str, Any] = bare.model_dump(mode="json")
    return settings
