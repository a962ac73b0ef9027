"""The outbox: events are kept on disk until every target has acknowledged them, within a bounded file.

What is committed survives ``kill -9`` and, with ``synchronous = FULL``, a power cut. Each target has a cursor: the
number of the last event that it acknowledged. Events are given to a target in their order, again and again until it
acknowledges them, so a receiver may see an event twice, always with the same id.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.errors import SinkError
from edge.events.outbox_file import MAX_NUMBER, PAGE_BYTES, is_damage, is_file_full
from edge.events.outbox_store import Store, take_cursors
from edge.events.schema import Envelope
from edge.events.stored import DEFAULT_LIMITS, NS_PER_DAY, OutboxLimits, StoredEvent

log = logging.getLogger(__name__)
# the file may be this full before the oldest events make room
FULL_SHARE = 0.9
EVICTION_STEP = 200
INSERT_ATTEMPTS = 5
AGE_EVERY_NS = 60_000_000_000
# a smaller difference between the clocks is no step of the wall clock
STEP_NS = 60_000_000_000
# without targets, everything counts as delivered
_LEAST_CURSOR = f"(SELECT ifnull(min(cursor), {MAX_NUMBER}) FROM targets)"
# beyond the cursor, what a target has already (empty message), or will get as part of a message
_SETTLED = "EXISTS (SELECT 1 FROM claims WHERE target = name AND claims.number = events.number AND message = '')"
_CLAIMED = "EXISTS (SELECT 1 FROM claims WHERE target = ?1 AND claims.number = events.number)"
_COLUMNS = "id, time_ns, stream, kind, body"
# whatever a damaged file holds, what comes out of it is text
_EVENT = "number, CAST(id AS TEXT), CAST(stream AS TEXT), CAST(kind AS TEXT), CAST(body AS TEXT)"


class Outbox:
    """A SQLite file (WAL) of one process. Any thread may call any method.

    While the disk is full, read-only or broken, events are kept in memory and the file is tried again; a damaged file
    is set aside as ``NAME.broken``. Neither ends anything.

    Attributes:
        num_lost: events that had to make room before some target had acknowledged them.
        generation: grows when events may have other numbers than before: another file, or the memory, has them.
    """

    def __init__(
        self,
        path: Path,
        targets: Iterable[str],
        limits: OutboxLimits = DEFAULT_LIMITS,
        clock_ns: Callable[[], int] = time.time_ns,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Open or make the file. A new target gets the events from now on; one that is not named any more is forgotten.

        Args:
            path: the file; its folder is made.
            targets: names of all targets.
            limits: how much is kept.
            clock_ns: wall clock.
            now_ns: the monotonic clock, against which a step of the wall clock is noticed.

        Raises:
            SinkError: the path is of no use, or another process has the file.
        """
        self._path = path
        self._targets = list(targets)
        self._limits = limits
        self._clock_ns, self._now_ns = clock_ns, now_ns
        self._offset_ns = clock_ns() - now_ns()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._aged_ns = 0
        self._first_number = 0
        self._kept = 0
        self._waiting: dict[str, int] = {}
        self._counts: Mapping[str, int] = {}
        self.num_lost = 0
        self.generation = 0
        self._store = Store(path, limits.max_bytes)
        self._begin()

    def put(self, envelopes: Sequence[Envelope]) -> None:
        """Keep events: all are on disk when this returns, or none. An id that is there already is left as it is.

        Raises:
            SinkError: the disk is full or broken; the events are not kept.
        """
        rows = [(event.id, event.time_ns, event.stream, event.kind, event.body) for event in envelopes]
        with self._changed:
            with self._in_words(f": {len(rows)} events were lost"):
                self._make_room()
                self._insert(rows)
            self._changed.notify_all()

    def pending(self, target: str, limit: int, timeout_s: float = 0.0) -> list[StoredEvent]:
        """The oldest events that a target has not acknowledged; waits for the first one.

        Raises:
            SinkError: the file cannot be read.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_pending(target), timeout_s)
            rows = self._rows(
                f"SELECT {_EVENT} FROM events WHERE number > "
                "(SELECT cursor FROM targets WHERE name = ?) ORDER BY number LIMIT ?",
                (target, limit),
            )
        return [StoredEvent(*row) for row in rows]

    def acknowledge(self, target: str, number: int) -> None:
        """A target has every event up to this number.

        Raises:
            SinkError: this could not be written; the events will be delivered again.
        """
        with self._lock, self._in_words(": a cursor was not kept"):
            num_done = self._database.execute(
                "SELECT count(*) FROM events WHERE number <= ? AND number > "
                "(SELECT cursor FROM targets WHERE name = ?)",
                (number, target),
            ).fetchone()[0]
            with self._database:
                self._database.execute("UPDATE targets SET cursor = max(cursor, ?) WHERE name = ?", (number, target))
            self._note(0, {target: -num_done})

    def unclaimed(self, target: str, after: int, limit: int, timeout_s: float = 0.0) -> list[StoredEvent]:
        """The oldest events after a number that a target neither acknowledged nor claimed; waits for the first one.

        Raises:
            SinkError: the file cannot be read.
        """
        query = (
            f"SELECT {_EVENT} FROM events WHERE number > max(?2, (SELECT cursor FROM targets WHERE name = ?1)) "
            f"AND NOT {_CLAIMED} ORDER BY number LIMIT ?3"
        )
        with self._changed:
            self._changed.wait_for(lambda: bool(self._rows(query, (target, after, 1))), timeout_s)
            return [StoredEvent(*row) for row in self._rows(query, (target, after, limit))]

    def claim(self, target: str, message: str, ids: Sequence[str]) -> None:
        """These events are one message of a target from now on, whatever happens; an empty name: it has them.

        Raises:
            SinkError: this could not be written.
        """
        with self._lock, self._in_words(": a message was not kept"):
            with self._database:
                self._database.executemany(
                    "INSERT OR IGNORE INTO claims SELECT ?, number, ? FROM events WHERE id = ?",
                    [(target, message, event_id) for event_id in ids],
                )
            if not message:
                self._advance(target)

    def claimed(self, target: str) -> tuple[str, list[StoredEvent]] | None:
        """The oldest message of a target that it has not acknowledged, and those of its events that are still kept.

        Raises:
            SinkError: the file cannot be read.
        """
        with self._lock:
            rows = self._rows(
                "SELECT CAST(message AS TEXT) FROM claims WHERE target = ? AND message != '' ORDER BY number LIMIT 1",
                (target,),
            )
            if not rows:
                return None
            events = self._rows(
                f"SELECT {_EVENT} FROM events WHERE number IN "
                "(SELECT number FROM claims WHERE target = ? AND message = ?) ORDER BY number",
                (target, rows[0][0]),
            )
        return rows[0][0], [StoredEvent(*row) for row in events]

    def settle(self, target: str, message: str) -> None:
        """A target has this message.

        Raises:
            SinkError: this could not be written; the message will be delivered again.
        """
        with self._lock, self._in_words(": a cursor was not kept"):
            with self._database:
                self._database.execute(
                    "UPDATE claims SET message = '' WHERE target = ? AND message = ?", (target, message)
                )
            self._advance(target)

    def add_target(self, target: str) -> None:
        """From now on a target of this name gets the events; one that is there already goes on.

        Raises:
            SinkError: this could not be written.
        """
        with self._lock, self._in_words(": a target was not kept"):
            self._targets = [*(name for name in self._targets if name != target), target]
            with self._database:
                last = self._database.execute("SELECT ifnull(max(seq), 0) FROM sqlite_sequence").fetchone()[0]
                self._database.execute("INSERT OR IGNORE INTO targets VALUES (?, ?)", (target, last))
            self._count_all()

    def remove_target(self, target: str) -> None:
        """A target is no more.

        Raises:
            SinkError: this could not be written.
        """
        with self._lock, self._in_words(": a target was not forgotten"):
            self._targets = [name for name in self._targets if name != target]
            with self._database:
                self._database.execute("DELETE FROM targets WHERE name = ?", (target,))
                self._database.execute("DELETE FROM claims WHERE target = ?", (target,))
            self._count_all()

    def recent(self, limit: int, stream: str | None = None) -> list[StoredEvent]:
        """The newest events, newest first, delivered ones included."""
        with self._lock:
            rows = self._rows(
                f"SELECT {_EVENT} FROM events WHERE ?1 IS NULL OR stream = ?1 ORDER BY number DESC LIMIT ?2",
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

    def look_for_file(self) -> None:
        """Take the file in place of the memory, where it is time to ask and the disk lets us."""
        with self._lock:
            if (memory := self._store.leave_memory()) is not None:
                self._move_from(memory)

    def wake(self) -> None:
        """End all waits."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """May be called twice."""
        with self._lock:
            num_waiting = max(self._waiting.values(), default=0)
            if self.error and num_waiting:
                log.error("events.outbox: %d events were in memory only and are lost (%s)", num_waiting, self.error)
            self._store.close()
            self._counts = {"lost": self.num_lost}

    def _advance(self, target: str) -> None:
        """Move a cursor over the events that its target has, and count again what it lacks."""
        with self._database:
            self._database.execute(
                "UPDATE targets SET cursor = max(cursor, ifnull((SELECT min(number) - 1 FROM events "
                f"WHERE number > cursor AND NOT {_SETTLED}), (SELECT max(seq) FROM sqlite_sequence))) WHERE name = ?",
                (target,),
            )
            self._database.execute(
                "DELETE FROM claims WHERE target = ?1 AND number <= (SELECT cursor FROM targets WHERE name = ?1)",
                (target,),
            )
        num_waiting = self._waiting_up_to(MAX_NUMBER).get(target, 0)
        self._note(0, {target: num_waiting - self._waiting.get(target, 0)})

    @property
    def error(self) -> str:
        """Why events are kept in memory only; empty while all is well."""
        return self._store.error

    @property
    def _database(self) -> sqlite3.Connection:
        return self._store.database

    def _move_from(self, memory: sqlite3.Connection) -> None:
        try:
            self._register()
            last = self._first_number
            self._insert(memory.execute(f"SELECT {_COLUMNS} FROM events ORDER BY number").fetchall())
            take_cursors(memory, self._database, last)
            self._count_all()
        except sqlite3.Error as error:
            self._store.back_to_memory(memory, error)
            self._begin()
            return
        memory.close()
        log.info("events.outbox: %s can be used again; %d events are kept there", self._path, self._kept)

    @contextmanager
    def _in_words(self, what: str) -> Iterator[None]:
        """Turn what SQLite says within the block into a ``SinkError``; a damaged file makes room for a new one."""
        try:
            yield
        except sqlite3.Error as error:
            if is_damage(error):
                self._store.replace(error)
                self._begin()
            raise SinkError(f"events.outbox: {self._path}{what} ({error})") from None

    def _begin(self) -> None:
        """Take over what the store has opened; what cannot be used makes room for a new file, or for the memory."""
        while True:
            try:
                self._register()
                self._count_all()
            except sqlite3.Error as error:
                self._store.replace(error)
            else:
                return

    def _register(self) -> None:
        """Name the targets. Cursors that no event can have are damaged: events come twice rather than never."""
        with self._database:
            last = self._database.execute("SELECT ifnull(max(seq), 0) FROM sqlite_sequence").fetchone()[0]
            known = ",".join("?" * len(self._targets))
            self._database.execute(f"DELETE FROM targets WHERE name NOT IN ({known})", self._targets)
            self._database.execute(f"DELETE FROM claims WHERE target NOT IN ({known})", self._targets)
            self._database.execute(
                "UPDATE targets SET cursor = CASE typeof(cursor) WHEN 'integer' THEN min(cursor, ?) ELSE 0 END", (last,)
            )
            self._database.executemany(
                "INSERT OR IGNORE INTO targets VALUES (?, ?)", [(name, last) for name in self._targets]
            )
        self._first_number = last
        self.generation += 1

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
        waiting = f"(SELECT count(*) FROM events WHERE number > cursor AND number <= ? AND NOT {_SETTLED})"
        return dict(self._database.execute(f"SELECT name, {waiting} FROM targets ORDER BY name", (number,)).fetchall())

    def _note(self, more_kept: int, more_waiting: Mapping[str, int]) -> None:
        """Bring the counts up to date after a commit."""
        self._kept += more_kept
        self._waiting = {name: count + more_waiting.get(name, 0) for name, count in self._waiting.items()}
        # a target of the program's own, whose name begins with a dot, is nobody's to watch
        waiting = {f"waiting_{name}": count for name, count in self._waiting.items() if not name.startswith(".")}
        # replaced and never changed, so that who reads it needs no lock
        self._counts = {"kept": self._kept, "lost": self.num_lost, **waiting}

    def _insert(self, rows: list[tuple[str, int, str, str, str]]) -> None:
        for attempt in range(INSERT_ATTEMPTS):
            try:
                with self._database:
                    num_new = self._database.executemany(
                        f"INSERT OR IGNORE INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", rows
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
        self._follow_clock(now_ns - self._now_ns())
        if abs(now_ns - self._aged_ns) >= AGE_EVERY_NS:
            self._aged_ns = now_ns
            with self._database:
                num_gone = self._database.execute(
                    f"DELETE FROM events WHERE time_ns < ? AND number <= {_LEAST_CURSOR}",
                    (now_ns - int(self._limits.max_age_days * NS_PER_DAY),),
                ).rowcount
            self._note(-num_gone, {})
        while self.used_bytes() > self._store.max_bytes * FULL_SHARE and self._evict_oldest(EVICTION_STEP):
            pass

    def _follow_clock(self, offset_ns: int) -> None:
        """The wall clock was set: what this run has kept became as much older or younger as it was wrong."""
        step_ns, self._offset_ns = offset_ns - self._offset_ns, offset_ns
        if abs(step_ns) > STEP_NS:
            with self._database:
                self._database.execute(
                    "UPDATE events SET time_ns = time_ns + ? WHERE number > ?", (step_ns, self._first_number)
                )

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
        with self._in_words(" cannot be read"):
            return self._database.execute(query, values).fetchall()
        raise AssertionError

    def _pragma(self, name: str) -> int:
        return int(self._rows(f"PRAGMA {name}", ())[0][0])
