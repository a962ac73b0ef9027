"""Zones: enter and leave alternate, dwell, loitering, crowds, stopped objects, schedules, impossible outlines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.analytics.analytics import StreamAnalytics
from edge.analytics.geometry import Polygons
from edge.analytics.schedule import Schedule
from edge.config.analytics import AnalyticsSettings, ScheduleSettings, ZoneSettings
from edge.errors import ConfigError
from edge.types import Array, Event, Tracks

WIDTH, HEIGHT = 1280, 720
SQUARE = ((400.0, 200.0), (800.0, 200.0), (800.0, 600.0), (400.0, 600.0))
S = 1_000_000_000
MIDNIGHT = datetime(2026, 11, 22, tzinfo=timezone.utc)  # a Sunday


def tracks_at(feet: Sequence[Sequence[float]] | Array, ids: Sequence[int] | Array, class_id: int = 0) -> Tracks:
    """Boxes of 60x100 whose bottom centres are at these points."""
    x, y = np.asarray(feet, np.float64).reshape(-1, 2).T
    num = len(ids)
    return Tracks(
        np.asarray(ids, np.int64),
        np.stack((x - 30, y - 100, x + 30, y), 1).astype(np.float32),
        np.ones(num, np.float32),
        np.full(num, class_id, np.int32),
        np.ones(num, np.float32),
        np.zeros((num, 2), np.float32),
        np.arange(num, dtype=np.int32),
    )


def watcher(**zone: Any) -> StreamAnalytics:
    shape = {"name": "yard", "points_px": SQUARE, **zone}
    return StreamAnalytics(
        AnalyticsSettings(zones=(ZoneSettings(**shape),)),
        stream="door",
        classes=("person", "car"),
        width=WIDTH,
        height=HEIGHT,
        clock=lambda time_ns: MIDNIGHT + timedelta(microseconds=time_ns // 1000),
    )


def stay(
    analytics: StreamAnalytics, at: tuple[float, float], start_s: float, end_s: float, track_id: int = 1
) -> list[Event]:
    """One track stands at a point, ten frames a second."""
    times = np.arange(round(start_s * 10), round(end_s * 10)) * (S // 10)
    return [event for t in times for event in analytics.update(tracks_at([at], [track_id]), int(t))]


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.kind for event in events]


def test_enter_and_leave_carry_the_dwell() -> None:
    analytics = watcher()
    events = stay(analytics, (300, 400), 0, 2) + stay(analytics, (600, 400), 2, 7) + stay(analytics, (300, 400), 7, 9)
    assert kinds(events) == ["zone_entered", "zone_left"]
    assert events[1].data["dwell_s"] == 5.0 and events[1].data["reason"] == "left"
    assert events[0].data["zone"] == "yard" and events[0].data["position_px"] == [600.0, 400.0]
    assert analytics.counts()["zones"]["yard"] == {
        "occupancy": 0,
        "entered": 1,
        "left": 1,
        "mean_dwell_s": 5.0,
        "is_crowded": False,
        "by_class": {"person": {"occupancy": 0, "entered": 1}},
    }


def test_a_lost_track_leaves_at_the_time_it_was_seen_last() -> None:
    analytics = watcher()
    stay(analytics, (600, 400), 0, 4)
    events = analytics.update(Tracks.empty(), 20 * S)
    assert kinds(events) == ["zone_left"]
    assert events[0].data["dwell_s"] == 3.9 and events[0].data["reason"] == "lost"


def test_a_short_drop_out_does_not_end_a_visit() -> None:
    analytics = watcher()
    assert kinds(stay(analytics, (600, 400), 0, 2) + stay(analytics, (600, 400), 4.5, 6)) == ["zone_entered"]


def test_jitter_on_the_edge_causes_one_change() -> None:
    analytics = watcher()
    rng = np.random.default_rng(3)
    stay(analytics, (600, 400), 0, 1)
    events: list[Event] = []
    for number, x in enumerate(400 + rng.uniform(-7.5, 7.5, 300)):
        events += analytics.update(tracks_at([(x, 400)], [1]), S + number * S // 30)
    assert events == []


def test_one_frame_outside_is_no_leave() -> None:
    analytics = watcher()
    events: list[Event] = []
    for number in range(60):
        at = (200, 400) if number % 20 == 19 else (600, 400)
        events += analytics.update(tracks_at([at], [1]), number * S // 25)
    assert kinds(events) == ["zone_entered"]


def test_loitering_is_told_once_per_visit() -> None:
    analytics = watcher(loiter_s=5)
    events = (
        stay(analytics, (600, 400), 0, 20) + stay(analytics, (100, 400), 20, 22) + stay(analytics, (600, 400), 22, 29)
    )
    assert kinds(events) == ["zone_entered", "zone_loitering", "zone_left", "zone_entered", "zone_loitering"]
    assert events[1].data["dwell_s"] == pytest.approx(5.1)


def test_a_crowd_is_told_when_it_lasts() -> None:
    analytics = watcher(crowd_count=3, crowd_s=2)
    feet = [(500, 400), (600, 400), (700, 400)]
    events: list[Event] = []
    for number in range(100):
        here = 2 if number < 20 or 40 <= number < 50 else 3
        events += analytics.update(tracks_at(feet[:here], [1, 2, 3][:here]), number * S // 10)
    crowds = [event for event in events if event.kind == "zone_crowded"]
    assert len(crowds) == 1 and crowds[0].track_id is None
    assert dict(crowds[0].data) == {"zone": "yard", "occupancy": 3}
    assert analytics.counts()["zones"]["yard"]["is_crowded"]


@pytest.mark.parametrize(("speed_px_s", "stops"), [(0, True), (2, True), (9, False), (100, False)])
def test_stopped_means_slower_than_a_share_of_the_height_per_second(speed_px_s: float, stops: bool) -> None:
    # 100 px high and 0.05 heights per second: 5 px per second
    analytics = watcher(stopped_s=4)
    rng = np.random.default_rng(0)
    events: list[Event] = []
    for number in range(80):
        x = 420 + 0.1 * number * speed_px_s % 360 + rng.uniform(-2, 2)
        events += analytics.update(tracks_at([(x, 400)], [1]), number * S // 10)
    assert ("object_stopped" in kinds(events)) == stops


def test_a_stop_is_told_once_until_the_object_moves_on() -> None:
    analytics = watcher(stopped_s=2)
    events = stay(analytics, (500, 400), 0, 10) + stay(analytics, (700, 400), 10, 20)
    assert kinds(events) == ["zone_entered", "object_stopped", "object_stopped"]
    assert events[1].data["still_s"] == 2.0


def test_only_the_chosen_classes_are_in_a_zone() -> None:
    analytics = watcher(classes=("car",))
    for number in range(20):
        analytics.update(tracks_at([(600, 400)], [1], class_id=0), number * S // 10)
    assert analytics.counts()["zones"]["yard"]["occupancy"] == 0


def test_a_schedule_ends_and_begins_visits() -> None:
    night = ScheduleSettings.model_validate({"start_at": "00:01", "end_at": "00:02", "time_zone": "UTC"})
    analytics = watcher(schedules=(night,))
    events = [e for s in range(180) for e in analytics.update(tracks_at([(600, 400)], [1]), s * S)]
    assert [(event.kind, event.time_ns // S) for event in events] == [("zone_entered", 60), ("zone_left", 120)]
    assert events[1].data["dwell_s"] == 60.0


@pytest.mark.parametrize(
    ("start_at", "end_at", "days", "moment", "expected"),
    [
        ("08:00", "18:00", ("mon",), "2026-11-23 08:00", True),
        ("08:00", "18:00", ("mon",), "2026-11-23 18:00", False),
        ("08:00", "18:00", ("mon",), "2026-11-22 12:00", False),
        ("22:00", "06:00", ("sun",), "2026-11-22 23:30", True),
        ("22:00", "06:00", ("sun",), "2026-11-23 05:59", True),
        ("22:00", "06:00", ("sun",), "2026-11-22 05:59", False),
        ("00:00", "00:00", ("sun",), "2026-11-22 13:00", True),
        ("00:00", "00:00", ("mon",), "2026-11-22 13:00", False),
        ("09:00", "09:00", ("sun",), "2026-11-23 08:59", True),
        ("09:00", "09:00", ("sun",), "2026-11-23 09:00", False),
    ],
)
def test_a_schedule_knows_days_and_midnight(start_at: str, end_at: str, days: Any, moment: str, expected: bool) -> None:
    period = ScheduleSettings.model_validate({"start_at": start_at, "end_at": end_at, "days": days, "time_zone": "UTC"})
    now = datetime.fromisoformat(moment).replace(tzinfo=timezone.utc)
    assert Schedule([period], "zone 'yard'").is_on(now) == expected


def test_a_schedule_keeps_its_time_zone() -> None:
    period = ScheduleSettings.model_validate({"start_at": "08:00", "end_at": "09:00", "time_zone": "Asia/Tokyo"})
    assert Schedule([period], "yard").is_on(datetime(2026, 11, 21, 23, 30, tzinfo=timezone.utc))


def test_an_unknown_time_zone_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="unknown time zone 'Mars/Olympus'"):
        watcher(schedules=(ScheduleSettings(time_zone="Mars/Olympus"),))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (((0, 0), (100, 0)), "a zone has at least three points, found 2"),
        (((100, 100), (300, 300), (300, 100), (100, 300)), "crosses or touches itself"),
        (((100, 100), (300, 100), (300, 300), (100, 100)), "crosses or touches itself"),
        (((100, 100), (300, 100), (200, 100)), "crosses or touches itself|covers"),
        (((100, 100), (1500, 100), (200, 300)), "must lie in the frame of 1280x720 pixels"),
        (((100, 100), (102, 100), (100, 102)), "covers 2.0 square pixels"),
        (((100, 0), (600, 0), (600, 12), (100, 12)), "of a box of at least 16 px gets 0.0 px into it"),
    ],
)
def test_an_impossible_zone_is_a_config_error(points: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        watcher(points_px=points)
    assert str(raised.value).startswith("door: zone 'yard': ")


def test_a_zone_along_the_border_holds_those_who_stand_at_the_border() -> None:
    analytics = watcher(points_px=((0, 400), (1280, 400), (1280, 720), (0, 720)))
    assert kinds(stay(analytics, (640, 720), 0, 2)) == ["zone_entered"]


def test_a_zone_narrower_than_the_band_can_be_entered() -> None:
    analytics = watcher(points_px=((400, 400), (800, 400), (800, 414), (400, 414)))
    assert kinds(stay(analytics, (600, 407), 0, 2) + stay(analytics, (600, 450), 2, 4)) == ["zone_entered", "zone_left"]


def test_the_whole_frame_is_a_zone() -> None:
    analytics = watcher(points_px=None, points_share=((0, 0), (1, 0), (1, 1), (0, 1)))
    assert kinds(stay(analytics, (30, 101), 0, 2)) == ["zone_entered"]


@pytest.mark.parametrize("keys", [{}, {"points_px": SQUARE, "points_share": ((0, 0), (1, 0), (1, 1))}])
def test_points_are_given_once(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="'yard' needs exactly one of points_px and points_share"):
        ZoneSettings(name="yard", **keys)


def test_two_zones_of_one_name_are_refused() -> None:
    zone = ZoneSettings(name="yard", points_px=SQUARE)
    with pytest.raises(ValidationError, match="two zones are named 'yard'"):
        AnalyticsSettings(zones=(zone, zone))


def test_shapes_carry_the_count_for_the_overlay() -> None:
    analytics = watcher()
    stay(analytics, (600, 400), 0, 1)
    (shape,) = analytics.shapes()
    assert (shape.kind, shape.name, shape.text) == ("zone", "yard", "1 inside")
    assert shape.points.dtype == np.float32 and shape.points.tolist() == [list(p) for p in SQUARE]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1, 30), st.floats(0, 0.6))
def test_enter_and_leave_alternate_for_every_track(seed: int, fps: float, lost: float) -> None:
    rng = np.random.default_rng(seed)
    analytics = watcher(loiter_s=2, crowd_count=2, stopped_s=2)
    feet = rng.uniform((50, 150), (1230, 710), (5, 2))
    inside: set[int] = set()
    for number in range(80):
        feet = np.clip(feet + rng.normal(0, 60, feet.shape), (40, 110), (1240, 715))
        seen = rng.random(5) >= lost
        for event in analytics.update(tracks_at(feet[seen], np.arange(5)[seen]), round(number * S / fps)):
            if event.kind == "zone_entered":
                assert event.track_id not in inside
                inside.add(event.track_id or 0)
            elif event.kind == "zone_left":
                assert event.track_id in inside and event.data["dwell_s"] >= 0
                inside.remove(event.track_id or 0)
        assert analytics.counts()["zones"]["yard"]["occupancy"] == len(inside)
    analytics.update(Tracks.empty(), 1000 * S)
    counts = analytics.counts()["zones"]["yard"]
    assert counts["occupancy"] == 0 and counts["entered"] == counts["left"]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 9))
def test_signed_distances_agree_with_opencv(seed: int, num: int) -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, num))
    radius = rng.uniform(50, 250, num)
    polygon = np.stack((640 + radius * np.cos(angles), 360 + radius * np.sin(angles)), 1).astype(np.float32)
    other = polygon[::-1] * 0.5 + 100
    points = rng.uniform((300, 80), (1000, 640), (20, 2))
    both = np.stack((points, points), 1)
    measured = Polygons([polygon.astype(np.float64), other.astype(np.float64)], WIDTH, HEIGHT).signed_distance(both)
    for column, outline in enumerate((polygon, other)):
        expected = [cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in points]
        assert measured[:, column] == pytest.approx(expected, abs=1e-2)
