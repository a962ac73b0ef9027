"""Sink that records a stream, its pictures or its camera's own packets, in a thread that writes the files."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from edge.errors import SinkError
from edge.recording.clips import ClipNames
from edge.recording.clock import RecordingClock
from edge.recording.recorder import Recorder
from edge.recording.recording import RecordingFolder
from edge.recording.retention import keep_of
from edge.recording.shots import SHOT_CAPACITY, ShotQueue
from edge.recording.source_recorder import SourceRecorder
from edge.threads.worker import Worker
from edge.video.encoder import find_encoder
from edge.video.packets import EventMark, PacketQueue

if TYPE_CHECKING:
    from edge.config.recording import RecordSettings
    from edge.metrics.clock import WallClock
    from edge.recording.disk import Disk
    from edge.recording.index import Recorded
    from edge.threads.drop_queue import HandOver, Item
    from edge.types import Result, UInt8

IDLE_S = 0.25
CLOSE_TIMEOUT_S = 15.0
# how long a clip waits for another source to be opened
OPENING_S = 10.0
FALLBACK_FPS = 30.0
Taken_contra = TypeVar("Taken_contra", contravariant=True)


class Taker(Protocol[Taken_contra]):
    """What a recorder does with the items of its queue."""

    def take(self, item: Taken_contra, /) -> None: ...
    def pass_over(self, item: Taken_contra | None, /) -> None: ...
    def idle(self) -> None: ...
    def close(self) -> None: ...


class RecordSink:
    """Records one stream; see ``RecordSettings``.

    Args:
        settings: what is recorded, and where.
        stream: its name, the folder within ``settings.folder``.
        fps: nominal frame rate, 0 where unknown.
        is_lossless: whether a full queue makes the stream wait (files) instead of dropping its oldest picture.
        packets: what capture puts the camera's own packets into (closed here); None records pictures.
        late_s: how long after its packet a result may come; infinite where all of them come.
        found: what a result found, as JSON that is kept next to the camera's own packets; None: nothing is.
        need: where the packets are those of another opening, told of each event: for how many seconds they are needed.
        is_on: says whether it is switched on now; while it is not, nothing is kept, not even for a later clip.
        taken_ns: when the picture was taken that came from the decoder then, in the time of the packets; None: then.
        clock: turns capture times into UTC; None goes by the device's, measured again for each file.
        disk: how files are written.

    Attributes:
        folder: where the files of this stream lie.

    Raises:
        SinkError: the folder cannot be written.
        MissingError: there is no encoder.
    """

    takes_unseen = True

    def __init__(
        self,
        settings: RecordSettings,
        stream: str,
        *,
        fps: float = 0.0,
        is_lossless: bool = False,
        packets: PacketQueue | None = None,
        late_s: float = math.inf,
        found: Callable[[Result], str] | None = None,
        need: Callable[[float], None] | None = None,
        taken_ns: Callable[[int], int] | None = None,
        is_on: Callable[[], bool] = lambda: True,
        clock: WallClock | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.folder = settings.folder / stream
        self.name = f"record:{self.folder}"
        self._content = settings.content
        self._folder = RecordingFolder(
            self.folder,
            keep_of(settings),
            reserve_bytes=round(settings.reserve_mb * 2**20),
            disk=disk,
            clock=RecordingClock.of(clock),
        )
        self._queue: ShotQueue | PacketQueue
        self._recorder: Recorder | SourceRecorder
        if packets is None:
            self._queue = shots = ShotQueue(SHOT_CAPACITY, is_lossless=is_lossless)
            self._recorder = pictures = Recorder(
                settings, self._folder, find_encoder(), fps if fps > 0 else FALLBACK_FPS
            )
            run = partial(_record, shots, pictures, self._folder, is_on)
        else:
            self._queue = packets
            self._recorder = source = SourceRecorder(
                settings, self._folder, late_s=late_s, wait_s=0.0 if need is None else OPENING_S
            )
            run = partial(_record, packets, source, self._folder, is_on)
        self._is_on = is_on
        self._found = found
        self._need = need
        self._taken_ns = taken_ns
        self._post_roll_s = settings.post_roll_s
        is_other = need is not None
        self._clips = ClipNames(settings, self._folder, lambda: self._recorder.ended, is_other_source=is_other)
        self._told = ""
        self._worker = Worker(f"record {stream}", run)
        self._worker.start()

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        if not self._is_on():
            self._raise_once()
            return
        frame, kinds = result.frame, tuple(event.kind for event in result.events)
        found_ns = 0 if self._taken_ns is None else self._taken_ns(frame.captured_ns)
        found = "" if self._found is None else self._found(result)
        mark = EventMark(frame.time_ns, frame.captured_ns, kinds, self._clips.clip_for(result), found, found_ns)
        if kinds and self._need is not None:
            self._need(self._post_roll_s)
        if isinstance(self._queue, PacketQueue):
            self._queue.mark(mark)
        else:
            # what capture lent us must go back, so the plain picture is copied; the annotated one is nobody else's
            self._queue.add(picture() if self._content == "annotated" else frame.planes.bgr_copy(), mark)
        self._raise_once()

    def clip_of(self, result: Result) -> str | None:
        """The path of the clip or recording that shows these events; None where there is none (continuous, off)."""
        if not self._is_on():
            return None
        clip = self._clips.clip_for(result)
        return None if clip is None else str(clip)

    def entries(self) -> tuple[Recorded, ...]:
        """The finished files in the order of their ends; any thread may ask."""
        return self._folder.index.entries

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        parts = (self._queue.counters, self._recorder.counters, self._folder.counters)
        return {"error": self._recorder.error, **{name: n for part in parts for name, n in part.snapshot().items()}}

    def close(self) -> None:
        self._queue.close()
        if not self._worker.join(CLOSE_TIMEOUT_S):
            self._worker.stop()
            raise SinkError(f"{self.name}: the last file was not finished within {CLOSE_TIMEOUT_S:g} s")
        self._raise_once()

    def _raise_once(self) -> None:
        """Raise what went wrong in the thread, each thing once."""
        if self._worker.failure is not None:
            raise SinkError(f"{self.name}: recording has ended ({self._worker.failure})")
        error = self._recorder.error
        is_new = bool(error) and error != self._told
        self._told = error
        if is_new:
            raise SinkError(f"{self.name}: {error}; recording pauses")


def _record(
    queue: HandOver[Item],
    recorder: Taker[Item],
    folder: RecordingFolder,
    is_on: Callable[[], bool],
    stopping: threading.Event,
) -> None:
    """What the thread does: everything that waits goes to the recorder, then the files are finished."""
    try:
        while not queue.is_finished and not stopping.is_set():
            item = queue.get(IDLE_S)
            if not is_on():
                recorder.pass_over(item)
            elif item is None:
                recorder.idle()
            else:
                recorder.take(item)
    finally:
        recorder.close()
        folder.close()
