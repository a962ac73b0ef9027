"""Fragmented MP4 files that can end anywhere: written fragment by fragment, and cut back to their last whole one.

Box structure as in ISO/IEC 14496-12: ``ftyp moov (moof mdat)*``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import av

from edge.errors import sink_error
from edge.video.encoder import Packet, VideoForm, copied_sound, copied_stream, media_packet

Write = Callable[[int, bytes], int]
# each key picture begins a fragment; nothing is written behind what is already on disk
MOVFLAGS = "frag_keyframe+empty_moov+default_base_moof+skip_trailer"


class FragmentFile:
    """One MP4 file while it is being written. A fragment is on disk once ``sync`` has returned after its end."""

    def __init__(self, path: Path, form: VideoForm, write: Write = os.write, fragment_s: float | None = None) -> None:
        """Create the file.

        Args:
            path: must not exist.
            form: of the video.
            write: like ``os.write``; may make room on a full disk.
            fragment_s: a fragment that is this long ends before the next key picture; None: only there.

        Raises:
            OSError: the file cannot be created or written.
        """
        # a sound that stays away holds up the pictures no longer than that, in microseconds
        options = {"movflags": MOVFLAGS, "flush_packets": "1", "max_interleave_delta": "500000"}
        if fragment_s is not None:
            options["frag_duration"] = str(round(fragment_s * 1e6))
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._write = write
        self.num_bytes = 0
        self.num_frames = 0
        self.first_pts = -1
        self.last_pts = -1
        self._last_sound = -1
        try:
            self._container: Any = av.open(_Output(self._put), "w", format="mp4", options=options)
            self._stream = copied_stream(self._container, form)
            self._sound = copied_sound(self._container, form.sound) if form.sound else None
        except (av.error.FFmpegError, OSError):
            self.abandon()
            raise

    def add(self, packet: Packet) -> None:
        """Mux one packet; the first of a fragment writes the one before it, which ``num_bytes`` shows.

        Raises:
            OSError: the disk is full or broken.
        """
        if self.first_pts < 0:
            self.first_pts = packet.pts
        self._container.mux(media_packet(packet, self._stream, packet.pts - self.first_pts))
        self.last_pts = max(self.last_pts, packet.pts)
        self.num_frames += 1

    def add_sound(self, packet: Packet) -> None:
        """Mux one packet of sound; what was before the first picture, or does not go on in time, is left out.

        Raises:
            OSError: the disk is full or broken.
        """
        at = packet.pts - self.first_pts
        if self._sound is None or self.first_pts < 0 or at <= self._last_sound:
            return
        self._last_sound = at
        self._container.mux(media_packet(packet, self._sound, at))

    def sync(self) -> None:
        """Wait until what was written is on disk.

        Raises:
            OSError: it is not.
        """
        os.fsync(self._fd)

    def finish(self) -> None:
        """Write the last fragment and close.

        Raises:
            OSError: the disk is full or broken.
        """
        self._container.close()
        self.sync()
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is; what was not yet written is lost. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # what was synced is there, and the rest cannot be saved by asking again
            with suppress(OSError):
                os.close(fd)

    def _put(self, data: bytes) -> int:
        if self._fd < 0:
            # the muxer's own end, after the file was given up
            return len(data)
        view = memoryview(data)
        while view:
            view = view[self._write(self._fd, bytes(view)) :]
        self.num_bytes += len(data)
        return len(data)


class _Output:
    """What PyAV writes to."""

    def __init__(self, put: Callable[[bytes], int]) -> None:
        self._put = put

    def write(self, data: bytes) -> int:
        return self._put(data)


def boxes_of(file: IO[bytes], length: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, offset and size of the outermost boxes of an MP4 file that are whole."""
    offset = 0
    while offset + 8 <= length:
        file.seek(offset)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if size < 8 or offset + size > length:
            return
        yield kind, offset, size
        offset += size


def whole_length(path: Path) -> tuple[int, int]:
    """Bytes of a fragmented MP4 up to the end of its last whole fragment, and the number of whole fragments.

    Raises:
        OSError: the file cannot be read.
    """
    whole, num_fragments, last = 0, 0, b""
    with path.open("rb") as file:
        for kind, offset, size in boxes_of(file, path.stat().st_size):
            if kind == b"mdat" and last == b"moof":
                whole, num_fragments = offset + size, num_fragments + 1
            last = kind
    return whole, num_fragments


def cut_to_whole(path: Path) -> bool:
    """Cut off what was not finished; False if nothing playable is left.

    Raises:
        SinkError: the file cannot be read or cut.
    """
    try:
        whole, num_fragments = whole_length(path)
        if not num_fragments:
            return False
        with path.open("rb+") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
    except OSError as error:
        raise sink_error(f"{path}: cannot be repaired ({error.strerror})", error) from None
    return True
