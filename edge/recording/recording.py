"""The recording of one stream on disk: fragmented files with atomic names, their index, and room for the next one.

Guarantee 10: a finished file always opens; after a power cut at most ``fragment_s`` of pictures is missing. A full disk
costs the oldest recordings, then the recording itself, and nothing else.
"""

from __future__ import annotations

import calendar
import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from edge.errors import SinkError
from edge.metrics import Counters
from edge.recording.encoder import TICKS_PER_S, VideoForm
from edge.recording.fragments import FragmentFile, cut_to_whole
from edge.recording.index import Recorded, RecordingIndex
from edge.recording.retention import Keep, remove, too_many

log = logging.getLogger(__name__)
PART_SUFFIX = ".part"
NS_PER_S = 1_000_000_000
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# files that go at once when the disk is full: one is often not enough for the next fragment
GO_AT_ONCE = 2


def _free_bytes(folder: Path) -> int:
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


@dataclass(frozen=True, slots=True)
class Disk:
    """The calls that fail on a full disk, so that a test can fill it.

    Attributes:
        write: like ``os.write``.
        free_bytes: what an ordinary process may still write to the folder.
    """

    write: Callable[[int, bytes], int] = os.write
    free_bytes: Callable[[Path], int] = _free_bytes


class RecordingFolder:
    """The folder of one stream. Used by one thread.

    Attributes:
        index: the finished files.
        counters: ``files``, ``recovered``, ``removed`` (by age, size or for room), ``disk_full``, ``frames``.
    """

    def __init__(
        self,
        folder: Path,
        keep: Keep,
        *,
        reserve_bytes: int = 0,
        disk: Disk | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Make the folder, take it for this process, and finish what a crash left.

        Args:
            folder: of this stream alone.
            keep: what is kept.
            reserve_bytes: what stays free on the disk.
            disk: how files are written.
            clock_ns: wall clock.

        Raises:
            SinkError: the folder cannot be written, or another process records there.
        """
        self._folder = folder
        self._keep = keep
        self._reserve_bytes = reserve_bytes
        self._disk = disk or Disk()
        self._clock_ns = clock_ns
        self.counters = Counters()
        self.index = RecordingIndex(folder)
        self._open: FragmentFile | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._guard = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SinkError(f"record: {folder} cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._guard)
            raise SinkError(f"record: {folder} is in use by another process; expected a folder of its own") from None
        self._recover()

    def path_of(self, start_ns: int, kind: str) -> Path:
        """The name that a file which starts now gets: UTC, and unused so far."""
        second, rest_ns = divmod(start_ns, NS_PER_S)
        stem = time.strftime("%Y%m%dT%H%M%S", time.gmtime(second)) + f".{rest_ns // 1_000_000:03d}Z"
        end = "-clip" if kind == "clip" else ""
        path, number = self._folder / f"{stem}{end}.mp4", 1
        while path.exists() or part_of(path).exists():
            number += 1
            path = self._folder / f"{stem}{end}-{number}.mp4"
        return path

    def create(self, path: Path, form: VideoForm, max_fragment_s: float | None = None) -> FragmentFile:
        """Begin a file under its temporary name; ``max_fragment_s`` as in ``FragmentFile``.

        Raises:
            SinkError: there is no room, even without the oldest files.
        """
        self.enforce()
        if self._lacks_reserve() and not self._free_reserve():
            self.counters.add("disk_full")
            raise SinkError(f"record: {self._folder}: less than {self._reserve_bytes >> 20} MB are free")
        try:
            self._open = FragmentFile(part_of(path), form, self._write, max_fragment_s)
        except (av.error.FFmpegError, OSError) as error:
            part_of(path).unlink(missing_ok=True)
            raise SinkError(f"record: {path} cannot be written ({error.strerror})") from None
        return self._open

    def finish(self, file: FragmentFile, start_ns: int, kind: str, form: VideoForm, events: Events = ()) -> Path | None:
        """Close a file and give it its name. What a full disk did not take is cut off; None if nothing is left.

        Raises:
            SinkError: the file could not be kept.
        """
        self._open = None
        try:
            file.finish()
        except (av.error.FFmpegError, OSError) as error:
            log.error("record: %s: its end was lost (%s)", file.path.name, error.strerror)
            file.abandon()
        end_ns = start_ns + (file.last_pts - file.first_pts) * NS_PER_S // TICKS_PER_S
        path = self._keep_part(file.path)
        if path is not None:
            size = path.stat().st_size
            self.counters.add("files")
            self.index.add(
                Recorded(
                    path.name, kind, start_ns, end_ns, size, file.num_frames, form.width, form.height, tuple(events)
                )
            )
        self.enforce()
        return path

    def enforce(self) -> None:
        """Remove what is too old or too much. Raises: SinkError: the index could not be written."""
        writing = 0 if self._open is None else self._open.num_bytes
        self._remove([kept.path for kept in too_many(self.index.kept(), self._keep, self._clock_ns(), writing)])

    def close(self) -> None:
        """May be called twice."""
        if self._guard >= 0:
            os.close(self._guard)
        self._guard = -1

    def _write(self, fd: int, data: bytes) -> int:
        """Write, and on a full disk remove the oldest recordings until it fits."""
        while True:
            try:
                return self._disk.write(fd, data)
            except OSError as error:
                if error.errno not in NO_ROOM or not self._remove_oldest():
                    self.counters.add("disk_full")
                    raise

    def _lacks_reserve(self) -> bool:
        return self._disk.free_bytes(self._folder) < self._reserve_bytes

    def _free_reserve(self) -> bool:
        while self._lacks_reserve():
            if not self._remove_oldest():
                return False
        return True

    def _remove_oldest(self) -> bool:
        return self._remove([kept.path for kept in self.index.kept()[:GO_AT_ONCE]]) > 0

    def _remove(self, paths: Sequence[Path]) -> int:
        chosen = set(paths)
        gone = remove([kept for kept in self.index.kept() if kept.path in chosen])
        self.counters.add("removed", len(gone))
        self.index.remove([kept.path.name for kept in gone])
        return len(gone)

    def _keep_part(self, part: Path) -> Path | None:
        if not cut_to_whole(part):
            part.unlink(missing_ok=True)
            return None
        path = part.with_name(part.name.removeprefix(".").removesuffix(PART_SUFFIX))
        part.replace(path)
        _sync_folder(self._folder)
        return path

    def _recover(self) -> None:
        """Finish what a crash left: cut it back to its last whole fragment and give it its name."""
        for part in sorted(self._folder.glob(f".*{PART_SUFFIX}")):
            path = self._keep_part(part)
            self.counters.add("recovered", int(path is not None))
            log.info("record: %s was left unfinished; %s", part.name, "it plays" if path else "nothing was in it")
        unknown = self.index.load()
        found = [entry for path in unknown if (entry := described(path)) is not None]
        self.index.entries = tuple(sorted((*self.index.entries, *found), key=lambda entry: entry.start_ns))
        self.index.save()


Events = Sequence[tuple[int, str]]


def part_of(path: Path) -> Path:
    """The hidden name of a file while it is written."""
    return path.with_name(f".{path.name}{PART_SUFFIX}")


def described(path: Path) -> Recorded | None:
    """The index entry of a file that the index does not know, from the file itself; None if it is no video."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            times = [packet.pts * packet.time_base for packet in container.demux(stream) if packet.pts is not None]
            width, height = stream.codec_context.width, stream.codec_context.height
    except (av.error.FFmpegError, OSError, IndexError) as error:
        log.warning("record: %s cannot be read (%s); it is left alone", path, error)
        return None
    end_ns = path.stat().st_mtime_ns
    start_ns = _start_in(path.name) or end_ns - round(float(max(times, default=0)) * NS_PER_S)
    kind = "clip" if "-clip" in path.name else "segment"
    last_ns = start_ns + round(float(max(times, default=0)) * NS_PER_S)
    return Recorded(path.name, kind, start_ns, last_ns, path.stat().st_size, len(times), width, height)


def _start_in(name: str) -> int | None:
    """The time that our file names begin with."""
    try:
        second = time.strptime(name[:15], "%Y%m%dT%H%M%S")
        return (int(_seconds_utc(second)) * 1000 + int(name[16:19])) * 1_000_000
    except ValueError:
        return None


def _seconds_utc(parts: time.struct_time) -> int:
    return calendar.timegm(parts)


def _sync_folder(folder: Path) -> None:
    """Make a new name outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        raise SinkError(f"record: {folder} could not be synced ({error.strerror})") from None
    finally:
        os.close(handle)
