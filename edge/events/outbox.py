"""The outbox: events are kept on disk until every target has acknowledged them, within a bounded file.

What is committed survives ``kill -9`` and, with ``synchronous = FULL``, a power cut. Each target has a cursor: the
number of the last event that it acknowledged. Events are given to a target in their order, again and again until it
acknowledges them, so a receiver may see an event twice, always with the same id.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import SinkError
from edge.events.outbox_file import PAGE_BYTES, locked, open_database
from edge.events.schema import Envelope

log = logging.getLogger(__name__)
# the file may be this full before the oldest events make room
FULL_SHARE = 0.9
EVICTION_STEP = 200
INSERT_ATTEMPTS = 5
AGE_EVERY_NS = 60_000_000_000
# sqlite3.SQLITE_FULL of Python 3.11: the limit of the file, or no space on the disk
SQLITE_FULL = 13
# without targets, everything counts as delivered
MAX_NUMBER = 2**63 - 1
_LEAST_CURSOR = f"(SELECT ifnull(min(cursor), {MAX_NUMBER}) FROM targets)"
NS_PER_DAY = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of the outbox. ``number`` grows; it is no part of what a target gets."""

    number: int
    id: str
    stream: str
    kind: str
    body: str


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """How much is kept.

    Delivered events go when they are older than ``max_age_days``. Where the file is full, the oldest go: first those
    that all targets have, then, counted as lost, those that some target lacks. Age alone never removes an undelivered
    event, because a device without a battery clock may date its events to 1970.
    """

    max_bytes: int = 64 << 20
    max_age_days: float = 14.0


DEFAULT_LIMITS = OutboxLimits()


def is_file_full(error: sqlite3.Error) -> bool:
    """Whether a write failed because the file or the disk is full, and not for another reason such as a lock."""
    # Python 3.10 has no codes
    code = getattr(error, "sqlite_errorcode", None)
    return str(error) == "database or disk is full" if code is None else code == SQLITE_FULL


