"""Which clip an event goes into: events that come close together share one, up to its longest length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.config.recording import RecordSettings
from edge.recording.cutter import GAP_S, NS_PER_S, Ended
from edge.recording.recording import RecordingFolder
from edge.types import Frame, Result


@dataclass(frozen=True, slots=True)
class _Seen:
    """A frame without its picture. ``size`` is (height, width) in pixels."""

    epoch: int
    seq: int
    time_ns: int
    size: tuple[int, int]


class ClipNames:
    """Names the clips of one stream. Used by one thread, which touches no disk here.

    Args:
        settings: of the recording.
        folder: finds unused names.
        ended: the newest clip whose file has ended, from the thread that writes the files.
        is_other_source: whether another opening of the camera is recorded than the one that is analysed.
    """

    def __init__(
        self,
        settings: RecordSettings,
        folder: RecordingFolder,
        ended: Callable[[], Ended | None],
        *,
        is_other_source: bool = False,
    ) -> None:
        self._settings = settings
        self._is_other_source = is_other_source
        self._folder = folder
        self._ended = ended
        self._seen: _Seen | None = None
        self._answer: Path | None = None
        self._clip: Path | None = None
        self._start_ns = 0
        self._until_ns = 0

    def clip_for(self, result: Result) -> Path | None:
        """The clip that shows the events of this result; None where it has none, and in continuous mode.

        Asked about every result in turn, because what lies between two events may end a clip; about the last one as
        often as one likes, always with the same answer.
        """
        if self._settings.mode != "events":
            return None
        frame = result.frame
        seen = _Seen(frame.epoch, frame.seq, frame.time_ns, (frame.height, frame.width))
        if seen != self._seen:
            if self._is_break(seen):
                self._clip = None
            self._seen = seen
            self._answer = self._clip_at(frame) if result.events else None
        return self._answer

    def _is_break(self, seen: _Seen) -> bool:
        """Whether the files end before this frame: known here at once, and in the other thread a moment later."""
        last = self._seen
        if self._is_other_source:
            # whatever happens to what is analysed, the files go on
            return False
        if last is None or seen.size != last.size:
            return True
        if self._settings.content == "source":
            # packets come also where no results do, so a silence between results says nothing
            return seen.epoch != last.epoch
        return not 0 < seen.time_ns - last.time_ns < GAP_S * NS_PER_S

    def _clip_at(self, frame: Frame) -> Path:
        time_ns = frame.time_ns
        is_running = self._start_ns <= time_ns <= self._until_ns and not self._has_ended(time_ns)
        if self._clip is None or not is_running or time_ns - self._start_ns > self._settings.segment_s * NS_PER_S:
            self._clip = self._folder.path_of(frame.captured_ns + self._folder.clock.offset_ns(), "clip")
            self._start_ns = time_ns
        self._until_ns = time_ns + round(self._settings.post_roll_s * NS_PER_S)
        return self._clip

    def _has_ended(self, time_ns: int) -> bool:
        """Whether the clip's file has ended before this time: reconnect, silence, a disk that failed, …"""
        ended = self._ended()
        return ended is not None and ended.clip == self._clip and time_ns > ended.last_ns
