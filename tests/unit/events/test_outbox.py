"""The outbox keeps what it took, gives it in order until it is acknowledged, and stays within its bounds."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.errors import SinkError
from edge.events.delivery import Delivered, DeliveryWorker
from edge.events.outbox import Outbox
from edge.events.outbox_file import PAGE_BYTES
from edge.events.schema import Envelope
from edge.events.stored import OutboxLimits, StoredEvent
from edge.threads.backoff import Backoff

DAY_NS = 86_400_000_000_000


def envelope(number: int, size: int = 10, time_ns: int | None = None) -> Envelope:
    return Envelope(f"id-{number}", "tick", "door", time.time_ns() if time_ns is None else time_ns, "x" * size)


def ids(events: Sequence[StoredEvent]) -> list[str]:
    return [event.id for event in events]


class Receiver:
    """A target that is down or refuses as told."""

    name = "a"

    def __init__(self) -> None:
        self.got: list[str] = []
        self.failures = 0
        self.refused: set[str] = set()
        self.lost_answers = 0

    def deliver(self, events: Sequence[StoredEvent]) -> Delivered:
        if self.failures:
            self.failures -= 1
            raise SinkError("nobody there")
        first = events[0]
        if first.id in self.refused:
            return Delivered(0, 1)
        self.got.append(first.id)
        if self.lost_answers:
            self.lost_answers -= 1
            raise SinkError("the answer was lost")
        return Delivered(1)

    def keep_alive(self) -> None:
        pass

    def close(self) -> None:
        pass


def delivery(outbox: Outbox, receiver: Receiver) -> DeliveryWorker:
    return DeliveryWorker(outbox, receiver, Backoff(base_s=0.001, cap_s=0.002))


def test_events_come_in_order_until_they_are_acknowledged(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", ["a", "b"])
    outbox.put([envelope(n) for n in range(5)])
    assert ids(outbox.pending("a", 2)) == ["id-0", "id-1"]
    assert ids(outbox.pending("a", 2)) == ["id-0", "id-1"]
    outbox.acknowledge("a", outbox.pending("a", 2)[-1].number)
    assert ids(outbox.pending("a", 9)) == ["id-2", "id-3", "id-4"]
    assert len(outbox.pending("b", 9)) == 5
    assert ids(outbox.recent(2)) == ["id-4", "id-3"]
    outbox.close()
    outbox.close()


def test_cursors_and_events_survive_a_restart(tmp_path: Path) -> None:
    with_events = Outbox(tmp_path / "e.db", ["a"])
    with_events.put([envelope(n) for n in range(3)])
    with_events.acknowledge("a", with_events.pending("a", 1)[0].number)
    with_events.close()
    again = Outbox(tmp_path / "e.db", ["a"])
    assert ids(again.pending("a", 9)) == ["id-1", "id-2"]
    again.close()


def test_a_new_target_gets_what_comes_from_now_on_and_a_removed_one_holds_nothing_back(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", ["a"])
    outbox.put([envelope(0)])
    outbox.close()
    outbox = Outbox(tmp_path / "e.db", ["b"])
    outbox.put([envelope(1)])
    assert ids(outbox.pending("b", 9)) == ["id-1"]
    assert outbox.counts() == {"kept": 2, "lost": 0, "waiting_b": 1}
    outbox.close()


def test_an_id_that_is_there_is_not_kept_twice(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", ["a"])
    outbox.put([envelope(1), envelope(1)])
    outbox.put([envelope(1), envelope(2)])
    assert ids(outbox.pending("a", 9)) == ["id-1", "id-2"]
    outbox.close()


def test_two_processes_cannot_share_an_outbox(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", [])
    with pytest.raises(SinkError, match="in use by another process"):
        Outbox(tmp_path / "e.db", [])
    outbox.close()
    Outbox(tmp_path / "e.db", []).close()


def test_a_full_outbox_lets_delivered_events_go_before_undelivered_ones(tmp_path: Path) -> None:
    limit = 1 << 20
    outbox = Outbox(tmp_path / "e.db", ["a"], OutboxLimits(max_bytes=limit))
    for first in range(0, 400, 100):
        outbox.put([envelope(n, 1000) for n in range(first, first + 100)])
    outbox.acknowledge("a", 400)
    for first in range(400, 900, 100):
        outbox.put([envelope(n, 1000) for n in range(first, first + 100)])
    assert outbox.num_lost == 0
    assert ids(outbox.pending("a", 999)) == [f"id-{n}" for n in range(400, 900)]
    for first in range(900, 3000, 100):
        outbox.put([envelope(n, 1000) for n in range(first, first + 100)])
    waiting = ids(outbox.pending("a", 9999))
    assert waiting == [f"id-{n}" for n in range(3000 - len(waiting), 3000)]
    assert outbox.num_lost == 2600 - len(waiting) > 0
    assert outbox.used_bytes() <= limit
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit + (2 << 20)
    outbox.close()


def test_a_burst_larger_than_the_room_that_is_kept_free_still_fits(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", ["a"], OutboxLimits(max_bytes=1 << 20))
    for first in range(0, 1200, 300):
        outbox.put([envelope(n, 2000) for n in range(first, first + 300)])
    assert ids(outbox.pending("a", 9999))[-1] == "id-1199"
    outbox.close()


def test_age_removes_delivered_events_only(tmp_path: Path) -> None:
    now = [100 * DAY_NS]
    outbox = Outbox(tmp_path / "e.db", ["a"], OutboxLimits(max_age_days=10), *[lambda: now[0]] * 2)
    outbox.put([envelope(0, time_ns=0), envelope(1, time_ns=0)])
    outbox.acknowledge("a", 1)
    now[0] += DAY_NS
    outbox.put([envelope(2, time_ns=now[0])])
    assert ids(outbox.recent(9)) == ["id-2", "id-1"]
    outbox.close()


def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "e.db"
    path.write_bytes(b"this is no database, whatever its name says" * 200)
    outbox = Outbox(path, ["a"])
    outbox.put([envelope(1)])
    assert outbox.counts()["kept"] == 1
    assert (tmp_path / "e.db.broken").read_bytes().startswith(b"this is no database")
    assert "damaged" in caplog.text
    outbox.close()


def test_what_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", ["a"])
    outbox._database.execute("PRAGMA query_only = 1")
    with pytest.raises(SinkError, match="2 events were lost"):
        outbox.put([envelope(1), envelope(2)])
    outbox.close()


def test_a_commit_reaches_the_disk(tmp_path: Path) -> None:
    """FULL (2): in WAL mode the log is synced at every commit, so a power cut loses nothing."""
    outbox = Outbox(tmp_path / "e.db", ["a"])
    assert outbox._pragma("synchronous") == 2
    assert outbox._rows("PRAGMA journal_mode", ())[0][0] == "wal"
    assert outbox._pragma("page_size") == PAGE_BYTES
    outbox.close()
    assert sqlite3.connect(tmp_path / "e.db").execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_a_target_that_was_away_gets_everything_when_it_is_back(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", ["a"])
    receiver = Receiver()
    receiver.failures, receiver.lost_answers = 3, 1
    worker = delivery(outbox, receiver)
    outbox.put([envelope(n) for n in range(4)])
    going = threading.Event()
    for _ in range(8):
        worker.step(going)
    # the lost answer makes one event come twice, with the same id
    assert receiver.got == ["id-0", "id-0", "id-1", "id-2", "id-3"]
    assert worker.stats() == {"error": "", "failures": 4, "delivered": 4}
    assert outbox.counts()["waiting_a"] == 0
    outbox.close()


def test_an_event_that_is_refused_for_good_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", ["a"])
    receiver = Receiver()
    receiver.refused = {"id-1"}
    worker = delivery(outbox, receiver)
    outbox.put([envelope(n) for n in range(3)])
    for _ in range(3):
        worker.step(threading.Event())
    assert receiver.got == ["id-0", "id-2"]
    assert worker.stats() == {"error": "", "delivered": 2, "refused": 1}
    outbox.close()


def test_a_stop_delivers_what_waits_and_does_not_wait_for_a_dead_target(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", ["a"])
    outbox.put([envelope(n) for n in range(3)])
    stopping = threading.Event()
    stopping.set()
    receiver = Receiver()
    delivery(outbox, receiver).run(stopping)
    assert receiver.got == ["id-0", "id-1", "id-2"]
    outbox.put([envelope(9)])
    receiver.failures = 10**6
    delivery(outbox, receiver).run(stopping)
    assert receiver.failures >= 10**6 - 2
    outbox.close()
