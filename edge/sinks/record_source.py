"""Sink that records a camera's own packets: they come from capture, results only say what happened when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.errors import SinkError
from edge.recording.clips import ClipNames
from edge.recording.clock import RecordingClock
from edge.recording.recording import RecordingFolder
from edge.recording.retention import keep_of
from edge.recording.source_recorder import SourceRecorder
from edge.threads.worker import Worker
from edge.video.packets import Mark, PacketQueue

if TYPE_CHECKING:
    from edge.config.recording import RecordSettings
    from edge.metrics.clock import WallClock
    from edge.recording.disk import Disk
    from edge.recording.index import Recorded
    from edge.types import Result, UInt8

IDLE_S = 0.25
CLOSE_TIMEOUT_S = 15.0


class SourceRecordSink:
    """Records one stream as its camera sends it; see ``RecordSettings``.

    Args:
        settings: what is recorded, and where.
        stream: its name, the folder within ``settings.folder``.
        packets: what capture puts the packets into (closed here).
        late_s: how long after its packet a result may come; infinite where all of them come.
        clock: turns capture times into UTC; None goes by the device's, measured anew for each file.
        disk: how files are written.

    Raises:
        SinkError: the folder cannot be written.
    """

    def __init__(
        self,
        settings: RecordSettings,
        stream: str,
        packets: PacketQueue,
        *,
        late_s: float,
        clock: WallClock | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.name = f"record:{settings.folder / stream}"
        self._packets = packets
        self.folder = settings.folder / stream
        self._folder = RecordingFolder(
            self.folder,
            keep_of(settings),
            reserve_bytes=round(settings.reserve_mb * 2**20),
            disk=disk,
            clock=RecordingClock.of(clock),
        )
        self._recorder = SourceRecorder(settings, self._folder, late_s=late_s)
        self._clips = ClipNames(settings, self._folder, lambda: self._recorder.ended)
        self._told = ""
        self._worker = Worker(f"record {stream}", self._run)
        self._worker.start()

    def wants_picture(self) -> bool:
        return False

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        time_ns, captured_ns = result.frame.time_ns, result.frame.captured_ns
        kinds = tuple(event.kind for event in result.events)
        self._packets.mark(Mark(time_ns, captured_ns, kinds, self._clips.clip_for(result)))
        self._complain()

    def clip_of(self, result: Result) -> str | None:
        """The path of the clip that shows these events; None where there is none (continuous mode)."""
        clip = self._clips.clip_for(result)
        return None if clip is None else str(clip)

    def entries(self) -> tuple[Recorded, ...]:
        """The finished files in the order of their ends; any thread may ask."""
        return self._folder.index.entries

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        parts = (self._packets.counters, self._recorder.counters, self._folder.counters)
        return {"error": self._recorder.error, **{name: n for part in parts for name, n in part.snapshot().items()}}

    def close(self) -> None:
        self._packets.close()
        if not self._worker.join(CLOSE_TIMEOUT_S):
            self._worker.stop()
            raise SinkError(f"{self.name}: the last file was not finished within {CLOSE_TIMEOUT_S:g} s")
        self._complain()

    def _run(self, stopping: threading.Event) -> None:
        try:
            while not self._packets.is_finished and not stopping.is_set():
                item = self._packets.get(IDLE_S)
                if item is None:
                    self._recorder.idle()
                else:
                    self._recorder.take(item)
        finally:
            self._recorder.close()
            self._folder.close()

    def _complain(self) -> None:
        """Raise what went wrong in the thread, each thing once."""
        if self._worker.failure is not None:
            raise SinkError(f"{self.name}: recording has ended ({self._worker.failure})")
        error = self._recorder.error
        is_new = bool(error) and error != self._told
        self._told = error
        if is_new:
            raise SinkError(f"{self.name}: {error}; recording pauses")
