"""Cuts coded pictures into files: continuous segments, or clips that begin before their event. Encodes nothing."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av

from edge.config.recording import RecordSettings
from edge.errors import SinkError
from edge.metrics.counters import Counters
from edge.recording.boxes import BoxNotes
from edge.recording.fragments import FragmentFile
from edge.recording.recording import RecordingFolder
from edge.video.encoder import TICKS_PER_S, Packet, VideoForm
from edge.video.packets import EventMark

log = logging.getLogger(__name__)
# a fragment is written when the next one begins: the rest of fragment_s is for that picture, the encoder and the disk
KEY_SHARE = 0.75
# a longer silence ends the file, so that the next one says when it really began
GAP_S = 5.0
RETRY_S = 5.0
# of one file; the outbox has them all
MAX_LISTED_EVENTS = 200
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Coded:
    """A packet with its place in time: the stream's time, and ``time.monotonic_ns()`` of its capture."""

    packet: Packet
    time_ns: int
    captured_ns: int
    is_sound: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A clip whose file has ended, by the name that its events were given, and the stream's time of its last packet."""

    clip: Path
    last_ns: int


class PreRoll:
    """The last packets, from a key picture on: at least ``length_ns`` of them, at most ``max_bytes``."""

    def __init__(self, length_ns: int, max_bytes: int) -> None:
        self._length_ns = length_ns
        self._max_bytes = max_bytes
        self._groups: deque[list[Coded]] = deque()
        self.num_bytes = 0

    def add(self, coded: Coded) -> None:
        if coded.packet.is_key:
            self._groups.append([])
        if not self._groups:
            return
        self._groups[-1].append(coded)
        self.num_bytes += len(coded.packet.data)
        oldest_needed = coded.time_ns - self._length_ns
        while len(self._groups) > 1 and (
            self._groups[1][0].time_ns <= oldest_needed or self.num_bytes > self._max_bytes
        ):
            self._drop()
        if self.num_bytes > self._max_bytes:
            self.clear()

    def packets(self, since_ns: int) -> list[Coded]:
        """All from the last key picture on that is not later than ``since_ns``, or from the first that is kept."""
        groups = list(self._groups)
        while len(groups) > 1 and groups[1][0].time_ns <= since_ns:
            del groups[0]
        return [coded for group in groups for coded in group]

    def clear(self) -> None:
        self._groups.clear()
        self.num_bytes = 0

    def _drop(self) -> None:
        self.num_bytes -= sum(len(coded.packet.data) for coded in self._groups.popleft())


