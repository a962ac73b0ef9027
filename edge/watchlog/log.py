"""Writing one stream's watch log: rows, seals, a new file every hour, what was there before, and what may go."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from edge.files import load_object, sync_folder
from edge.recording.retention import Keep, Kept, remove, too_many
from edge.watchlog.chain import (
    HEAD_NAME,
    ROOT,
    SCHEMA,
    chained,
    encode,
    file_name,
    head_message,
    is_hash,
    numbered,
    seal_message,
)
from edge.watchlog.keys import DeviceKey, is_signed
from edge.watchlog.seconds import NS_PER_S

log = logging.getLogger(__name__)
SECONDS_PER_FILE = 3600
# rows that wait for a disk that takes nothing; then they become one line that says so
MAX_WAITING = 7200
Ending = Literal["stopped", "removed", "hour"]


@dataclass(frozen=True, slots=True)
class Moment:
    """When, by which clocks.

    Attributes:
        second: of ``time.monotonic()``.
        offset_ns: wall clock minus monotonic clock.
        boot: of the machine; the monotonic clock counts from there.
    """

    second: int
    offset_ns: int
    boot: str


class WatchLog:
    """One stream's log. Used by one thread. A disk that takes nothing costs no row for two hours."""

    def __init__(self, folder: Path, stream: str, key: DeviceKey, keep: Keep) -> None:
        """Args: the stream's own folder, its name, who signs, how much is kept."""
        self._folder = folder
        self._stream = stream
        self._key = key
        self._keep = keep
        self._facts: Mapping[str, Any] = {}
        self._moment = Moment(0, 0, "")
        self._first = 1
        self._number = 0
        self._hash = ROOT
        self._lines = 0
        self._size = 0
        self._from_s = 0
        self._next_s = 0
        self._waiting: list[bytes] = []
        self._cannot: str = ""

    def begin(self, moment: Moment, facts: Mapping[str, Any]) -> None:
        """Continue where the last run stopped, in a new file.

        Raises:
            OSError: the folder cannot be used.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._facts, self._moment = facts, moment
        after = self._take_up()
        self._open_file(moment.second, after)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the row of the next second."""
        assert row["s"] == self._next_s, f"{self._stream}: second {row['s']} instead of {self._next_s}"
        if self._next_s - self._from_s >= SECONDS_PER_FILE and self._rotate():
            self._open_file(self._next_s, "hour")
        self._put(row)
        self._next_s += 1
        if len(self._waiting) > MAX_WAITING:
            # the header, where it waits too, is still needed
            keep = self._waiting[:1] if not self._lines else []
            self._waiting = [*keep, encode({"lost": [self._lost_from(), self._next_s, self._cannot]})]
            # they may have changed in what is lost
            self.note_clock(self._moment, 0.0, 0.0)
            self.note_facts(self._facts)

    def note_clock(self, moment: Moment, by_s: float, asleep_s: float) -> None:
        """The wall clock was set, or the machine slept."""
        self._moment = moment
        self._put({"clock": {"offset_ns": moment.offset_ns, "by_s": by_s, "asleep_s": asleep_s}})

    def note_facts(self, facts: Mapping[str, Any]) -> None:
        """Another model runs."""
        self._facts = facts
        self._put({"facts": facts})

    def flush(self) -> bool:
        """Sign what waits, and bring it to the disk; False while that takes nothing."""
        if not self._waiting:
            return True
        digest, lines = self._hash, [*self._waiting]
        for line in lines:
            digest = chained(digest, line)
        seal = encode({"seal": self._key.sign(seal_message(digest))})
        content = b"".join(line + b"\n" for line in (*lines, seal))
        try:
            self._append(content)
        except OSError as error:
            self._tell(error.strerror or str(error))
            return False
        self._hash = chained(digest, seal)
        self._lines += len(lines) + 1
        self._size += len(content)
        self._waiting = []
        self._write_head()
        self._tell("")
        return True

    def close(self, ending: Ending) -> bool:
        """Say why it ends, and sign it; False where the disk takes nothing."""
        self._put({"end": ending})
        return self.flush()

    def _rotate(self) -> bool:
        """End the file, so that another one may follow; an hour that cannot be signed goes on."""
        self._put({"end": "hour"})
        if self.flush():
            return True
        self._waiting.pop()
        return False

    def _put(self, value: Mapping[str, Any]) -> None:
        self._waiting.append(encode(value))

    def _lost_from(self) -> int:
        """The first second that waits."""
        for line in self._waiting:
            value = json.loads(line)
            if "s" in value:
                return int(value["s"])
            if "lost" in value:
                return int(value["lost"][0])
        return self._next_s

    def _open_file(self, second: int, after: str) -> None:
        self._number += 1
        self._lines = self._size = 0
        self._from_s = self._next_s = second
        header: dict[str, Any] = {"file": self._number, "schema": SCHEMA, "stream": self._stream}
        header |= {"key": self._key.public, "previous": self._hash, "after": after, "from_s": second}
        header |= {"offset_ns": self._moment.offset_ns, "boot": self._moment.boot, "facts": self._facts}
        self._put(header)
        self.flush()
        self._let_go()

    def _append(self, content: bytes) -> None:
        """Write behind what is sealed; what a failed attempt left there is cut off."""
        path = self._folder / file_name(self._number)
        is_new = self._size == 0
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(handle, self._size)
            view = memoryview(content)
            at = self._size
            while view:
                done = os.pwrite(handle, view, at)
                view, at = view[done:], at + done
            os.fsync(handle)
        finally:
            os.close(handle)
        if is_new:
            sync_folder(self._folder)

    def _write_head(self) -> None:
        head: dict[str, Any] = {"stream": self._stream, "key": self._key.public, "first": self._first}
        head |= {"last": self._number, "lines": self._lines, "hash": self._hash}
        head["seal"] = self._key.sign(head_message(head))
        path = self._folder / HEAD_NAME
        # not synced: the files are, and what a power cut takes of it is told by the next start
        with suppress(OSError):
            temporary = path.with_suffix(".new")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w") as file:
                json.dump(head, file)
            temporary.replace(path)

    def _take_up(self) -> str:
        """Find the end of the chain, cut off what a kill left unsealed; how the last file ended."""
        there = numbered(self._folder)
        head = self._known_head()
        part = _Part(ROOT, 0, 0, "")
        while there:
            part = _sealed_part(there[-1])
            if part.num_lines:
                break
            there.pop().unlink()
        last = int(there[-1].stem) if there else 0
        known = (head["last"], head["lines"]) if head else (0, 0)
        self._number = max(last, known[0])
        self._first = head["first"] if head else int(there[0].stem) if there else self._number + 1
        # what a kill left of files that were let go
        remove([Kept(path, 0, 0) for path in there if int(path.stem) < self._first])
        if not there:
            return "cut" if head else "first"
        self._hash = part.digest
        with there[-1].open("r+b") as file:
            file.truncate(part.num_bytes)
        if not head or (last, part.num_lines) < known:
            return "cut"
        # between two hours too
        return part.ending if part.ending in ("stopped", "removed") else "killed"

    def _known_head(self) -> dict[str, Any]:
        """What was signed last; empty where nothing is, or where it is not ours."""
        head = load_object(self._folder / HEAD_NAME)
        numbers = [head.get(name) for name in ("first", "last", "lines")]
        is_ours = all(isinstance(number, int) for number in numbers)
        return head if is_ours and is_signed(head_message(head), str(head.get("seal")), self._key.public) else {}

    def _let_go(self) -> None:
        """Remove the oldest files beyond the limits, once it is signed that they are not expected any more."""
        files = [Kept(path, (facts := path.stat()).st_mtime_ns, facts.st_size) for path in numbered(self._folder)]
        now_ns = self._moment.offset_ns + self._next_s * NS_PER_S
        gone = too_many(files[:-1], self._keep, now_ns, files[-1].num_bytes) if files else []
        if gone:
            self._first = int(gone[-1].path.stem) + 1
            self._write_head()
            remove(gone)

    def _tell(self, reason: str) -> None:
        if reason and reason != self._cannot:
            log.warning("%s: the watch log cannot be written (%s); it is tried again", self._stream, reason)
        elif self._cannot and not reason:
            log.info("%s: the watch log is written again", self._stream)
        self._cannot = reason


class _Part(NamedTuple):
    """Of a file: the hash after its last seal, lines and bytes up to there, and why it said that it ends, if it did."""

    digest: str
    num_lines: int
    num_bytes: int
    ending: str


def _sealed_part(path: Path) -> _Part:
    digest, size, ending = ROOT, 0, ""
    found = _Part(ROOT, 0, 0, "")
    for count, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        value = _object(line)
        if value is None or (count == 1 and not is_hash(value.get("previous"))):
            break
        digest = chained(value["previous"] if count == 1 else digest, line)
        size += len(line) + 1
        if "seal" in value:
            found = _Part(digest, count, size, ending)
        ending = str(value.get("end", ""))
    return found


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
