"""The SQLite file of the outbox: its form, its one owner, and what happens to a damaged one."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from pathlib import Path

from edge.errors import SinkError

log = logging.getLogger(__name__)
PAGE_BYTES = 4096
MIN_PAGES = 64
# sqlite3.SQLITE_FULL of Python 3.11: the limit of the file, or no space on the disk
SQLITE_FULL = 13
MAX_CHECK_S = 2.0
_NOT_OURS = ("no such ", "table ", "unsupported file format")
# where a file says which versions may write and read it: 1, or 2 with a write-ahead log
_VERSIONS = slice(18, 20)
# of an event; half of what SQLite can count to, so that there is always a next one
MAX_NUMBER = 2**62
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
CREATE TABLE IF NOT EXISTS claims (
    target TEXT NOT NULL, number INTEGER NOT NULL, message TEXT NOT NULL, PRIMARY KEY (target, number)
) WITHOUT ROWID;
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
        if not is_damage(error):
            raise
        set_database_aside(path, str(error))
        return _connect(path, max_bytes)


def open_memory(max_bytes: int) -> sqlite3.Connection:
    """The same tables in memory, for the time when the disk takes nothing."""
    return _connect(None, max_bytes)


def set_database_aside(path: Path, reason: str) -> None:
    """Keep a damaged file as ``NAME.broken``. Raises: OSError: the disk does not allow that."""
    broken = path.with_name(f"{path.name}.broken")
    log.error("events.outbox: %s is damaged (%s); it is kept as %s", path, reason, broken.name)
    path.replace(broken)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error speaks of the file's content, and not of the disk, a lock or a limit."""
    # SQLite's codes CORRUPT and NOTADB have no class of their own; tables that are not ours have no code of their own
    return type(error) in (sqlite3.DatabaseError, sqlite3.IntegrityError) or str(error).startswith(_NOT_OURS)


def is_file_full(error: sqlite3.Error) -> bool:
    """Whether a write failed because the file or the disk is full, and not for another reason such as a lock."""
    # Python 3.10 has no codes
    code = getattr(error, "sqlite_errorcode", None)
    return str(error) == "database or disk is full" if code is None else code == SQLITE_FULL


def locked(path: Path) -> int:
    """A lock next to the file that ends with the process: two writers would deliver everything twice.

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


def _connect(path: Path | None, max_bytes: int) -> sqlite3.Connection:
    """Open or make the tables, in memory where there is no path, and look whether the file is whole.

    Raises:
        sqlite3.Error: it cannot be opened or written; see ``is_damage``.
        OSError: it cannot be read.
    """
    if path is not None:
        _check_header(path)
    database = sqlite3.connect(path or ":memory:", timeout=10, check_same_thread=False)
    # a damaged text is a text with a mark in it, and no event that can never be read
    database.text_factory = lambda data: data.decode(errors="replace")
    try:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = WAL")
        # every commit reaches the disk before it counts, so a power cut loses nothing that was kept
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA wal_autocheckpoint = 256")
        database.execute("PRAGMA journal_size_limit = 1048576")
        database.execute(f"PRAGMA max_page_count = {max(max_bytes // PAGE_BYTES, MIN_PAGES)}")
        database.executescript(_TABLES)
        _check(database)
    except UnicodeDecodeError as error:
        # what SQLite wanted to say quotes the damage
        database.close()
        raise sqlite3.DatabaseError(str(error)) from None
    except sqlite3.Error:
        database.close()
        raise
    return database


def _check_header(path: Path) -> None:
    """See that SQLite would write to what is there; it takes a file of another version for one on a read-only disk."""
    if not path.exists():
        return
    if not path.is_file():
        raise sqlite3.DatabaseError("it is no ordinary file")
    with path.open("rb") as file:
        versions = file.read(_VERSIONS.stop)[_VERSIONS]
    if any(version not in (1, 2) for version in versions):
        raise sqlite3.DatabaseError(f"file format {versions.hex()}")


def _check(database: sqlite3.Connection) -> None:
    """Look at pages, columns and numbers. Raises: sqlite3.DatabaseError: they are damaged."""
    database.execute("SELECT number, id, time_ns, stream, kind, body, name, cursor FROM events, targets LIMIT 1")
    database.execute("SELECT target, number, message FROM claims LIMIT 1")
    highest = database.execute(
        "SELECT max((SELECT ifnull(max(seq), 0) FROM sqlite_sequence), (SELECT ifnull(max(number), 0) FROM events))"
    ).fetchone()[0]
    if not isinstance(highest, int) or not 0 <= highest < MAX_NUMBER:
        raise sqlite3.DatabaseError(f"the highest number is {highest!r}")
    if (found := _first_fault(database)) != "ok":
        raise sqlite3.DatabaseError(found)


def _first_fault(database: sqlite3.Connection) -> str:
    """What SQLite finds wrong with the pages, ``ok`` if nothing within ``MAX_CHECK_S``."""
    give_up_s = time.monotonic() + MAX_CHECK_S
    database.set_progress_handler(lambda: int(time.monotonic() > give_up_s), 1000)
    try:
        return str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        # a large file on a slow disk: no camera waits for it, and what is damaged is noticed when it is met
        if str(error) != "interrupted":
            raise
        return "ok"
    finally:
        database.set_progress_handler(None, 0)