class Outbox:
    """A SQLite file (WAL) of one process. Any thread may call any method.

    Attributes:
        num_lost: events that had to make room before some target had acknowledged them.
    """

    def __init__(
        self,
        path: Path,
        targets: Iterable[str],
        limits: OutboxLimits = DEFAULT_LIMITS,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open or make the file. A new target gets the events from now on; one that is not named any more is forgotten.

        Args:
            path: the file; its folder is made.
            targets: names of all targets.
            limits: how much is kept.
            clock_ns: wall clock.

        Raises:
            SinkError: the file cannot be written, or another process has it.
        """
        self._path = path
        self._limits = limits
        self._clock_ns = clock_ns
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._aged_ns = 0
        self._kept = 0
        self._waiting: dict[str, int] = {}
        self._counts: Mapping[str, int] = {}
        self.num_lost = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._guard = locked(path)
        except OSError as error:
            raise SinkError(f"events.outbox: {path} cannot be written ({error.strerror})") from None
        try:
            self._database = open_database(path, limits.max_bytes)
            self._register(list(targets))
            self._count_all()
        except (sqlite3.Error, OSError) as error:
            os.close(self._guard)
            raise SinkError(f"events.outbox: {path} cannot be opened ({error})") from None

    def put(self, envelopes: Sequence[Envelope]) -> None:
        """Keep events: all are on disk when this returns, or none. An id that is there already is left as it is.

        Raises:
            SinkError: the disk is full or broken; the events are not kept.
        """
        rows = [(event.id, event.time_ns, event.stream, event.kind, event.body) for event in envelopes]
        with self._changed:
            try:
                self._make_room()
                self._insert(rows)
            except sqlite3.Error as error:
                raise SinkError(f"events.outbox: {self._path}: {len(rows)} events were lost ({error})") from None
            self._changed.notify_all()

    def pending(self, target: str, limit: int, timeout_s: float = 0.0) -> list[StoredEvent]:
        """The oldest events that a target has not acknowledged; waits for the first one.

        Raises:
            SinkError: the file cannot be read.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_pending(target), timeout_s)
            rows = self._rows(
                "SELECT number, id, stream, kind, body FROM events WHERE number > "
                "(SELECT cursor FROM targets WHERE name = ?) ORDER BY number LIMIT ?",
                (target, limit),
            )
        return [StoredEvent(*row) for row in rows]

    def acknowledge(self, target: str, number: int) -> None:
        """A target has every event up to this number.

        Raises:
            SinkError: this could not be written; the events will be delivered again.
        """
        with self._lock:
            try:
                num_done = self._database.execute(
                    "SELECT count(*) FROM events WHERE number <= ? AND number > "
                    "(SELECT cursor FROM targets WHERE name = ?)",
                    (number, target),
                ).fetchone()[0]
                with self._database:
                    self._database.execute(
                        "UPDATE targets SET cursor = max(cursor, ?) WHERE name = ?", (number, target)
                    )
            except sqlite3.Error as error:
                raise SinkError(f"events.outbox: {self._path}: a cursor was not kept ({error})") from None
            self._note(0, {target: -num_done})

    def recent(self, limit: int, stream: str | None = None) -> list[StoredEvent]:
        """The newest events, newest first, delivered ones included."""
        with self._lock:
            rows = self._rows(
                "SELECT number, id, stream, kind, body FROM events WHERE ?1 IS NULL OR stream = ?1 "
                "ORDER BY number DESC LIMIT ?2",
                (stream, limit),
            )
        return [StoredEvent(*row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Events kept, lost, and waiting per target; after ``close`` only those lost. Never waits for the disk."""
        return dict(self._counts)

    def used_bytes(self) -> int:
        """What the events take within the file."""
        with self._lock:
            pages = self._pragma("page_count") - self._pragma("freelist_count")
        return pages * PAGE_BYTES

    def wake(self) -> None:
        """End all waits."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """May be called twice."""
        with self._lock:
            self._database.close()
            if self._guard >= 0:
                os.close(self._guard)
            self._guard = -1
            self._counts = {"lost": self.num_lost}

    def _register(self, targets: list[str]) -> None:
        with self._lock, self._database:
            last = self._database.execute("SELECT ifnull(max(seq), 0) FROM sqlite_sequence").fetchone()[0]
            known = ",".join("?" * len(targets))
            self._database.execute(f"DELETE FROM targets WHERE name NOT IN ({known})", targets)
            self._database.executemany(
                "INSERT OR IGNORE INTO targets VALUES (?, ?)", [(name, last) for name in targets]
            )

    def _is_pending(self, target: str) -> bool:
        return bool(
            self._rows(
                "SELECT 1 FROM events WHERE number > (SELECT cursor FROM targets WHERE name = ?) LIMIT 1", (target,)
            )
        )

    def _count_all(self) -> None:
        """Count by looking at every event, which takes long in a large file; later changes are added by ``_note``."""
        self._kept = self._database.execute("SELECT count(*) FROM events").fetchone()[0]
        self._waiting = self._waiting_up_to(MAX_NUMBER)
        self._note(0, {})

    def _waiting_up_to(self, number: int | None) -> dict[str, int]:
        """Per target, the events up to this number that it has not acknowledged."""
        waiting = "(SELECT count(*) FROM events WHERE number > cursor AND number <= ?)"
        return dict(self._database.execute(f"SELECT name, {waiting} FROM targets ORDER BY name", (number,)).fetchall())

    def _note(self, more_kept: int, more_waiting: Mapping[str, int]) -> None:
        """Bring the counts up to date after a commit."""
        self._kept += more_kept
        self._waiting = {name: count + more_waiting.get(name, 0) for name, count in self._waiting.items()}
        waiting = {f"waiting_{name}": count for name, count in self._waiting.items()}
        # replaced and never changed, so that who reads it needs no lock
        self._counts = {"kept": self._kept, "lost": self.num_lost, **waiting}

    def _insert(self, rows: list[tuple[str, int, str, str, str]]) -> None:
        for attempt in range(INSERT_ATTEMPTS):
            try:
                with self._database:
                    num_new = self._database.executemany(
                        "INSERT OR IGNORE INTO events (id, time_ns, stream, kind, body) VALUES (?, ?, ?, ?, ?)", rows
                    ).rowcount
            except sqlite3.OperationalError as error:
                # what is oldest makes room, but not for a fault that more room does not mend
                is_last = attempt == INSERT_ATTEMPTS - 1 or not is_file_full(error)
                if is_last or not self._evict_oldest(EVICTION_STEP << attempt):
                    raise
            else:
                self._note(num_new, dict.fromkeys(self._waiting, num_new))
                return

    def _make_room(self) -> None:
        """Let delivered events go when their time is over, and the oldest ones as long as the file is too full."""
        now_ns = self._clock_ns()
        if abs(now_ns - self._aged_ns) >= AGE_EVERY_NS:
            self._aged_ns = now_ns
            with self._database:
                num_gone = self._database.execute(
                    f"DELETE FROM events WHERE time_ns < ? AND number <= {_LEAST_CURSOR}",
                    (now_ns - int(self._limits.max_age_days * NS_PER_DAY),),
                ).rowcount
            self._note(-num_gone, {})
        while self.used_bytes() > self._limits.max_bytes * FULL_SHARE and self._evict_oldest(EVICTION_STEP):
            pass

    def _evict_oldest(self, count: int) -> int:
        """Delete the oldest events; numbers and cursors only grow, so what all targets have lies before the rest."""
        with self._database:
            last = self._database.execute(
                "SELECT max(number) FROM (SELECT number FROM events ORDER BY number LIMIT ?)", (count,)
            ).fetchone()[0]
            missed = self._waiting_up_to(last)
            num_gone = self._database.execute("DELETE FROM events WHERE number <= ?", (last,)).rowcount
        lost = max(missed.values(), default=0)
        self.num_lost += lost
        self._note(-num_gone, {target: -count for target, count in missed.items()})
        if lost:
            log.error("events.outbox: %d undelivered events made room (%d so far)", lost, self.num_lost)
        return num_gone

    def _rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise SinkError(f"events.outbox: {self._path} cannot be read ({error})") from None

    def _pragma(self, name: str) -> int:
        return int(self._rows(f"PRAGMA {name}", ())[0][0])
