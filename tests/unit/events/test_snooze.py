"""Being left alone for a while: what a message's text allows, to whom, for how long, and what it survives."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError
from edge.events.snooze import MAX_PAIRS, MAX_SNOOZES, Snoozes
from edge.net.signed import MAX_TEXT_CHARS, signed, signed_data

HOUR = 3600.0
BEGAN_S = 1_796_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now_s = BEGAN_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_only_who_got_the_message_is_left_alone_of_what_it_told(tmp_path: Path, clock: Clock) -> None:
    snoozes = Snoozes(tmp_path / "s.json", clock)
    snoozes.begin(snoozes.offer("phone", [("door", "zone_entered"), ("yard", "line_crossed")]), 1)
    assert snoozes.is_on("phone", "door", "zone_entered")
    assert snoozes.is_on("phone", "yard", "line_crossed")
    assert not snoozes.is_on("phone", "door", "line_crossed")
    assert not snoozes.is_on("tablet", "door", "zone_entered")
    clock.now_s += HOUR - 1
    assert snoozes.is_on("phone", "door", "zone_entered")
    clock.now_s += 1
    assert not snoozes.is_on("phone", "door", "zone_entered")
    assert snoozes.now() == []


def test_a_message_about_many_kinds_offers_all_kinds_of_each_camera(tmp_path: Path, clock: Clock) -> None:
    snoozes = Snoozes(tmp_path / "s.json", clock)
    happened = [(f"camera-{number % 3}", f"kind-{number}") for number in range(30)]
    snoozes.begin(snoozes.offer("phone", happened), 1)
    assert len(snoozes.now()) == 3
    assert snoozes.is_on("phone", "camera-2", "another kind")
    longest = snoozes.offer("x" * 64, [("y" * 64, "z" * 64)] * MAX_PAIRS)
    assert len(longest) <= MAX_TEXT_CHARS


def test_it_survives_a_restart_and_can_be_taken_back(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "s.json"
    text = Snoozes(path, clock).offer("phone", [("door", "tick")])
    assert Snoozes(path, clock).begin(text, 8) == BEGAN_S + 8 * HOUR
    again = Snoozes(path, clock)
    assert again.is_on("phone", "door", "tick")
    (one,) = again.now()
    assert not again.end("another")
    assert again.end(one.id) and not again.end(one.id)
    assert not Snoozes(path, clock).is_on("phone", "door", "tick")
    again.begin(text, 1)
    again.begin(text, 0)
    assert again.now() == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_texts_expire_and_a_clock_that_was_set_back_makes_no_hour_a_year(tmp_path: Path, clock: Clock) -> None:
    snoozes = Snoozes(tmp_path / "s.json", clock)
    text = snoozes.offer("phone", [("door", "tick")])
    snoozes.begin(text, 24)
    clock.now_s -= 365 * 24 * HOUR
    assert not snoozes.is_on("phone", "door", "tick")
    with pytest.raises(ConfigError, match="too old"):
        snoozes.read(text)
    clock.now_s = BEGAN_S + 24 * HOUR
    with pytest.raises(ConfigError, match="too old"):
        snoozes.begin(text, 1)


@pytest.mark.parametrize("hours", [25, -1, 1e9, float("nan"), float("inf")])
def test_no_silence_is_longer_than_a_day(tmp_path: Path, clock: Clock, hours: float) -> None:
    snoozes = Snoozes(tmp_path / "s.json", clock)
    with pytest.raises(ConfigError, match="expected up to 24 hours"):
        snoozes.begin(snoozes.offer("phone", [("door", "tick")]), hours)


def test_the_file_is_bounded_and_a_damaged_one_begins_anew(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "s.json"
    snoozes = Snoozes(path, clock)
    for first in range(0, MAX_SNOOZES + 10, MAX_PAIRS):
        pairs = [(f"camera-{number}", "tick") for number in range(first, first + MAX_PAIRS)]
        snoozes.begin(snoozes.offer("phone", pairs), 1)
    assert len(snoozes.now()) == MAX_SNOOZES
    old = snoozes.offer("phone", [("door", "tick")])
    for damage in (
        b"{",
        b"[]",
        b'{"key": "AAAA", "snoozes": [7, {}, {"id": 1}]}',
        b'{"key": [], "snoozes": 3}',
        b"\xff",
    ):
        path.write_bytes(damage)
        again = Snoozes(path, clock)
        assert again.now() == []
        with pytest.raises(ConfigError, match="not one of this device"):
            again.read(old)


def test_a_disk_that_is_read_only_ends_nothing(tmp_path: Path, clock: Clock) -> None:
    snoozes = Snoozes(tmp_path / "missing" / "s.json", clock)
    assert snoozes.read(snoozes.offer("phone", [("door", "tick")])).target == "phone"


@given(st.binary(max_size=40), st.text(max_size=60), st.integers(0, 200))
def test_only_who_has_the_key_makes_a_text(data: bytes, other: str, at: int) -> None:
    key, purpose = b"k" * 32, b"for this"
    text = signed(data, key, purpose)
    assert signed_data(text, key, purpose) == data
    assert signed_data(text, key, b"for that") is None
    assert signed_data(text, b"l" * 32, purpose) is None
    changed = text[: at % len(text)] + other + text[at % len(text) + 1 :]
    assert changed == text or signed_data(changed, key, purpose) is None
