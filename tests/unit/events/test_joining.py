"""What becomes one message, and what stands in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.config.events import NotifySettings
from edge.events.joining import Joiner
from edge.events.message import MAX_LINES, compose
from edge.events.stored import StoredEvent


def event(number: int, stream: str = "door", kind: str = "zone_entered", **facts: Any) -> StoredEvent:
    return StoredEvent(number, f"id-{number}", stream, kind, json.dumps({"time": "2026-11-30T07:00:00.000Z", **facts}))


def joiner(**settings: Any) -> Joiner:
    return Joiner(NotifySettings(url_file=Path("url"), **settings))


def test_a_message_waits_for_others_of_its_place_and_the_next_for_the_cool_down() -> None:
    waiting = joiner(join_s=5, cool_down_s=60)
    waiting.add(event(1), 100)
    waiting.add(event(2), 104)
    assert list(waiting.due(104.9)) == []
    assert list(waiting.due(105)) == [["id-1", "id-2"]]
    waiting.claimed(["id-1", "id-2"], 105)
    waiting.add(event(3), 106)
    assert list(waiting.due(164.9)) == []
    assert list(waiting.due(165)) == [["id-3"]]


def test_neighbours_are_one_place_and_others_wait_for_nobody() -> None:
    waiting = joiner(neighbours=[["door", "yard"]])
    for number, stream in enumerate(("yard", "street", "door"), 1):
        waiting.add(event(number, stream), 0)
    assert list(waiting.due(5)) == [["id-1", "id-3"], ["id-2"]]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, [1, 2, 3, 4]),
        ({"streams": ["yard"]}, [3]),
        ({"kinds": ["camera_offline"]}, [4]),
        ({"classes": ["person"]}, [1, 3, 4]),
    ],
)
def test_only_what_is_wanted_is_told(settings: Any, wanted: list[int]) -> None:
    events = [
        event(1, data={"class": "person"}),
        event(2, data={"class": "car"}),
        event(3, "yard", data={"class": "person"}),
        event(4, kind="camera_offline", data={"reason": "x"}),
    ]
    assert [one.number for one in events if joiner(**settings).add(one, 0)] == wanted


def test_what_a_track_does_is_one_line() -> None:
    kinds = [("zone_entered", {"zone": "gate"}), ("zone_left", {"zone": "gate"}), ("zone_entered", {"zone": "gate"})]
    events = [
        event(number, kind=kind, track_id=7, data={"class": "person", **data})
        for number, (kind, data) in enumerate(kinds)
    ]
    message = compose("m", [*events, event(9, "yard", "camera_offline", links={"snapshot": "/s/9.jpg"})])
    assert message.title == "door, yard: 4 events"
    first, second = message.body.split("\n")
    assert first.endswith("door person 7: zone entered gate ×2, zone left gate")
    assert second.endswith("yard: camera offline")
    assert message.picture == Path("/s/9.jpg")


def test_a_long_message_says_how_much_it_leaves_out() -> None:
    events = [event(number, track_id=number // 2) for number in range(100)]
    lines = compose("m", events).body.split("\n")
    assert len(lines) == MAX_LINES + 1
    assert lines[-1] == f"and {100 - 2 * MAX_LINES} more events"


@pytest.mark.parametrize("body", ["", "[]", "7", '{"data":7,"links":[],"time":9}', '{"time":"x","track_id":[]}'])
def test_a_damaged_event_is_told_without_what_is_damaged(body: str) -> None:
    damaged = StoredEvent(1, "id", "door", "tick", body)
    assert joiner(classes=["person"]).add(damaged, 0)
    message = compose("m", [damaged])
    assert (message.title, message.picture) == ("door: tick", None)


def test_control_characters_of_names_do_not_reach_a_message() -> None:
    message = compose("m", [event(1, track_id=1, data={"class": "a\r\nBcc: x", "zone": "\x1b[2J"})])
    assert "\n" not in message.body
    assert "\r" not in message.body
    assert "\x1b" not in message.title + message.body
