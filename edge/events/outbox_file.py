"""The SQLite file of the outbox: its form, its one owner, and what happens to a damaged one."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from pathlib import Path

from edge.errors import SinkError

log = logging.getLogger(__name__)
PAGE_BYTES = 4096
MIN_PAGES = 64
_TABLES = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    time_ns INTEGER NOT NULL,
    stream TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS targets (name TEXT PRIMARY KEY, cursor INTEGER NOT NULL);
"""


def open_database(path: Path, max_bytes: int) -> sqlite3.Connection:
    """Open or make the file; a damaged one is set aside as ``NAME.broken``.

    Args:
        path: the file.
        max_bytes: SQLite refuses to let it grow beyond.

    Raises:
        sqlite3.Error, OSError: it cannot be opened or written.
    """
    try:
        return _connect(path, max_bytes)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        broken = path.with_name(f"{path.name}.broken")
        log.error("events.outbox: %s is damaged (%s); it is kept as %s", path, error, broken.name)
        path.replace(broken)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connect(path, max_bytes)


def locked(path: Path) -> int:
    """A lock beside the file that ends with the process: two writers would deliver everything twice.

    Raises:
        OSError: the folder cannot be written.
        SinkError: another process has the lock.
    """
    handle = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise SinkError(f"events.outbox: {path} is in use by another process; expected a file of its own") from None
    return handle


def _connect(path: Path, max_bytes: int) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=10, check_same_thread=False)
    try:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = WAL")
        # every commit reaches the disk before it counts, so a power cut loses nothing that was kept
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA wal_autocheckpoint = 256")
        database.execute("PRAGMA journal_size_limit = 1048576")
        database.execute(f"PRAGMA max_page_count = {max(max_bytes // PAGE_BYTES, MIN_PAGES)}")
        database.executescript(_TABLES)
        database.execute("SELECT count(*) FROM events, targets").fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database
