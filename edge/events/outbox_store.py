"""Where the outbox has its tables: in its file, or in memory while the disk takes nothing."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from edge.errors import DISK_FAULTS, SinkError
from edge.events.outbox_file import is_damage, locked, open_database, open_memory, set_database_aside

log = logging.getLogger(__name__)
MEMORY_BYTES = 8 << 20
RETRY_S = 10.0


class Store:
    """Used under the lock of its outbox.

    Attributes:
        database: the open tables; another one after ``leave_memory``, ``back_to_memory`` and ``replace``.
        max_bytes: what they may take.
        error: why they are in memory; empty where they are in the file.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Open or make the file; a disk that is full, read-only or broken only puts that off.

        Raises:
            SinkError: the path is of no use, or another process has the file.
        """
        self._path = path
        self._file_bytes = max_bytes
        self._guard = -1
        self._retry_s = 0.0
        self._replaced_s = float("-inf")
        try:
            self._use_file()
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, OSError) and error.errno not in DISK_FAULTS:
                raise SinkError(f"events.outbox: {path} cannot be written ({error.strerror})") from None
            self._use_memory(open_memory(MEMORY_BYTES), error)

    def leave_memory(self) -> sqlite3.Connection | None:
        """Open the file, if it is time to try and the disk lets us; gives the tables that were in memory till now."""
        if not self.error or time.monotonic() < self._retry_s:
            return None
        self._retry_s = time.monotonic() + RETRY_S
        memory = self.database
        try:
            self._use_file()
        except (sqlite3.Error, OSError):
            return None
        return memory

    def back_to_memory(self, memory: sqlite3.Connection, error: sqlite3.Error) -> None:
        """The file was opened and then failed; a damaged one makes room for the next try."""
        self.database.close()
        if is_damage(error):
            with suppress(OSError):
                set_database_aside(self._path, str(error))
        self._use_memory(memory, error)

    def replace(self, error: sqlite3.Error) -> None:
        """What was opened failed: begin a new file in place of a damaged one, or in memory where that does not help."""
        self.database.close()
        is_new_tried = time.monotonic() - self._replaced_s < RETRY_S
        try:
            if not is_damage(error) or is_new_tried:
                raise error
            self._replaced_s = time.monotonic()
            set_database_aside(self._path, str(error))
            self._use_file()
        except (sqlite3.Error, OSError) as failure:
            self._use_memory(open_memory(MEMORY_BYTES), failure)

    def close(self) -> None:
        """May be called twice."""
        self.database.close()
        if self._guard >= 0:
            os.close(self._guard)
        self._guard = -1

    def _use_file(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._guard < 0:
            self._guard = locked(self._path)
        self.database = open_database(self._path, self._file_bytes)
        self.max_bytes, self.error = self._file_bytes, ""

    def _use_memory(self, memory: sqlite3.Connection, error: Exception) -> None:
        self.database, self.max_bytes = memory, min(self._file_bytes, MEMORY_BYTES)
        self.error = f"{self._path} cannot be used ({getattr(error, 'strerror', None) or error})"
        self._retry_s = time.monotonic() + RETRY_S
        log.error("events.outbox: %s; events are kept in memory until it can", self.error)


def take_cursors(memory: sqlite3.Connection, database: sqlite3.Connection, last: int) -> None:
    """What targets acknowledged of the events in memory, which the file has now too, counts in the file.

    A target that lacks earlier events of the file, up to number ``last``, gets those in memory once more.
    """
    had = memory.execute(
        "SELECT (SELECT id FROM events WHERE number <= cursor ORDER BY number DESC LIMIT 1), name FROM targets"
    ).fetchall()
    with database:
        database.executemany(
            "UPDATE targets SET cursor = max(cursor, ifnull((SELECT number FROM events WHERE id = ?), 0)) "
            f"WHERE name = ? AND cursor >= {last}",
            had,
        )
