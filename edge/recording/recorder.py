"""Turns the pictures of one stream into files: continuous segments, or clips that begin before their event.

Shape letters: H W frame pixels.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av

from edge.errors import SinkError
from edge.metrics import Counters
from edge.recording.encoder import TICKS_PER_S, Packet, VideoEncoder, VideoForm
from edge.recording.fragments import FragmentFile
from edge.recording.recording import RecordingFolder
from edge.recording.settings import RecordSettings
from edge.types import UInt8

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
class Shot:
    """A picture on its way into the recording.

    Attributes:
        image: (H, W, 3) uint8 BGR that nobody will change.
        time_ns: the stream's time.
        wall_ns: wall clock of the capture.
        events: kinds of the events in this frame.
        clip: the file that they go into, in events mode.
    """

    image: UInt8
    time_ns: int
    wall_ns: int
    events: tuple[str, ...] = ()
    clip: Path | None = None


@dataclass(frozen=True, slots=True)
class _Coded:
    packet: Packet
    wall_ns: int


class PreRoll:
    """The last packets, from a key picture on: at least ``length_ticks`` of them, at most ``max_bytes``."""

    def __init__(self, length_ticks: int, max_bytes: int) -> None:
        self._length_ticks = length_ticks
        self._max_bytes = max_bytes
        self._groups: deque[list[_Coded]] = deque()
        self.num_bytes = 0

    def add(self, coded: _Coded) -> None:
        if coded.packet.is_key:
            self._groups.append([])
        if not self._groups:
            return
        self._groups[-1].append(coded)
        self.num_bytes += len(coded.packet.data)
        oldest_needed = coded.packet.pts - self._length_ticks
        while len(self._groups) > 1 and (
            self._groups[1][0].packet.pts <= oldest_needed or self.num_bytes > self._max_bytes
        ):
            self._drop()
        if self.num_bytes > self._max_bytes:
            self.clear()

    def packets(self) -> list[_Coded]:
        return [coded for group in self._groups for coded in group]

    def clear(self) -> None:
        self._groups.clear()
        self.num_bytes = 0

    def _drop(self) -> None:
        self.num_bytes -= sum(len(coded.packet.data) for coded in self._groups.popleft())


class Recorder:
    """Used by one thread. A disk that is full or broken pauses the recording; it goes on by itself.

    Attributes:
        counters: ``frames`` written, ``frames_lost`` while paused, ``write_errors``, and those of the folder.
        error: why recording pauses, empty while all is well.
    """

    def __init__(
        self,
        settings: RecordSettings,
        folder: RecordingFolder,
        encoder: str,
        fps: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: what is wanted, where files go, name of the encoder, nominal rate, clock of the pauses."""
        self._settings = settings
        self._folder = folder
        self._encoder_name = encoder
        self._fps = fps
        self._clock_s = clock_s
        self._is_continuous = settings.mode == "continuous"
        self._encoder: VideoEncoder | None = None
        self._form: VideoForm | None = None
        self._begin_ns = 0
        self._last_ns = 0
        self._pre_roll = PreRoll(round(settings.pre_roll_s * TICKS_PER_S), round(settings.pre_roll_mb * 2**20))
        self._file: FragmentFile | None = None
        self._path: Path | None = None
        self._start_wall_ns = 0
        self._until_ns = 0
        self._events: list[tuple[int, str]] = []
        self._paused_until_s = float("-inf")
        self.counters = Counters()
        self.error = ""

    def add(self, shot: Shot) -> None:
        """Take the next picture.

        Raises:
            SinkError: the encoder failed, which another picture will not mend.
        """
        encoder = self._encoder_for(shot)
        pts = round((shot.time_ns - self._begin_ns) * TICKS_PER_S / NS_PER_S)
        self._last_ns = shot.time_ns
        for packet in encoder.encode(shot.image, pts):
            self._form = self._form or encoder.form_with(packet)
            self._take(_Coded(packet, shot.wall_ns), shot)

    def close(self) -> None:
        """Finish the open file."""
        self._end_file()
        self._encoder = None

    def _encoder_for(self, shot: Shot) -> VideoEncoder:
        """The encoder; a new one where the picture's size or the course of time has changed."""
        is_gap = not 0 < shot.time_ns - self._last_ns < GAP_S * NS_PER_S
        if self._encoder is None or self._encoder.size != shot.image.shape[:2] or is_gap:
            self._end_file()
            self._pre_roll.clear()
            self._form = None
            self._begin_ns = shot.time_ns
            height, width = shot.image.shape[:2]
            key_every_s = self._settings.fragment_s * KEY_SHARE
            self._encoder = VideoEncoder(self._encoder_name, width, height, fps=self._fps, key_every_s=key_every_s)
        return self._encoder

    def _take(self, coded: _Coded, shot: Shot) -> None:
        if shot.clip is not None:
            self._until_ns = shot.time_ns + round(self._settings.post_roll_s * NS_PER_S)
        try:
            self._close_what_is_over(coded, shot)
            is_new_clip = shot.clip is not None and (self._file is None or shot.clip != self._path)
            if is_new_clip and not self._is_paused:
                self._begin_clip(shot.clip, coded)
            elif self._file is None and self._is_continuous and coded.packet.is_key and not self._is_paused:
                self._begin(self._folder.path_of(coded.wall_ns, "segment"), coded.wall_ns)
            self._write(coded)
        except (SinkError, av.error.FFmpegError, OSError) as error:
            self._pause(error)
        if self._file is not None and len(self._events) < MAX_LISTED_EVENTS:
            self._events += [(shot.wall_ns, kind) for kind in shot.events]
        if not self._is_continuous:
            self._pre_roll.add(coded)

    def _close_what_is_over(self, coded: _Coded, shot: Shot) -> None:
        """End the file when it is long enough, when its clip is over, or when another clip begins."""
        if self._file is None:
            return
        length_s = (coded.packet.pts - self._file.first_pts) / TICKS_PER_S
        is_full = coded.packet.is_key and length_s >= self._settings.segment_s
        is_over = shot.time_ns > self._until_ns or (shot.clip is not None and shot.clip != self._path)
        if is_full if self._is_continuous else is_over:
            self._end_file()

    def _begin_clip(self, path: Path | None, coded: _Coded) -> None:
        before = self._pre_roll.packets()
        if path is None or not (before or coded.packet.is_key):
            return
        self._begin(path, before[0].wall_ns if before else coded.wall_ns)
        for earlier in before:
            self._write(earlier)

    def _begin(self, path: Path, start_wall_ns: int) -> None:
        assert self._form is not None
        self._file = self._folder.create(path, self._form)
        self._path, self._start_wall_ns, self._events = path, start_wall_ns, []
        if self.error:
            log.info("record: %s: recording goes on", path.parent.name)
        self.error = ""

    def _write(self, coded: _Coded) -> None:
        if self._file is None:
            if self._is_paused:
                self.counters.add("frames_lost")
            return
        self._file.add(coded.packet)
        self.counters.add("frames")
        if coded.packet.is_key:
            # the fragment before this picture was written by adding it
            self._file.sync()

    @property
    def _is_paused(self) -> bool:
        return self._clock_s() < self._paused_until_s

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is None or self._form is None:
            return
        kind = "segment" if self._is_continuous else "clip"
        try:
            self._folder.finish(file, self._start_wall_ns, kind, self._form, self._events)
        except (SinkError, OSError) as error:
            self._pause(error)

    def _pause(self, error: Exception) -> None:
        """Keep what is whole, and try again later."""
        self.counters.add("write_errors")
        self._paused_until_s = self._clock_s() + RETRY_S
        if not self.error:
            log.error("record: %s; recording pauses", error)
        self.error = str(error)
        self._end_file()
