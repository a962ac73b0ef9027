"""When sound is an event."""

from __future__ import annotations

import itertools
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.analytics.loud import LoudRule
from edge.config.analytics import LoudSettings
from edge.types import Event

S = 10**9
WINDOW_NS = S // 2


def events(rule: LoudRule, levels: list[float], start_ns: int = 0) -> list[Event]:
    """What comes of levels half a second apart."""
    told = (rule.take(level, start_ns + (number + 1) * WINDOW_NS) for number, level in enumerate(levels))
    return [event for event in told if event is not None]


def test_a_loud_moment_is_one_event_with_its_level() -> None:
    rule = LoudRule(LoudSettings(dbfs=-20), "door")
    (event,) = events(rule, [-60.0, -60.0, -12.34, -60.0])
    assert (event.kind, event.stream, event.time_ns) == ("loud", "door", 3 * WINDOW_NS)
    assert dict(event.data) == {"dbfs": -12.3, "seconds": 0.5}


def test_what_is_loud_for_too_short_is_none() -> None:
    rule = LoudRule(LoudSettings(dbfs=-20, hold_s=1.5), "door")
    assert events(rule, [-10.0, -10.0, -30.0, -10.0, -10.0]) == []
    (event,) = events(rule, [-10.0], start_ns=5 * WINDOW_NS)
    assert event.data["seconds"] == 1.5


def test_a_pause_in_the_sound_ends_what_was_loud() -> None:
    rule = LoudRule(LoudSettings(dbfs=-20, hold_s=1), "door")
    assert events(rule, [-10.0]) == []
    assert events(rule, [-10.0], start_ns=60 * S) == []


@pytest.mark.parametrize(("hour", "expected"), [(21, 0), (22, 1), (23, 1), (3, 1), (6, 0)])
def test_it_is_watched_by_its_schedule(hour: int, expected: int) -> None:
    night = {"start_at": "22:00:00", "end_at": "06:00:00", "time_zone": "UTC"}
    settings = LoudSettings.model_validate({"dbfs": -20, "schedules": [night]})
    rule = LoudRule(settings, "door", lambda _: datetime(2026, 11, 30, hour, tzinfo=timezone.utc))
    assert len(events(rule, [-5.0])) == expected


def test_a_clock_that_begins_again_forgets_the_last_event() -> None:
    rule = LoudRule(LoudSettings(dbfs=-20, cool_down_s=3600), "door")
    assert len(events(rule, [-5.0], start_ns=100 * S)) == 1
    assert len(events(rule, [-5.0])) == 1


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([-40.0, -33.0], (-33.0, "level")),
        ([-5.0, -40.0], (-5.0, "said")),
        ([-5.0, -4.0], (-4.0, "said")),
        ([], None),
    ],
)
def test_it_tells_what_was_heard_last(levels: list[float], expected: object) -> None:
    rule = LoudRule(LoudSettings(dbfs=-20), "door")
    events(rule, levels)
    assert rule.take_heard() == expected
    assert rule.take_heard() is None


@given(st.lists(st.floats(-120, 0), max_size=80), st.integers(0, 6), st.integers(0, 20))
def test_events_are_loud_for_long_enough_and_never_closer_than_the_cool_down(
    levels: list[float], hold: int, cool_down: int
) -> None:
    settings = LoudSettings(dbfs=-30, hold_s=hold * 0.5, cool_down_s=cool_down * 0.5)
    told = events(LoudRule(settings, "door"), levels)
    assert told == events(LoudRule(settings, "door"), levels)
    for event in told:
        end = event.time_ns // WINDOW_NS
        need = max(1, hold)
        assert all(level >= -30 for level in levels[end - need : end])
    gaps = [after.time_ns - before.time_ns for before, after in itertools.pairwise(told)]
    assert all(gap >= cool_down * WINDOW_NS for gap in gaps)
