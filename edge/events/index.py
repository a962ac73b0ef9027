"""Finds events again: by camera, kind, class, zone, line, label and time, and by whether somebody has seen them.

It is a target of the outbox, so what the outbox has kept comes here, once. Filters run over columns in memory (33 bytes
an event), so that none of them is slow; the file gives what the page shows of the few that were found, and stays.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import SinkError
from edge.events import index_file as file
from edge.events.columns import COLUMNS, FIELDS, MAX_NS, EventColumns, Filter
from edge.events.delivery import Delivered
from edge.events.outbox_file import is_damage, set_database_aside
from edge.events.stored import NS_PER_DAY, StoredEvent
from edge.recording.clock import RecordingClock

log = logging.getLogger(__name__)
# no target that a user names can have this name
NAME = ".review"
MAX_PAGE = 200
MAX_MARKED = 10_000
MAX_BUCKETS = 2_000
LIMIT_EVERY_S = 60.0
REMOVED_AT_ONCE = 5_000
MAX_WORD = 200
Cursor = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are wanted; see ``edge.events.columns.Filter``.

    Attributes:
        words: field (stream, kind, class, zone, line, label) → one of which it must have; without it, anything.
    """

    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    start_ns: int = 0
    end_ns: int = MAX_NS
    seen: bool | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the events that were found, newest first.

    Attributes:
        events: as the outbox gave them, without model and frame, and with ``seen``.
        after: where the next page begins; None: there is no more.
        found, unseen: how many there are, on all pages.
    """

    events: list[dict[str, Any]]
    after: Cursor | None
    found: int
    unseen: int


class EventIndex:
    """A target of the outbox; its ``Target`` methods are called by one thread, all others by any.

    Args:
        path: the SQLite file; its folder is made.
        max_events, max_days: what is kept; the oldest go first.
        backfill: what the outbox has, oldest first, for a new file.
        clock: that of ages, by which nothing goes until it has been right for an hour; None: that of the device.
    """

    name = NAME

    def __init__(
        self,
        path: Path,
        max_events: int = 1_000_000,
        max_days: float = 30.0,
        backfill: Callable[[], Sequence[StoredEvent]] = tuple,
        clock: RecordingClock | None = None,
    ) -> None:
        self._path = path
        self._max_events, self._max_ns = max_events, int(max_days * NS_PER_DAY)
        self._backfill, self._clock = backfill, clock or RecordingClock()
        # who has both takes ``_writing`` first
        self._writing, self._reading = threading.RLock(), threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._codes: dict[str, int] = {"": 0}
        self._words: list[str] = [""]
        self._columns = EventColumns()
        self._limited_s = float("-inf")
        self._is_closed = False

    # as a target

    def deliver(self, events: Sequence[StoredEvent]) -> Delivered:
        """Keep events; one that is there already is left as it is. Raises: SinkError: the file cannot be written."""
        with self._writing, self._in_words():
            self._insert(self._opened(), events)
        self.keep_alive()
        return Delivered(len(events))

    def keep_alive(self) -> None:
        """Open the file, and let the oldest go now and then. Raises: SinkError: it cannot be written."""
        if time.monotonic() - self._limited_s < LIMIT_EVERY_S and len(self._columns) <= self._max_events:
            return
        self._limited_s = time.monotonic()
        with self._writing, self._in_words():
            self._remove_oldest(self._opened())

    def close(self) -> None:
        """May be called twice."""
        with self._writing, self._reading:
            self._is_closed = True
            self._close_files()

    # for the page

    def page(self, wanted: Wanted, before: Cursor | None = None, limit: int = 50) -> Page:
        """The newest events that are wanted, or those that come before a cursor.

        Raises:
            SinkError: the file cannot be read.
        """
        with self._in_words():
            self._ready()
            with self._reading:
                places = self._columns.find(self._coded(wanted))
                unseen = int(np.count_nonzero(~self._columns["seen"][places]))
                end = len(places) if before is None else self._end(places, before)
                chosen = places[max(0, end - min(limit, MAX_PAGE)) : end][::-1]
                events = self._events(chosen)
                last = int(chosen[-1]) if len(chosen) < end and len(chosen) else None
                after = (
                    None if last is None else (int(self._columns["time_ns"][last]), int(self._columns["number"][last]))
                )
        return Page(events, after, len(places), unseen)

    def facets(self, wanted: Wanted) -> dict[str, dict[str, int]]:
        """Field → word → how many events there would be with it, all other filters as they are, most frequent first."""
        with self._in_words():
            self._ready()
            with self._reading:
                counted = {name: self._columns.counts(self._coded(wanted), name) for name in FIELDS}
        return {
            name: {self._words[code]: n for code, n in sorted(numbers.items(), key=lambda item: -item[1]) if code}
            for name, numbers in counted.items()
        }

    def density(self, wanted: Wanted, num_buckets: int) -> tuple[list[int], list[int]]:
        """How many events lie in each equal part of the wanted time: all of them, and those that nobody has seen."""
        with self._in_words():
            self._ready()
            with self._reading:
                places = self._columns.find(self._coded(wanted))
                fresh = places[~self._columns["seen"][places]]
                span = (wanted.start_ns, wanted.end_ns, min(num_buckets, MAX_BUCKETS))
                return self._columns.density(places, *span).tolist(), self._columns.density(fresh, *span).tolist()

    def span(self, streams: Sequence[str] = ()) -> tuple[int, int] | None:
        """Times of the oldest and the newest event, of these streams or of all, in ns since 1970; None without one."""
        with self._in_words():
            self._ready()
            with self._reading:
                places = self._columns.find(self._coded(Wanted({"stream": streams}))) if streams else slice(None)
                times = self._columns["time_ns"][places]
                return (int(times[0]), int(times[-1])) if len(times) else None

    def streams(self) -> list[str]:
        """The names of those that it has events of. Raises: SinkError: the file cannot be read."""
        with self._in_words():
            self._ready()
            with self._reading:
                return [self._words[code] for code in np.flatnonzero(np.bincount(self._columns["stream"])) if code]

    def stream_of(self, event_id: str) -> str | None:
        """The stream of an event; None where it is not known. Raises: SinkError: the file cannot be read."""
        with self._in_words():
            self._ready()
            with self._reading:
                assert self._reader is not None
                numbers = file.numbers_of(self._reader, [event_id])
                places = np.flatnonzero(np.isin(self._columns["number"], numbers))
                return self._words[int(self._columns["stream"][places[0]])] if len(places) else None

    def mark(self, ids: Sequence[str], *, is_seen: bool) -> int:
        """Note these as seen, or not; how many there are. Raises: SinkError: the file cannot be written."""
        with self._writing, self._in_words():
            numbers = file.numbers_of(self._opened(), list(ids)[:MAX_PAGE])
            self._mark(numbers, is_seen)
        return len(numbers)

    def mark_all(self, wanted: Wanted, *, is_seen: bool) -> tuple[int, int]:
        """Note all of these as seen, or not, at most ``MAX_MARKED`` of them; how many were, and how many are left."""
        other = Wanted(wanted.words, wanted.start_ns, wanted.end_ns, not is_seen)
        with self._writing, self._in_words():
            self._opened()
            with self._reading:
                places = self._columns.find(self._coded(other))
                numbers = self._columns["number"][places[-MAX_MARKED:]].tolist()
            self._mark(numbers, is_seen)
        return len(numbers), len(places) - len(numbers)

    # the file

    def _mark(self, numbers: list[int], is_seen: bool) -> None:
        file.mark(self._opened(), numbers, is_seen)
        with self._reading:
            self._columns["seen"][np.isin(self._columns["number"], numbers)] = is_seen

    def _ready(self) -> None:
        if self._writer is None:
            with self._writing:
                self._opened()

    def _opened(self) -> sqlite3.Connection:
        """The connection that writes; opens the file and reads its columns, if that was not done."""
        if self._is_closed:
            raise SinkError("the index of events is closed")
        if self._writer is None:
            writer = file.open_index(self._path)
            with self._reading:
                self._codes = file.codes_in(writer)
                self._words = [word for word, _ in sorted(self._codes.items(), key=lambda item: item[1])]
                self._columns = EventColumns()
                self._columns.add(file.facts_in(writer))
                self._reader = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
            self._writer = writer
            if not len(self._columns):
                self._insert(writer, self._backfill())
        return self._writer

    def _insert(self, database: sqlite3.Connection, events: Sequence[StoredEvent]) -> None:
        rows, fresh = [], dict(self._codes)
        with database:
            for event in events:
                row, words = _told(event)
                codes = [self._code(database, fresh, word) for word in words]
                if number := file.insert(database, row, codes):
                    rows.append((row[1], number, *codes, 0))
        with self._reading:
            self._codes = fresh
            self._words = list(fresh)
            self._columns.add(rows)

    @staticmethod
    def _code(database: sqlite3.Connection, codes: dict[str, int], word: str) -> int:
        if word not in codes:
            # codes are given in turn, so the dictionary is in their order
            codes[word] = len(codes)
            file.keep_word(database, word, codes[word])
        return codes[word]

    def _remove_oldest(self, database: sqlite3.Connection) -> None:
        with self._reading:
            times = self._columns["time_ns"]
            now_ns = self._clock.now_ns() + self._clock.offset_ns()
            old = int(np.searchsorted(times, now_ns - self._max_ns)) if self._clock.is_steady() else 0
            count = min(max(old, len(times) - self._max_events), REMOVED_AT_ONCE)
            numbers = self._columns["number"][:count].tolist()
        if not numbers:
            return
        with database:
            file.remove(database, numbers)
        with self._reading:
            self._columns.drop_first(len(numbers))

    def _events(self, places: Any) -> list[dict[str, Any]]:
        assert self._reader is not None
        columns = {name: self._columns[name][places].tolist() for name in COLUMNS}
        texts = file.texts_in(self._reader, columns["number"])
        found = []
        for row in range(len(places)):
            one = {name: columns[name][row] for name in COLUMNS}
            if (text := texts.get(one["number"])) is None:
                continue
            event_id, track_id, data, links = text
            found.append(
                {
                    "id": event_id,
                    "kind": self._words[one["kind"]],
                    "stream": self._words[one["stream"]],
                    "time": iso_of(one["time_ns"]),
                    "track_id": track_id,
                    "data": json.loads(data),
                    "links": json.loads(links),
                    "seen": one["seen"],
                }
            )
        return found

    def _end(self, places: Any, before: Cursor) -> int:
        """How many of these places come before a cursor."""
        return int(np.searchsorted(places, self._columns.place_before(*before)))

    def _coded(self, wanted: Wanted) -> Filter:
        # no event has a word that was never met
        codes = {
            name: frozenset(self._codes.get(word, -1) for word in words)
            for name, words in wanted.words.items()
            if words
        }
        return Filter(codes, wanted.start_ns, wanted.end_ns, wanted.seen)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn what SQLite says into a ``SinkError``; a damaged file makes room for a new one."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.Error) and is_damage(error):
                self._set_aside(error)
            raise SinkError(f"events: {self._path} cannot be used ({error})") from None

    def _set_aside(self, error: sqlite3.Error) -> None:
        with self._writing, self._reading:
            self._close_files()
        try:
            set_database_aside(self._path, str(error))
        except OSError as failure:
            log.error("events: %s is damaged and cannot be set aside (%s)", self._path, failure.strerror)

    def _close_files(self) -> None:
        for database in (self._writer, self._reader):
            if database is not None:
                database.close()
        self._writer = self._reader = None


def _told(event: StoredEvent) -> tuple[tuple[str, int, int | None, str, str], tuple[str, ...]]:
    """The row of an event, and its words in the order of ``FIELDS``."""
    try:
        body = json.loads(event.body)
    except ValueError:
        body = None
    body = body if isinstance(body, dict) else {}
    data, links = _table(body, "data"), _table(body, "links")
    scores = {str(name): score for name, score in _table(data, "labels").items() if isinstance(score, (int, float))}
    label = max(scores, key=lambda name: scores[name], default="")
    words = (event.stream, event.kind, data.get("class"), data.get("zone"), data.get("line"), label)
    track_id = body.get("track_id")
    row = (
        event.id,
        _ns_of(body.get("time")),
        track_id if isinstance(track_id, int) and abs(track_id) < MAX_NS else None,
        json.dumps(data, separators=(",", ":"), ensure_ascii=False),
        json.dumps(links, separators=(",", ":"), ensure_ascii=False),
    )
    return row, tuple(str(word)[:MAX_WORD] if word else "" for word in words)


def _table(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key)
    return found if isinstance(found, dict) else {}


def _ns_of(text: object) -> int:
    """Nanoseconds since 1970; 0 for what is no time."""
    try:
        when = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return 0
    return max(0, int((when - _EPOCH).total_seconds() * 1000) * 1_000_000) if when.tzinfo else 0


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def iso_of(wall_ns: int) -> str:
    """UTC with milliseconds, as events say it."""
    when = datetime.fromtimestamp(wall_ns // 1_000_000 / 1e3, timezone.utc)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
