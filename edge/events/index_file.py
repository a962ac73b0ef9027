"""The SQLite file behind the event index: what each event was, narrow facts apart from the text that a page shows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge.events.columns import FIELDS
from edge.events.outbox_file import is_damage, set_database_aside

NUMBERS = ", ".join(FIELDS)
_TABLES = f"""
CREATE TABLE IF NOT EXISTS words (code INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    time_ns INTEGER NOT NULL, track_id INTEGER, data TEXT NOT NULL, links TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (number INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL,
    {", ".join(f"{name} INTEGER NOT NULL" for name in FIELDS)}, seen INTEGER NOT NULL);
"""


def open_index(path: Path) -> sqlite3.Connection:
    """Open or make the file; a damaged one is set aside as ``NAME.broken``.

    Raises:
        sqlite3.Error, OSError: it cannot be opened or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        set_database_aside(path, str(error))
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=10, check_same_thread=False)
    database.text_factory = lambda data: data.decode(errors="replace")
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # the outbox forgets what is acknowledged here
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA journal_size_limit = 1048576")
        database.executescript(_TABLES)
        database.execute(f"SELECT number, time_ns, {NUMBERS}, seen FROM facts LIMIT 1")
        database.execute("SELECT number, id, time_ns, track_id, data, links FROM events LIMIT 1")
    except sqlite3.Error:
        database.close()
        raise
    return database


def codes_in(database: sqlite3.Connection) -> dict[str, int]:
    """Word → code; the empty word is 0."""
    return {"": 0, **{str(word): int(code) for code, word in database.execute("SELECT code, word FROM words")}}


def facts_in(database: sqlite3.Connection, after: int = -1) -> list[tuple[int, ...]]:
    """Rows of ``edge.events.columns.COLUMNS`` with a larger number."""
    query = f"SELECT time_ns, number, {NUMBERS}, seen FROM facts WHERE number > ?"
    return database.execute(query, (after,)).fetchall()


def texts_in(database: sqlite3.Connection, numbers: Sequence[int]) -> dict[int, tuple[str, int | None, str, str]]:
    """Number → (id, track_id, data, links)."""
    marks = ",".join("?" * len(numbers))
    query = f"SELECT number, id, track_id, data, links FROM events WHERE number IN ({marks})"
    return {row[0]: row[1:] for row in database.execute(query, numbers)}


def insert(database: sqlite3.Connection, row: tuple[str, int, int | None, str, str], codes: Iterable[int]) -> int:
    """Keep one event, unseen; its number, 0 where its id is there already. Within the caller's transaction."""
    done = database.execute(
        "INSERT OR IGNORE INTO events (id, time_ns, track_id, data, links) VALUES (?, ?, ?, ?, ?)", row
    )
    if not done.rowcount:
        return 0
    marks = ",".join("?" * len(FIELDS))
    database.execute(f"INSERT INTO facts VALUES (?, ?, {marks}, 0)", (done.lastrowid, row[1], *codes))
    return int(done.lastrowid or 0)


def keep_word(database: sqlite3.Connection, word: str, code: int) -> None:
    """Within the caller's transaction."""
    database.execute("INSERT INTO words VALUES (?, ?)", (code, word))


def mark(database: sqlite3.Connection, numbers: Sequence[int], is_seen: bool) -> None:
    """Note these events as seen, or as not seen."""
    with database:
        database.executemany(
            "UPDATE facts SET seen = ? WHERE number = ?", [(int(is_seen), number) for number in numbers]
        )


def numbers_of(database: sqlite3.Connection, ids: Sequence[str]) -> list[int]:
    """Of those that are there."""
    marks = ",".join("?" * len(ids))
    return [int(row[0]) for row in database.execute(f"SELECT number FROM events WHERE id IN ({marks})", ids)]


def remove(database: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Forget these events. Within the caller's transaction."""
    for table in ("events", "facts"):
        database.executemany(f"DELETE FROM {table} WHERE number = ?", [(number,) for number in numbers])
