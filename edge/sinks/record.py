"""Sink that records a stream: pictures go to a thread of its own, which encodes them and writes the files."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.errors import SinkError
from edge.metrics.counters import Counters
from edge.recording.clips import ClipNames
from edge.recording.clock import RecordingClock
from edge.recording.recorder import Recorder, Shot
from edge.recording.recording import RecordingFolder
from edge.recording.retention import keep_of
from edge.threads.drop_queue import DropQueue
from edge.threads.worker import Worker
from edge.video.encoder import find_encoder

if TYPE_CHECKING:
    from edge.config.recording import RecordSettings
    from edge.metrics.clock import WallClock
    from edge.recording.disk import Disk
    from edge.recording.index import Recorded
    from edge.types import Result, UInt8

# whole pictures: 8 of 720p are 22 MB
CAPACITY = 8
IDLE_S = 0.25
CLOSE_TIMEOUT_S = 15.0
FALLBACK_FPS = 30.0


class RecordSink:
    """Records one stream; see ``RecordSettings``.

    Args:
        settings: what is recorded, and where.
        stream: its name, the folder within ``settings.folder``.
        fps: nominal frame rate, 0 where unknown.
        is_lossless: whether a full queue makes the stream wait (files) instead of dropping its oldest picture.
        clock: turns capture times into UTC; None goes by the device's, measured anew for each file.
        disk: how files are written.

    Attributes:
        counters: ``dropped`` pictures, because encoding was too slow.

    Raises:
        SinkError: the folder cannot be written.
        MissingError: there is no encoder.
    """

    def __init__(
        self,
        settings: RecordSettings,
        stream: str,
        *,
        fps: float,
        is_lossless: bool = False,
        clock: WallClock | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.name = f"record:{settings.folder / stream}"
        self._settings = settings
        self.folder = settings.folder / stream
        self._folder = RecordingFolder(
            self.folder,
            keep_of(settings),
            reserve_bytes=round(settings.reserve_mb * 2**20),
            disk=disk,
            clock=RecordingClock.of(clock),
        )
        self._recorder = Recorder(settings, self._folder, find_encoder(), fps if fps > 0 else FALLBACK_FPS)
        self.counters: Counters[str] = Counters()
        self._shots: DropQueue[Shot] = DropQueue(CAPACITY, is_lossless=is_lossless, on_drop=self._on_drop)
        self._clips = ClipNames(settings, self._folder, lambda: self._recorder.ended)
        self._carried: Shot | None = None
        self._told = ""
        self._worker = Worker(f"record {stream}", self._run)
        self._worker.start()

    def wants_picture(self) -> bool:
        return self._settings.content == "annotated"

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        # what capture lent us must go back, so the plain picture is copied; the annotated one is nobody else's
        image = picture() if self.wants_picture() else result.frame.image.copy()
        time_ns, captured_ns = result.frame.time_ns, result.frame.captured_ns
        kinds = tuple(event.kind for event in result.events)
        shot = Shot(image, time_ns, captured_ns, kinds, self._clips.clip_for(result))
        self._shots.put(self._with_carried(shot))
        self._complain()

    def clip_of(self, result: Result) -> str | None:
        """The path of the clip or recording that shows these events; None where there is none (continuous mode)."""
        clip = self._clips.clip_for(result)
        return None if clip is None else str(clip)

    def entries(self) -> tuple[Recorded, ...]:
        """The finished files in the order of their ends; any thread may ask."""
        return self._folder.index.entries

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        counts = {**self.counters.snapshot(), **self._recorder.counters.snapshot(), **self._folder.counters.snapshot()}
        return {"error": self._recorder.error, **counts}

    def close(self) -> None:
        self._shots.close()
        if not self._worker.join(CLOSE_TIMEOUT_S):
            self._worker.stop()
            raise SinkError(f"{self.name}: the last file was not finished within {CLOSE_TIMEOUT_S:g} s")
        self._complain()

    def _run(self, stopping: threading.Event) -> None:
        try:
            while not self._shots.is_finished and not stopping.is_set():
                shot = self._shots.get(IDLE_S)
                if shot is not None:
                    self._recorder.add(shot)
        finally:
            self._recorder.close()
            self._folder.close()

    def _on_drop(self, shot: Shot) -> None:
        self.counters.add("dropped")
        if shot.clip is not None:
            self._carried = shot

    def _with_carried(self, shot: Shot) -> Shot:
        """A dropped picture leaves its clip to the next one."""
        carried, self._carried = self._carried, None
        if carried is None or shot.clip is not None:
            return shot
        return Shot(shot.image, shot.time_ns, shot.captured_ns, carried.events, carried.clip)

    def _complain(self) -> None:
        """Raise what went wrong in the thread, each thing once."""
        if self._worker.failure is not None:
            raise SinkError(f"{self.name}: recording has ended ({self._worker.failure})")
        error = self._recorder.error
        is_new = bool(error) and error != self._told
        self._told = error
        if is_new:
            raise SinkError(f"{self.name}: {error}; recording pauses")
