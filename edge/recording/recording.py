"""The recording of one stream on disk: fragmented files with atomic names, their index, and room for the next one.

Guarantee 10: a finished file always opens and is never written over; after a power cut at most ``fragment_s`` of
pictures is missing. A full disk costs the oldest recordings, then the recording itself, and nothing else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import av

from edge.errors import DiskError, SinkError
from edge.files import sync_folder
from edge.metrics.counters import Counters
from edge.recording.boxes import SUFFIX
from edge.recording.clock import RecordingClock
from edge.recording.disk import NO_ROOM, Disk, in_words, is_there, locked
from edge.recording.fragments import FragmentFile, cut_to_whole
from edge.recording.index import Recorded, RecordingIndex, described
from edge.recording.names import PART_SUFFIX, is_taken, name_at, part_of, unused, whole_of
from edge.recording.retention import Keep, Kept, remove, too_many
from edge.video.encoder import TICKS_PER_S, VideoForm

log = logging.getLogger(__name__)
NS_PER_S = 1_000_000_000
# files that go at once when the disk is full: one is often not enough for the next fragment
GO_AT_ONCE = 2
# how often a file that is being written looks for room
CHECK_EVERY_NS = NS_PER_S


class RecordingFolder:
    """The folder of one stream. Used by one thread.

    Attributes:
        index: the finished files.
        clock: of their names and ages.
        counters: ``files``, ``recovered``, ``removed`` (by age, size or for room), ``disk_full``, ``frames``.
    """

    def __init__(
        self,
        folder: Path,
        keep: Keep,
        *,
        reserve_bytes: int = 0,
        disk: Disk | None = None,
        clock: RecordingClock | None = None,
    ) -> None:
        """Make the folder, take it for this process, and finish what a crash left; the first file may have to do so.

        Args:
            folder: of this stream alone.
            keep: what is kept.
            reserve_bytes: what stays free on the disk.
            disk: how files are written.
            clock: None: that of the device.

        Raises:
            SinkError: the folder cannot be used, or another process records there.
        """
        self._folder = folder
        self._keep = keep
        self._reserve_bytes = reserve_bytes
        self._disk = disk or Disk()
        self.clock = clock or RecordingClock()
        self.counters: Counters[str] = Counters()
        self.index = RecordingIndex(folder)
        self._open: FragmentFile | None = None
        self._given_name = ""
        self._checked_ns = self.clock.now_ns()
        # name -> when it was finished by the monotonic clock, of the files of this run
        self._finished_ns: dict[str, int] = {}
        self._guard = -1
        try:
            self._prepare()
        except DiskError as error:
            # a full or read-only disk pauses the recording, now as later
            log.error("%s; recording pauses until the disk is back", error)

    def path_of(self, start_ns: int, kind: str) -> Path:
        """The name that a file which starts now gets: UTC, and unlike those before it.

        Goes by what is known of the folder, so that a thread which may not wait for a disk can ask.
        """
        path = unused(self._folder / name_at(start_ns, kind), self._is_known)
        self._given_name = path.name
        return path

    def create(self, path: Path, form: VideoForm, fragment_s: float | None = None) -> FragmentFile:
        """Begin a file under its temporary name, or where there is such a file under the next free one.

        ``fragment_s`` as in ``FragmentFile``.

        Raises:
            SinkError: there is no room, even without the oldest files, or the disk fails.
        """
        if self._guard < 0:
            self._prepare()
        with in_words(self._folder):
            self.enforce()
            self._look_for_reserve()
            part = part_of(unused(path, is_taken))
        try:
            self._open = FragmentFile(part, form, self._write, fragment_s)
        except (av.error.FFmpegError, OSError) as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise SinkError(f"record: {path} cannot be written ({error.strerror})") from None
        return self._open

    def check_room(self) -> None:
        """Make room while a file grows; looks at the disk once a second at most.

        Raises:
            SinkError: there is none, even without the oldest files, or the disk fails.
        """
        now_ns = self.clock.now_ns()
        if now_ns - self._checked_ns < CHECK_EVERY_NS:
            return
        self._checked_ns = now_ns
        with in_words(self._folder):
            self._look_for_reserve()
        max_bytes = self._keep.max_bytes
        if max_bytes is not None and self.index.num_bytes + self._writing_bytes > max_bytes:
            self.enforce()

    def finish(self, file: FragmentFile, start_ns: int, kind: str, form: VideoForm, events: Events = ()) -> Path | None:
        """Close a file and give it its name. What a full disk did not take is cut off; None if nothing is left.

        Raises:
            SinkError: the file could not be kept.
        """
        self._open = None
        try:
            file.finish()
        except (av.error.FFmpegError, OSError, SinkError) as error:
            log.error("record: %s: its end was lost (%s)", file.path.name, error)
            file.abandon()
        end_ns = start_ns + (file.last_pts - file.first_pts) * NS_PER_S // TICKS_PER_S
        with in_words(self._folder):
            path = self._keep_part(file.path)
            size = 0 if path is None else path.stat().st_size
        if path is not None:
            self.counters.add("files")
            self._finished_ns[path.name] = self.clock.now_ns()
            self.index.add(
                Recorded(
                    path.name, kind, start_ns, end_ns, size, file.num_frames, form.width, form.height, tuple(events)
                )
            )
        self.enforce()
        return path

    def enforce(self) -> None:
        """Remove what is too old or too much. Raises: SinkError: the index could not be written."""
        # what a step of the clock has made old is not old yet
        keep = self._keep if self.clock.is_steady() else replace(self._keep, max_age_ns=None)
        now_ns = self.clock.now_ns() + self.clock.offset_ns()
        self._remove(too_many(self._kept(), keep, now_ns, self._writing_bytes))

    def close(self) -> None:
        """May be called twice."""
        if self._guard >= 0:
            os.close(self._guard)
        self._guard = -1

    def _prepare(self) -> None:
        self._guard = locked(self._folder)
        try:
            with in_words(self._folder):
                self._recover()
        except SinkError:
            self.close()
            raise

    def _write(self, fd: int, data: bytes) -> int:
        """Write, and on a full disk remove the oldest recordings until it fits."""
        while True:
            try:
                return self._disk.write(fd, data)
            except OSError as error:
                if error.errno not in NO_ROOM or not self._remove_oldest():
                    self.counters.add("disk_full")
                    raise

    @property
    def _writing_bytes(self) -> int:
        return 0 if self._open is None else self._open.num_bytes

    def _kept(self) -> list[Kept]:
        """The finished files; those of this run by the monotonic clock, whatever the wall clock showed at their end."""
        offset_ns, finished_ns = self.clock.offset_ns(), self._finished_ns
        return [
            replace(kept, time_ns=finished_ns[kept.path.name] + offset_ns) if kept.path.name in finished_ns else kept
            for kept in self.index.kept()
        ]

    def _is_known(self, path: Path) -> bool:
        return path.name == self._given_name or any(path.name == entry.file for entry in self.index.entries)

    def _look_for_reserve(self) -> None:
        if self._lacks_reserve() and not self._free_reserve():
            self.counters.add("disk_full")
            raise SinkError(f"record: {self._folder}: less than {self._reserve_bytes >> 20} MB are free")

    def _lacks_reserve(self) -> bool:
        return self._disk.free_bytes(self._folder) < self._reserve_bytes

    def _free_reserve(self) -> bool:
        while self._lacks_reserve():
            if not self._remove_oldest():
                return False
        return True

    def _remove_oldest(self) -> bool:
        return self._remove(self.index.kept()[:GO_AT_ONCE]) > 0

    def _remove(self, files: Sequence[Kept]) -> int:
        names = [kept.path.name for kept in remove(files)]
        self.counters.add("removed", len(names))
        for name in names:
            self._finished_ns.pop(name, None)
            with suppress(OSError):
                (self._folder / name).with_suffix(SUFFIX).unlink(missing_ok=True)
        self.index.remove(names)
        return len(names)

    def _keep_part(self, part: Path) -> Path | None:
        if not cut_to_whole(part):
            part.unlink(missing_ok=True)
            return None
        path = unused(whole_of(part), is_there)
        part.replace(path)
        sync_folder(self._folder)
        return path

    def _recover(self) -> None:
        """Finish what a crash left: cut it back to its last whole fragment and give it its name."""
        for part in sorted(self._folder.glob(f".*{PART_SUFFIX}")):
            if not part.is_file():
                log.warning("record: %s is no file; it is left alone", part)
                continue
            path = self._keep_part(part)
            self.counters.add("recovered", int(path is not None))
            log.info("record: %s was left unfinished; %s", part.name, "it plays" if path else "nothing was in it")
        for notes in self._folder.glob(f"*{SUFFIX}"):
            if not is_there(notes.with_suffix(".mp4")):
                notes.unlink(missing_ok=True)
        unknown = self.index.load()
        found = [entry for path in unknown if (entry := described(path)) is not None]
        # what the index does not know is what was finished last, unless the whole index is lost
        self.index.entries = (*self.index.entries, *sorted(found, key=lambda entry: entry.start_ns))
        try:
            self.index.save()
        except DiskError as error:
            # it can be made again from the files, of which the oldest make room
            log.warning("%s", error)


Events = Sequence[tuple[int, str]]
