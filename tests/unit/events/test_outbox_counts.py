"""The outbox knows at any time how much it holds, and lets undelivered events go only where it is full."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.errors import SinkError
from edge.events.outbox import Outbox
from edge.events.outbox_file import is_file_full
from edge.events.schema import Envelope
from edge.events.stored import OutboxLimits, StoredEvent

DAY_NS = 86_400_000_000_000


def envelope(number: int, size: int = 10, time_ns: int | None = None) -> Envelope:
    return Envelope(f"id-{number}", "tick", "door", time.time_ns() if time_ns is None else time_ns, "x" * size)


def ids(events: Sequence[StoredEvent]) -> list[str]:
    return [event.id for event in events]


def counted(outbox: Outbox, targets: Sequence[str]) -> dict[str, int]:
    """What ``counts`` must say, by looking."""
    waiting = {f"waiting_{name}": len(outbox.pending(name, 10**6)) for name in targets}
    return {"kept": len(outbox.recent(10**6)), "lost": outbox.num_lost, **waiting}


def test_counts_are_right_after_every_change(tmp_path: Path) -> None:
    chance, now, number = random.Random(5), [100 * DAY_NS], 0
    outbox = Outbox(
        tmp_path / "e.db", ["a", "b"], OutboxLimits(max_bytes=1 << 18, max_age_days=10), *[lambda: now[0]] * 2
    )
    for _ in range(120):
        match chance.randrange(5):
            case 0 | 1:
                # some ids twice, and some that are there already
                first = max(0, number - chance.randrange(3))
                number = first + chance.randrange(15)
                events = [envelope(n, 1500, now[0]) for n in range(first, number)]
                outbox.put([*events, *events[:2]])
            case 2 | 3:
                target = chance.choice("ab")
                for event in outbox.pending(target, chance.randrange(1, 23))[-1:]:
                    outbox.acknowledge(target, event.number)
                    outbox.acknowledge(target, event.number - 1)
            case _:
                now[0] += 3 * DAY_NS
        assert outbox.counts() == counted(outbox, "ab")
    assert outbox.num_lost > 0
    outbox.close()
    again = Outbox(tmp_path / "e.db", ["a", "c"])
    assert again.counts() == counted(again, "ac")
    again.close()
    assert again.counts() == {"lost": 0}


def test_an_acknowledgement_beyond_the_newest_event_leaves_nothing_waiting(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", ["a"])
    outbox.put([envelope(0), envelope(1)])
    outbox.acknowledge("a", 10**6)
    assert outbox.counts() == {"kept": 2, "lost": 0, "waiting_a": 0}
    outbox.close()


def test_counts_do_not_wait_for_a_slow_disk(tmp_path: Path) -> None:
    """The event loop of the live page asks for them, and a commit may take seconds."""
    outbox = Outbox(tmp_path / "e.db", ["a"])
    is_writing, may_end = threading.Event(), threading.Event()

    def slow_disk(*_: object) -> int:
        is_writing.set()
        may_end.wait(20)
        return 0

    outbox._database.set_progress_handler(slow_disk, 1)
    writer = threading.Thread(target=outbox.put, args=([envelope(1)],))
    writer.start()
    assert is_writing.wait(20)
    counts: list[dict[str, int]] = []
    asking = threading.Thread(target=lambda: counts.append(outbox.counts()))
    asking.start()
    asking.join(5)
    found = list(counts)
    may_end.set()
    for thread in (asking, writer):
        thread.join()
    assert found == [{"kept": 0, "lost": 0, "waiting_a": 0}]
    assert outbox.counts() == {"kept": 1, "lost": 0, "waiting_a": 1}
    outbox.close()


def test_a_locked_file_costs_no_undelivered_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(tmp_path / "e.db", ["a"])
    outbox.put([envelope(n) for n in range(300)])
    outbox._database.execute("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(tmp_path / "e.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    evict = outbox._evict_oldest

    def evict_when_the_lock_has_just_ended(count: int) -> int:
        other.execute("ROLLBACK")
        return evict(count)

    monkeypatch.setattr(outbox, "_evict_oldest", evict_when_the_lock_has_just_ended)
    with pytest.raises(SinkError, match=r"1 events were lost .*locked"):
        outbox.put([envelope(300)])
    other.close()
    outbox.put([envelope(300)])
    assert outbox.num_lost == 0
    assert ids(outbox.pending("a", 999)) == [f"id-{n}" for n in range(301)]
    outbox.close()


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (sqlite3.OperationalError("database or disk is full"), True),
        (sqlite3.OperationalError("database is locked"), False),
        (sqlite3.OperationalError("disk I/O error"), False),
        (sqlite3.OperationalError("attempt to write a readonly database"), False),
    ],
)
def test_only_a_full_file_or_disk_lets_events_go(error: sqlite3.OperationalError, is_full: bool) -> None:
    # Python 3.10 has no error code, only the words
    assert is_file_full(error) == is_full
