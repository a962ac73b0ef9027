"""The event index finds what a plain search would find, keeps what was seen, and survives what happens to its file."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import SinkError
from edge.events.columns import FIELDS, EventColumns, Filter
from edge.events.delivery import DeliveryWorker
from edge.events.index import NAME, EventIndex, Wanted
from edge.events.outbox import Outbox
from edge.events.schema import Envelope
from edge.events.stored import StoredEvent
from edge.metrics.clock import WallClock
from edge.recording.clock import RecordingClock

NS = 1_000_000_000
START_S = 1_790_000_000
DAY_NS = 86_400 * NS
ANY: list[str] = []


def event(number: int, at_s: float = 0.0, stream: str = "door", kind: str = "line_crossed", **data: Any) -> StoredEvent:
    body = {"time": WallClock(0).iso(round((START_S + at_s) * NS)), "track_id": number, "data": data, "links": {}}
    return StoredEvent(number, f"id-{number}", stream, kind, json.dumps(body))


def opened(path: Path, is_steady: bool = True, **more: Any) -> EventIndex:
    """It is 100 s after ``START_S``, by a clock that was right for hours or was just set."""
    times = iter([0] if is_steady else [])
    clock = RecordingClock(lambda: (START_S + 100) * NS - 10 * 3600 * NS, lambda: next(times, 10 * 3600 * NS))
    return EventIndex(path / "review.db", clock=clock, **more)


def ids(index: EventIndex, *, seen: bool | None = None, class_: list[str] = ANY, **words: list[str]) -> list[str]:
    return [one["id"] for one in index.page(Wanted({"class": class_, **words}, seen=seen)).events]


rows = st.tuples(st.integers(0, 9), *(st.integers(0, 3) for _ in FIELDS), st.integers(0, 1))
chosen = st.dictionaries(st.sampled_from(FIELDS), st.frozensets(st.integers(0, 4), min_size=1, max_size=3), max_size=3)


# on a busy machine the events are slow to make up
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(st.lists(rows, max_size=5), max_size=5),
    chosen,
    st.integers(0, 10),
    st.integers(0, 10),
    st.sampled_from([None, True, False]),
)
def test_columns_find_what_a_plain_search_finds(
    batches: list[list[tuple[int, ...]]], codes: dict[str, frozenset[int]], start: int, end: int, seen: bool | None
) -> None:
    columns, plain = EventColumns(), []
    for batch in batches:
        numbered = [(row[0], len(plain) + n, *row[1:]) for n, row in enumerate(batch)]
        columns.add(numbered)
        plain += numbered
    plain.sort()
    wanted = Filter(codes, start, end, seen)

    def fits(row: tuple[int, ...], without: str = "") -> bool:
        words = dict(zip(FIELDS, row[2:], strict=False))
        has_words = all(words[name] in some for name, some in codes.items() if name != without)
        return has_words and start <= row[0] < end and seen in (None, bool(row[-1]))

    assert columns["number"][columns.find(wanted)].tolist() == [row[1] for row in plain if fits(row)]
    for place, name in enumerate(FIELDS, 2):
        found = [row[place] for row in plain if fits(row, name)]
        assert columns.counts(wanted, name) == {code: found.count(code) for code in set(found)}
    for row in plain:
        assert plain[columns.place_before(*row[:2])] == row


def test_density_counts_every_event_once_in_its_part_of_the_time() -> None:
    columns = EventColumns()
    columns.add([(at * NS, at, *([0] * 6), 0) for at in (0, 1, 5, 9)])
    places = columns.find(Filter(end_ns=10 * NS))
    assert columns.density(places, 0, 10 * NS, 5).tolist() == [2, 0, 1, 0, 1]
    week = columns.density(places, 0, 7 * DAY_NS, 2_000)
    assert int(np.sum(week)) == 4


def test_events_are_found_by_their_words(tmp_path: Path) -> None:
    index = opened(tmp_path)
    index.deliver([event(1, line="gate"), event(2, 1, "yard", "zone_entered", zone="lawn", **{"class": "dog"})])
    index.deliver([event(3, 2, line="gate", labels={"red": 0.2, "blue": 0.7}, **{"class": "car"})])
    assert ids(index) == ["id-3", "id-2", "id-1"]
    assert ids(index, stream=["door"]) == ["id-3", "id-1"]
    assert ids(index, zone=["lawn"]) == ids(index, class_=["dog"]) == ids(index, kind=["zone_entered"]) == ["id-2"]
    assert ids(index, label=["blue"]) == ["id-3"]
    assert ids(index, label=["red"]) == ids(index, stream=["nobody"]) == []
    (first,) = index.page(Wanted({"class": ["dog"]})).events
    assert first["data"] == {"zone": "lawn", "class": "dog"}
    assert first["time"] == WallClock(0).iso((START_S + 1) * NS)
    assert index.facets(Wanted({"stream": ["yard"]}))["stream"] == {"door": 2, "yard": 1}


def test_pages_follow_each_other_without_a_gap_while_new_events_come(tmp_path: Path) -> None:
    index = opened(tmp_path)
    # pairs of equal times
    index.deliver([event(number, number // 2) for number in range(20)])
    seen, before = [], None
    while True:
        page = index.page(Wanted(), before, 3)
        seen += [one["id"] for one in page.events]
        index.deliver([event(100 + len(seen), 50)])
        before = page.after
        if before is None:
            break
    assert seen == [f"id-{number}" for number in reversed(range(20))]


def test_an_event_that_comes_twice_is_kept_once_and_one_that_comes_late_finds_its_place(tmp_path: Path) -> None:
    index = opened(tmp_path)
    index.deliver([event(1, 5), event(2, 7)])
    index.deliver([event(2, 7), event(3, 6), event(1, 5)])
    assert ids(index) == ["id-2", "id-3", "id-1"]


def test_what_was_seen_stays_seen_after_a_restart(tmp_path: Path) -> None:
    index = opened(tmp_path)
    index.deliver([event(number, number, "door" if number % 2 else "yard") for number in range(6)])
    assert index.mark(["id-1", "id-4", "nobody"], is_seen=True) == 2
    assert index.mark_all(Wanted({"stream": ["door"]}), is_seen=True) == (2, 0)
    index.close()
    again = opened(tmp_path)
    assert ids(again, seen=False) == ["id-2", "id-0"]
    page = again.page(Wanted({"stream": ["yard"]}))
    assert (page.found, page.unseen, page.events[0]["seen"]) == (3, 2, True)
    again.mark(["id-4"], is_seen=False)
    assert ids(again, seen=False) == ["id-4", "id-2", "id-0"]


def test_the_oldest_go_by_age_and_by_number(tmp_path: Path) -> None:
    index = opened(tmp_path, max_events=3, max_days=1)
    index.deliver([event(0, -90_000), event(1, -80_000), *(event(number, number) for number in range(2, 6))])
    assert ids(index) == ["id-5", "id-4", "id-3"]
    index.close()
    assert ids(opened(tmp_path, max_events=3)) == ["id-5", "id-4", "id-3"]


def test_nothing_goes_by_age_while_the_clock_may_be_wrong(tmp_path: Path) -> None:
    index = opened(tmp_path, is_steady=False, max_days=1)
    index.deliver([event(0, -90_000), event(1)])
    assert ids(index) == ["id-1", "id-0"]


@pytest.mark.parametrize("body", ["", "[]", "{", '{"data": 3, "time": {}}', '{"data": {"class": [1]}, "time": "x"}'])
def test_an_event_of_an_odd_form_is_kept_all_the_same(tmp_path: Path, body: str) -> None:
    index = opened(tmp_path, is_steady=False)
    index.deliver([StoredEvent(1, "a", "door", "tick", body), event(2)])
    assert ids(index, kind=["tick"]) == ["a"]


def test_a_damaged_file_makes_room_for_a_new_one_with_what_the_outbox_has(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    path.write_bytes(b"no database at all, but long enough to have a header " * 100)
    index = opened(tmp_path, backfill=lambda: [event(1), event(2, 1)])
    assert ids(index) == ["id-2", "id-1"]
    assert (tmp_path / "review.db.broken").exists()


def test_a_file_that_is_damaged_while_it_is_open_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    index = opened(tmp_path, backfill=lambda: [event(1)])
    index.deliver([event(number, number) for number in range(200)])
    other = sqlite3.connect(tmp_path / "review.db")
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    with (tmp_path / "review.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 40_000)
    with pytest.raises(SinkError, match="cannot be used"):
        for number in range(200, 210):
            index.deliver([event(number)])
            index.page(Wanted(), limit=200)
    assert ids(index) == ["id-1"]


def test_a_folder_that_cannot_be_written_is_one_sentence_and_works_later(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, where a folder should be")
    index = opened(tmp_path / "taken")
    with pytest.raises(SinkError, match="cannot be used"):
        index.deliver([event(1)])
    (tmp_path / "taken").unlink()
    index.deliver([event(1)])
    assert ids(index) == ["id-1"]


def test_it_takes_what_the_outbox_gives_and_the_outbox_lets_go(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "events.db", [NAME])
    index = opened(tmp_path)
    worker = DeliveryWorker(outbox, index)
    stored = [event(number, number) for number in range(5)]
    outbox.put([Envelope(one.id, one.kind, one.stream, START_S * NS, one.body) for one in stored])
    worker.step(threading.Event())
    assert ids(index) == [f"id-{number}" for number in reversed(range(5))]
    assert outbox.pending(NAME, 10) == []
    # it is no target that anybody set up, so nobody is shown it
    assert outbox.counts() == {"kept": 5, "lost": 0}
    outbox.close()
