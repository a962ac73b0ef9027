"""Where the fragments of a recorded file lie, so that one is read without those before it.

Files that are written fragment by fragment have no table of contents (ISO/IEC 14496-12, 8.8): the boxes are walked,
which reads a few hundred bytes per fragment. Those that do not begin with a key picture belong to the one before them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import av

from edge.recording.fragments import boxes_of

# a picture's flags, ISO/IEC 14496-12, 8.8.3.1: it cannot be decoded alone
NON_SYNC = 0x10000
# of the boxes before the first fragment, and of one fragment's table
MAX_HEAD_BYTES = 1 << 20
MAX_FRAGMENT_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Fragment:
    """From a key picture on: where it lies in the file, in bytes with its pictures, and when that one is decoded."""

    offset: int
    num_bytes: int
    start_s: float


@dataclass(frozen=True, slots=True)
class Layout:
    """A file of fragments.

    Attributes:
        head: the boxes before the first fragment, which describe the pictures.
        fragments: in the order of their times; none where the file was written otherwise.
    """

    path: Path
    head: bytes
    fragments: tuple[Fragment, ...]

    def last_before(self, seconds: float) -> int:
        """Number of the last fragment that begins by then; 0 where none does."""
        earlier = [number for number, fragment in enumerate(self.fragments) if fragment.start_s <= seconds]
        return earlier[-1] if earlier else 0

    @contextmanager
    def opened_at(self, number: int) -> Iterator[Any]:
        """A container of PyAV that reads from this fragment on; times are the file's.

        Raises:
            OSError, av.error.FFmpegError: it cannot be read.
        """
        with self.path.open("rb") as file:
            if self.fragments:
                file.seek(self.fragments[number].offset)
            with av.open(_Joined(self.head, file) if self.fragments else file, format="mp4") as container:
                yield container

    @contextmanager
    def keys_of(self, numbers: Sequence[int]) -> Iterator[tuple[Any, Iterator[Any]]]:
        """A container that reads these fragments only, and the packets of the key pictures with which they begin.

        Raises:
            OSError, av.error.FFmpegError: they cannot be read.
        """
        with self.path.open("rb") as file:
            parts = _Fragments(self.head, file, [self.fragments[number] for number in numbers])
            with av.open(parts, format="mp4") as container:
                packets = container.demux(container.streams.video[0])
                yield container, (packet for packet in packets if packet.is_keyframe and packet.size)


class _Joined:
    """What PyAV reads from: some bytes, then the rest of a file. It cannot be sought in."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._ready, self._file = head, file

    def read(self, size: int) -> bytes:
        if not self._ready:
            self._ready = self._next(size)
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _next(self, size: int) -> bytes:
        return self._file.read(size)


class _Fragments(_Joined):
    """The same with some fragments of a file, one in memory at a time."""

    def __init__(self, head: bytes, file: IO[bytes], fragments: Sequence[Fragment]) -> None:
        super().__init__(head, file)
        self._fragments = iter(fragments)

    def _next(self, size: int) -> bytes:
        fragment = next(self._fragments, None)
        if fragment is None:
            return b""
        self._file.seek(fragment.offset)
        return self._file.read(min(fragment.num_bytes, MAX_FRAGMENT_BYTES))


def layout_of(path: Path) -> Layout:
    """Walk a file.

    Raises:
        OSError: it cannot be read.
    """
    fragments: list[Fragment] = []
    head, timescale, track = b"", 0, 0
    with path.open("rb") as file:
        for kind, offset, size in boxes_of(file, path.stat().st_size):
            if kind == b"moof":
                if not fragments:
                    file.seek(0)
                    head = file.read(min(offset, MAX_HEAD_BYTES))
                    track, timescale = _video_track(head)
                file.seek(offset)
                ticks = _key_time(file.read(min(size, MAX_HEAD_BYTES)), track)
                if ticks is not None and timescale:
                    fragments.append(Fragment(offset, size, ticks / timescale))
                    continue
            if kind in (b"moof", b"mdat") and fragments and fragments[-1].offset + fragments[-1].num_bytes == offset:
                last = fragments[-1]
                fragments[-1] = Fragment(last.offset, last.num_bytes + size, last.start_s)
    return Layout(path, head, tuple(fragments))


def _inner(data: bytes, *path: bytes) -> list[bytes]:
    """What the boxes of this path hold."""
    boxes = boxes_of(io.BytesIO(data), len(data))
    found = [data[offset + 8 : offset + size] for kind, offset, size in boxes if kind == path[0]]
    return found if len(path) == 1 else [inner for one in found for inner in _inner(one, *path[1:])]


def _video_track(head: bytes) -> tuple[int, int]:
    """Id and ticks per second of the first track of pictures; zeros where there is none."""
    for track in _inner(head, b"moov", b"trak"):
        handler = _inner(track, b"mdia", b"hdlr")
        if handler and handler[0][8:12] == b"vide":
            return _after_dates(_inner(track, b"tkhd")), _after_dates(_inner(track, b"mdia", b"mdhd"))
    return 0, 0


def _after_dates(boxes: list[bytes]) -> int:
    """The number after the two dates with which a box begins, of 8 bytes each in version 1 and of 4 before."""
    at = 20 if boxes and boxes[0][:1] == b"\1" else 12
    return int.from_bytes(boxes[0][at : at + 4], "big") if boxes else 0


def _key_time(moof: bytes, track: int) -> int | None:
    """Ticks of the picture with which a fragment begins; None where it is no key picture, or there are none."""
    for part in _inner(moof, b"moof", b"traf"):
        header, time = _inner(part, b"tfhd"), _inner(part, b"tfdt")
        if header and time and int.from_bytes(header[0][4:8], "big") == track:
            if _first_flags(header[0], _inner(part, b"trun")) & NON_SYNC:
                return None
            return int.from_bytes(time[0][4 : 12 if time[0][:1] == b"\1" else 8], "big")
    return None


def _first_flags(header: bytes, runs: list[bytes]) -> int:
    """Flags of the first picture: those of its run's first, of its row, or of all; 0 where none are told."""
    given = int.from_bytes(header[1:4], "big")
    if runs:
        told = int.from_bytes(runs[0][1:4], "big")
        at = 8 + 4 * bool(told & 0x1)
        if told & 0x4:
            return _number(runs[0], at)
        if told & 0x400:
            return _number(runs[0], at + 4 * bool(told & 0x100) + 4 * bool(told & 0x200))
    at = 8 + 8 * bool(given & 0x1) + 4 * bool(given & 0x2) + 4 * bool(given & 0x8) + 4 * bool(given & 0x10)
    return _number(header, at) if given & 0x20 else 0


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
