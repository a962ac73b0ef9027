"""What is recorded of one stream: an index next to the files, for the page, and which of them go.

``index.jsonl`` has one line per finished file, in the order of their ends. It can always be made again from the files.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import av

from edge.errors import sink_error
from edge.files import parse_json, read_regular, set_aside, write_atomic
from edge.recording.names import NS_PER_S, start_in
from edge.recording.retention import Kept

log = logging.getLogger(__name__)
INDEX_NAME = "index.jsonl"
# nanoseconds, bytes and pixels fit in 64 bits with a sign
MAX_NUMBER = 2**63


@dataclass(frozen=True, slots=True)
class Recorded:
    """A finished file.

    Attributes:
        file: its name within the folder.
        kind: ``segment`` or ``clip``.
        start_ns, end_ns: wall clock of the first picture and of the end of the last one.
        num_bytes, num_frames: of the file.
        width, height: of the picture in pixels.
        events: what happened in it: (wall clock ns, kind).
    """

    file: str
    kind: str
    start_ns: int
    end_ns: int
    num_bytes: int
    num_frames: int
    width: int
    height: int
    events: tuple[tuple[int, str], ...] = ()

    @classmethod
    def from_json(cls, line: str) -> Recorded:
        """Raises: ValueError: the line is damaged."""
        match parse_json(line):
            case {
                "file": str(file),
                "kind": "segment" | "clip" as kind,
                "start_ns": int(start_ns),
                "end_ns": int(end_ns),
                "num_bytes": int(num_bytes),
                "num_frames": int(num_frames),
                "width": int(width),
                "height": int(height),
                "events": list(rows),
            } if all(0 <= n < MAX_NUMBER for n in (start_ns, end_ns, num_bytes, num_frames, width, height)):
                events = tuple(_event(row) for row in rows)
                return cls(file, kind, start_ns, end_ns, num_bytes, num_frames, width, height, events)
            case _:
                raise ValueError("no line of an index")

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


class RecordingIndex:
    """The finished files of one folder. Used by one thread; ``entries`` may be read by any.

    Attributes:
        entries: in the order in which they were finished, which no wall clock can change.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / INDEX_NAME
        self._folder = folder
        self.entries: tuple[Recorded, ...] = ()

    def load(self) -> list[Path]:
        """Read the index; returns finished files that it does not know, by name.

        Raises:
            OSError: the folder cannot be read.
        """
        known: dict[str, Recorded] = {}
        for line in self._lines():
            try:
                entry = Recorded.from_json(line)
            except ValueError:
                # the last line may be cut after a power failure; its file is found below
                continue
            known[entry.file] = entry
        there = {path.name: path for path in self._folder.glob("*.mp4") if not path.name.startswith(".")}
        self.entries = tuple(entry for name, entry in known.items() if name in there)
        return [path for name, path in sorted(there.items()) if name not in known]

    def _lines(self) -> list[str]:
        try:
            # a damaged byte costs its line
            return read_regular(self._path).decode(errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            set_aside(self._path, str(error))
            return []

    def add(self, entry: Recorded) -> None:
        """Raises: SinkError: the index could not be written; the file is found again at the next start."""
        self.entries = (*self.entries, entry)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(entry.to_json() + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise sink_error(f"{self._path}: a line was not written ({error.strerror})", error) from None

    def remove(self, files: Sequence[str]) -> None:
        """Forget files. Raises: SinkError: the index could not be written."""
        if not files:
            return
        gone = set(files)
        self.entries = tuple(entry for entry in self.entries if entry.file not in gone)
        self.save()

    def save(self) -> None:
        """Write the whole index. Raises: SinkError: it could not be written."""
        try:
            write_atomic(self._path, "".join(entry.to_json() + "\n" for entry in self.entries))
        except OSError as error:
            raise sink_error(f"{self._path}: the index was not written ({error.strerror})", error) from None

    def kept(self) -> list[Kept]:
        """The files, for the retention."""
        return [Kept(self._folder / entry.file, entry.end_ns, entry.num_bytes) for entry in self.entries]

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(entry.num_bytes for entry in self.entries)


def _event(row: object) -> tuple[int, str]:
    match row:
        case [int(time_ns), str(kind)] if 0 <= time_ns < MAX_NUMBER:
            return time_ns, kind
    raise ValueError("no event of an index")


def described(path: Path) -> Recorded | None:
    """The index entry of a file that the index does not know, from the file itself; None if it is no video."""
    try:
        facts = path.stat()
        # not what its content says that it is: a playlist would open other files
        with av.open(str(path), format="mp4") as container:
            stream = container.streams.video[0]
            times = [packet.pts * packet.time_base for packet in container.demux(stream) if packet.pts is not None]
            width, height = stream.codec_context.width, stream.codec_context.height
    except (av.error.FFmpegError, OSError, IndexError) as error:
        log.warning("record: %s cannot be read (%s); it is left alone", path, error)
        return None
    length_ns = round(float(max(times, default=0)) * NS_PER_S)
    start_ns = start_in(path.name) or facts.st_mtime_ns - length_ns
    kind = "clip" if "-clip" in path.name else "segment"
    return Recorded(path.name, kind, start_ns, start_ns + length_ns, facts.st_size, len(times), width, height)
