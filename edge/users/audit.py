"""The audit log: who changed what or looked at which recording, when and from where, one JSON object a line.

A line is written with one call at the end of the file and brought to the disk before what it tells is done. A kill or
power cut can leave one unfinished line, which the next one does not join. There are two files of at most half the size
each: when one is full it becomes ``NAME.1`` in place of the older one.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from edge.addresses.secrets import redacted_value
from edge.errors import DataError

log = logging.getLogger(__name__)
MODE = 0o600
MAX_TEXT = 200
OLDER = ".1"
TOLD_EVERY_S = 60.0


class AuditLog:
    """Thread-safe; several processes may write to one file.

    Attributes:
        path: the file.
        num_lost: lines that could not be written.

    Args:
        max_bytes: of both files together.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self._max_bytes = max_bytes // 2
        self._lock = threading.Lock()
        self._told_s = float("-inf")
        self._unsaid = 0
        self.num_lost = 0

    def note(self, what: str, who: str, address: str, **more: Any) -> None:
        """Write a line.

        Args:
            what: was done, a word or a method with its path.
            who: did it.
            address: it was done from, empty for this machine's command line.
            more: JSON values that say more.

        Raises:
            DataError: it cannot be written.
        """
        with self._lock:
            line = {"time": _now(), "who": who, "from": address, "what": what, **more}
            if self._unsaid:
                line["lost_before"] = self._unsaid
            try:
                self._append(_line(line))
            except OSError as error:
                self.num_lost += 1
                self._unsaid += 1
                self._tell(error)
                raise DataError(f"{self.path}: the audit log cannot be written ({error.strerror})") from None
            self._unsaid = 0

    def _append(self, line: bytes) -> None:
        with self._opened() as file:
            size = os.fstat(file.fileno()).st_size
            if size and size + len(line) > self._max_bytes:
                self.path.replace(older_of(self.path))
        with self._opened() as file:
            handle = file.fileno()
            size = os.fstat(handle).st_size
            # what a kill left unfinished stays a line of its own
            begin = b"\n" if size and os.pread(handle, 1, size - 1) != b"\n" else b""
            written = os.write(handle, begin + line)
            if written != len(begin) + len(line):
                os.ftruncate(handle, size)
                raise OSError(28, "No space left on device")
            os.fsync(handle)

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """The file with its lock, where it is now."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            with os.fdopen(os.open(self.path, flags, MODE), "r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                facts = os.fstat(file.fileno())
                # another process may have put it aside meanwhile
                if facts.st_ino != self.path.stat().st_ino:
                    continue
                os.fchmod(file.fileno(), MODE)
                if os.geteuid() == 0 and not facts.st_size:
                    # the daemon, which goes on writing it, is another user
                    owner = self.path.parent.stat()
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                yield file
                return

    def _tell(self, error: OSError) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s > TOLD_EVERY_S:
            self._told_s = now_s
            log.error(
                "audit: %s cannot be written (%s): no change or look at a recording till it can; %d lines lost",
                *(self.path, error.strerror, self.num_lost),
            )


def older_of(path: Path) -> Path:
    """Where the lines before those of this file are."""
    return path.with_name(path.name + OLDER)


def read_audit(path: Path) -> Iterator[dict[str, Any]]:
    """The lines, newest first; what is no line of it is left out.

    Raises:
        DataError: a file cannot be read.
    """
    for file in (path, older_of(path)):
        try:
            lines = file.read_bytes().split(b"\n") if file.exists() else []
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}); run as the daemon's user or root") from None
        for line in reversed(lines):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                yield value


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(values: Mapping[str, Any]) -> bytes:
    short = {key: value[:MAX_TEXT] if isinstance(value, str) else value for key, value in values.items()}
    return json.dumps(redacted_value(short), separators=(",", ":"), default=str).encode() + b"\n"
