"""Events that a target takes as messages, out of their order: each in one of them, and none left behind."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.events import NotifySettings
from edge.errors import SinkError
from edge.events.joined_delivery import JoinedDelivery
from edge.events.joining import Joiner
from edge.events.message import Message
from edge.events.outbox import Outbox
from edge.events.schema import Envelope
from edge.threads.backoff import Backoff

TARGET = "phone"


def put(outbox: Outbox, *numbers: int, stream: str = "door") -> None:
    outbox.put([Envelope(f"id-{n}", "tick", stream, n, f'{{"n":{n}}}') for n in numbers])


@given(st.lists(st.integers(0, 4), max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=examples(40), deadline=None)
def test_any_order_of_messages_and_restarts_takes_each_event_once(groups: list[int], chance: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder) / "e.db", [TARGET, "other"])
        put(outbox, *range(len(groups)))
        for group in set(groups):
            outbox.claim(
                TARGET, "" if group == 0 else f"m{group}", [f"id-{n}" for n, g in enumerate(groups) if g == group]
            )
        outbox.close()
        got: list[str] = []
        while True:
            outbox = Outbox(Path(folder) / "e.db", [TARGET, "other"])
            assert outbox.unclaimed(TARGET, 0, 99) == []
            assert outbox.counts()[f"waiting_{TARGET}"] == sum(g != 0 for g in groups) - len(got)
            found = outbox.claimed(TARGET)
            if found is None:
                break
            got += [event.id for event in found[1]]
            outbox.settle(TARGET, found[0])
            outbox.close()
        assert sorted(got) == sorted(f"id-{n}" for n, g in enumerate(groups) if g != 0)
        assert outbox.pending(TARGET, 99) == []
        assert len(outbox.pending("other", 99)) == len(groups)
        outbox.close()


def test_events_that_make_room_leave_their_messages(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", [TARGET])
    put(outbox, 1, 2)
    outbox.claim(TARGET, "m", ["id-1", "id-2", "id-3"])
    assert outbox._evict_oldest(1) == 1
    found = outbox.claimed(TARGET)
    assert found is not None
    assert [event.id for event in found[1]] == ["id-2"]
    outbox._evict_oldest(1)
    assert outbox.claimed(TARGET) == ("m", [])
    outbox.settle(TARGET, "m")
    put(outbox, 4)
    assert [event.id for event in outbox.unclaimed(TARGET, 0, 9)] == ["id-4"]
    outbox.close()


class Phone:
    """Takes messages unless it is away."""

    name = TARGET

    def __init__(self) -> None:
        self.is_away = False
        self.got: list[Message] = []

    def send(self, message: Message, stopping: threading.Event) -> None:
        if self.is_away:
            raise SinkError("away")
        self.got.append(message)


class Scene:
    """A delivery with a clock that is set by hand."""

    def __init__(self, folder: Path, **wanted: object) -> None:
        self.now_s = 0.0
        self.is_quiet = False
        self.phone = Phone()
        self.outbox = Outbox(folder / "e.db", [TARGET])
        self.delivery = JoinedDelivery(
            self.outbox,
            self.phone,
            Joiner(NotifySettings.model_validate({"url_file": "url", "join_s": 5, "cool_down_s": 60, **wanted})),
            is_quiet=lambda: self.is_quiet,
            backoff=Backoff(base_s=0.05, cap_s=0.05),
            give_up_s=3600,
            clock_s=lambda: self.now_s,
        )

    def titles(self, now_s: float) -> list[str]:
        """What was told up to now."""
        self.now_s = now_s
        for _ in range(3):
            self.delivery.step(threading.Event())
        return [message.title for message in self.phone.got]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.events.joined_delivery.IDLE_S", 0.0)


def test_what_happens_while_a_service_is_away_is_one_message_afterwards(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.phone.is_away = True
    put(scene.outbox, 1)
    scene.titles(1)
    scene.titles(7)
    for number in range(2, 9):
        put(scene.outbox, number)
        assert scene.titles(number * 100) == []
    assert "away" in scene.delivery.failing.last_error
    scene.phone.is_away = False
    assert scene.titles(1000) == ["door: tick"]
    assert scene.titles(1100) == ["door: tick", "door: 7 events"]
    assert scene.outbox.counts()["waiting_phone"] == 0
    scene.outbox.close()


def test_quiet_hours_end_with_one_message(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.is_quiet = True
    for number in range(3):
        put(scene.outbox, number)
        assert scene.titles(number * 1000) == []
    scene.is_quiet = False
    assert scene.titles(4000) == ["door: 3 events"]
    scene.outbox.close()


def test_a_message_that_nobody_takes_is_given_up_and_counted(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.phone.is_away = True
    put(scene.outbox, 1, 2)
    scene.titles(0)
    scene.titles(6)
    assert scene.delivery.counters["refused"] == 0
    scene.titles(4000)
    assert scene.delivery.counters["refused"] == 2
    assert scene.outbox.counts()["waiting_phone"] == 0
    scene.outbox.close()


def test_what_nobody_wants_holds_nothing_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path, streams=["yard"])
    put(scene.outbox, 1, 2)
    assert scene.titles(1) == []
    assert scene.outbox.counts()["waiting_phone"] == 0
    scene.outbox.close()