class Cutter:
    """Used by one thread. A disk that is full or broken pauses the recording; it goes on by itself.

    Args:
        settings: what is wanted.
        folder: where files go.
        late_s: how long after a packet a mark of the same time may come; infinite where all of them come.
        max_fragment_s: see ``FragmentFile``.
        wait_s: how long an event's clip waits for packets that are not there yet, because their source is being opened.
        clock_s: clock of the pauses.

    Attributes:
        counters: ``frames`` written, ``frames_lost`` while paused, ``write_errors``.
        error: why recording pauses, empty while all is well.
        seen_ns: the time of the newest result; a clip does not end before it is past its end.
        ended: the newest clip whose file has ended; any thread may read it.
    """

    def __init__(
        self,
        settings: RecordSettings,
        folder: RecordingFolder,
        *,
        late_s: float = 0.0,
        max_fragment_s: float | None = None,
        wait_s: float = 0.0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._late_s = late_s
        self._max_fragment_s = max_fragment_s
        self._wait_ns = round(wait_s * NS_PER_S)
        self._clock_s = clock_s
        self._is_continuous = settings.mode == "continuous"
        # where marks are late, what was before their time must still be there
        length_s = settings.pre_roll_s + (late_s if late_s != float("inf") else 0.0)
        self._pre_roll = PreRoll(round(length_s * NS_PER_S), round(settings.pre_roll_mb * 2**20))
        self._form: VideoForm | None = None
        self._file: FragmentFile | None = None
        self._path: Path | None = None
        self._first_ns = 0
        self._zero_ns = 0
        self._boxes = BoxNotes()
        self._last_ns = 0
        self._offset_ns = 0
        self._until_ns = 0
        self._wanted: EventMark | None = None
        self._events: list[tuple[int, str]] = []
        self._paused_until_s = float("-inf")
        self.counters: Counters[str] = Counters()
        self.error = ""
        self.seen_ns = -1
        self.ended: Ended | None = None

    def begin(self, form: VideoForm) -> None:
        """Packets of another form, or after a gap, follow; the first of them is a key picture."""
        self.end()
        self._form = form

    def end(self) -> None:
        """Finish what is open: no packet follows the last one without a gap."""
        if self._wanted is not None and not self._is_paused:
            # the event came with the last pictures
            self._attempt(lambda: self._begin_clip(None))
        if not self._wait_ns:
            self._wanted = None
        self._end_file()
        self._pre_roll.clear()

    def forget(self) -> None:
        """Finish what is open, and keep nothing for later: recording is switched off."""
        self.end()
        self._wanted, self._events = None, []

    def close(self) -> None:
        """Finish what is open, for the last time."""
        self.end()
        self._boxes.write()

    def mark(self, mark: EventMark) -> None:
        """Note what a result has shown."""
        self.seen_ns = max(self.seen_ns, mark.time_ns)
        if mark.boxes:
            self._boxes.add(mark.boxes_ns or mark.time_ns, mark.boxes)
        if mark.clip is not None and not self._has_shown(mark):
            self._until_ns = mark.time_ns + round(self._settings.post_roll_s * NS_PER_S)
            known = self._path if self._file is not None else None if self._wanted is None else self._wanted.clip
            if mark.clip != known:
                self._attempt(self._end_file)
                self._wanted, self._events = mark, []
        if (self._file is not None or self._wanted is not None) and len(self._events) < MAX_LISTED_EVENTS:
            self._events += [(mark.captured_ns, kind) for kind in mark.events]

    def take(self, coded: Coded) -> None:
        """Write the next packet to where it belongs, or keep it for the pre-roll."""
        self._attempt(lambda: self._write_to_its_file(coded))
        if not self._is_continuous:
            self._pre_roll.add(coded)

    def _write_to_its_file(self, coded: Coded) -> None:
        if self._is_over(coded):
            self._end_file()
            self._forget_wanted(coded.time_ns)
        if self._file is None and not self._is_paused:
            if self._wanted is not None:
                self._begin_clip(coded)
            elif self._is_continuous and coded.packet.is_key:
                self._events = []
                wall_ns = coded.captured_ns + self._folder.clock.offset_ns()
                self._begin(self._folder.path_of(wall_ns, "segment"), coded.captured_ns)
        self._write(coded)

    def _is_over(self, coded: Coded) -> bool:
        """Whether a segment is long enough, or a clip's time is past and no result can prolong it."""
        if self._is_continuous:
            if self._file is None or not coded.packet.is_key:
                return False
            return (coded.packet.pts - self._file.first_pts) / TICKS_PER_S >= self._settings.segment_s
        is_certain = self.seen_ns > self._until_ns or coded.time_ns - self._until_ns > self._late_s * NS_PER_S
        return coded.time_ns > self._until_ns and is_certain

    def _forget_wanted(self, time_ns: int) -> None:
        """An event's time is past; where its packets may come late, it waits for the first of them."""
        if self._wanted is not None and time_ns - self._wanted.time_ns <= self._wait_ns:
            self._until_ns = time_ns + round(self._settings.post_roll_s * NS_PER_S)
        else:
            self._wanted = None

    def _begin_clip(self, coded: Coded | None) -> None:
        """Begin the wanted clip with what was before its event, if a key picture is there."""
        mark = self._wanted
        assert mark is not None
        before = self._pre_roll.packets(mark.time_ns - round(self._settings.pre_roll_s * NS_PER_S))
        if mark.clip is None or not (before or (coded is not None and coded.packet.is_key)):
            return
        first = before[0] if before else coded
        assert first is not None
        if self._wait_ns and not before:
            # what its opening took is not taken from what it shows
            self._until_ns = max(self._until_ns, first.time_ns + round(self._settings.post_roll_s * NS_PER_S))
        self._begin(mark.clip, first.captured_ns)
        self._wanted = None
        for earlier in before:
            self._write(earlier)

    def _has_shown(self, mark: EventMark) -> bool:
        """Whether a result comes so late that its clip is a finished file, and shows it."""
        return self.ended is not None and mark.clip == self.ended.clip and mark.time_ns <= self.ended.last_ns

    def _begin(self, path: Path, first_ns: int) -> None:
        assert self._form is not None
        self._file = self._folder.create(path, self._form, self._max_fragment_s)
        self._path, self._first_ns = path, first_ns
        # again for each file, so that a clock that was set is believed from the next one on
        self._offset_ns = self._folder.clock.offset_ns()
        if self.error:
            log.info("record: %s: recording goes on", path.parent.name)
        self.error = ""

    def _write(self, coded: Coded) -> None:
        if self._file is None:
            if self._is_paused:
                self.counters.add("frames_lost")
            return
        before = self._file.num_bytes
        if coded.is_sound:
            self._file.add_sound(coded.packet)
        else:
            self._add_picture(self._file, coded)
        if self._file.num_bytes != before:
            # adding this packet wrote the fragment before it
            self._file.sync()
            self._folder.check_room()

    def _add_picture(self, file: FragmentFile, coded: Coded) -> None:
        file.add(coded.packet)
        self._last_ns = coded.time_ns
        # a packet that was late says nothing about when the file began
        media_ns = (coded.packet.pts - file.first_pts) * NS_PER_S // TICKS_PER_S
        zero_ns = coded.time_ns - media_ns
        self._zero_ns = zero_ns if file.num_frames == 1 else min(self._zero_ns, zero_ns)
        self.counters.add("frames")

    @property
    def _is_paused(self) -> bool:
        return self._clock_s() < self._paused_until_s

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is None or self._form is None:
            return
        if self._path is not None:
            self.ended = Ended(self._path, self._last_ns)
        kind = "segment" if self._is_continuous else "clip"
        events = [(captured_ns + self._offset_ns, what) for captured_ns, what in self._events]
        try:
            path = self._folder.finish(file, self._first_ns + self._offset_ns, kind, self._form, events)
        except (SinkError, OSError) as error:
            self._pause(error)
        else:
            if path is not None:
                self._boxes.end_file(path, self._zero_ns, self._last_ns)

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except (SinkError, av.error.FFmpegError, OSError) as error:
            self._pause(error)

    def _pause(self, error: Exception) -> None:
        """Keep what is whole, and try again later."""
        self.counters.add("write_errors")
        self._paused_until_s = self._clock_s() + RETRY_S
        if not self.error:
            log.error("record: %s; recording pauses", error)
        self.error = str(error)
        self._end_file()
