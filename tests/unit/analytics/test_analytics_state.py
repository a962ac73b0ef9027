"""What analytics remembers: across a restart, across bad input, and for how long."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.analytics.analytics import StreamAnalytics
from edge.config.analytics import AnalyticsSettings, HeatmapSettings, LineSettings, ZoneSettings
from edge.errors import DataError
from edge.types import Event, Float32, Tracks

S = 1_000_000_000
LINE = LineSettings(name="gate", points_px=((100, 360), (1180, 360)))
ZONE = ZoneSettings(
    name="yard",
    points_px=((300, 300), (900, 300), (900, 700), (300, 700)),
    loiter_s=1.5,
    crowd_count=2,
    crowd_s=0.5,
    stopped_s=1,
)
SETTINGS = AnalyticsSettings(lines=(LINE,), zones=(ZONE,), heatmap=HeatmapSettings(half_life_s=60))


def tracks_of(ids: Any, xyxy: Any, age_s: float = 1.0) -> Tracks:
    num = len(ids)
    return Tracks(
        np.asarray(ids, np.int64),
        np.asarray(xyxy, np.float32).reshape(num, 4),
        np.ones(num, np.float32),
        np.zeros(num, np.int32),
        np.full(num, age_s, np.float32),
        np.zeros((num, 2), np.float32),
        np.arange(num, dtype=np.int32),
    )


def boxes(feet: Any) -> Float32:
    x, y = np.asarray(feet, np.float32).reshape(-1, 2).T
    return np.stack((x - 20, y - 80, x + 20, y), 1).astype(np.float32)


def start(state: Mapping[str, Any] | None = None, chosen: AnalyticsSettings = SETTINGS) -> StreamAnalytics:
    return StreamAnalytics(chosen, stream="door", classes=("person",), width=1280, height=720, state=state)


def walk(seed: int, num: int) -> list[tuple[Tracks, int]]:
    """Frames of six tracks that wander about, with gaps; ages grow with time."""
    rng = np.random.default_rng(seed)
    feet = rng.uniform((100, 150), (1200, 700), (6, 2))
    frames = []
    for number in range(num):
        feet = np.clip(feet + rng.normal(0, 50, feet.shape), (30, 100), (1250, 715))
        seen = np.flatnonzero(rng.random(6) > 0.3)
        frames.append((tracks_of(seen, boxes(feet[seen]), age_s=1 + number * 0.2), 100 * S + number * S // 5))
    return frames


@settings(max_examples=examples(8), deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 59))
def test_a_restart_changes_no_later_event(seed: int, cut: int) -> None:
    frames = walk(seed, 60)
    steady, first = start(), start()
    for tracks, time_ns in frames[:cut]:
        assert steady.update(tracks, time_ns) == first.update(tracks, time_ns)
    second = start(json.loads(json.dumps(first.state())))
    assert second.counts() == first.counts()
    for tracks, time_ns in frames[cut:]:
        assert steady.update(tracks, time_ns) == second.update(tracks, time_ns)
    assert steady.counts() == second.counts()
    assert steady.state()["heatmap"] == second.state()["heatmap"]


def test_the_walk_has_the_events_that_a_restart_could_lose() -> None:
    kinds = {event.kind for seed in range(4) for event in _events_of(walk(seed, 60))}
    assert kinds >= {"line_crossed", "zone_entered", "zone_left", "zone_loitering", "zone_crowded"}


def _events_of(frames: list[tuple[Tracks, int]]) -> list[Event]:
    analytics = start()
    return [event for tracks, time_ns in frames for event in analytics.update(tracks, time_ns)]


def test_after_a_restart_the_same_number_is_another_object() -> None:
    first = start()
    for number in range(5):
        first.update(tracks_of([1], boxes([(640, 300)]), age_s=1 + number * 0.1), number * S // 10)
    second = start(json.loads(json.dumps(first.state())))
    # the new tracker counts from 1 again; its track is younger than the time since the restart
    for number in range(10):
        second.update(tracks_of([1], boxes([(640, 500)]), age_s=0.1 * number), 2 * S + number * S // 10)
    assert second.counts()["lines"]["gate"]["in"] == 0
    third = start(json.loads(json.dumps(first.state())))
    for number in range(10):
        third.update(tracks_of([1], boxes([(640, 500)]), age_s=3 + 0.1 * number), 2 * S + number * S // 10)
    assert third.counts()["lines"]["gate"]["in"] == 1


def test_totals_survive_a_change_of_geometry() -> None:
    first = start()
    for number, y in enumerate([300, 340, 420, 460, 460, 460, 460]):
        first.update(tracks_of([1], boxes([(640, y)])), number * S // 10)
    moved = LineSettings(name="gate", points_px=((100, 400), (1180, 400)))
    other = LineSettings(name="exit", points_px=((100, 500), (1180, 500)))
    second = start(first.state(), AnalyticsSettings(lines=(moved, other), zones=(ZONE,)))
    lines = second.counts()["lines"]
    assert lines["gate"]["in"] == 1 and lines["gate"]["by_class"]["in"] == {"person": 1}
    assert lines["exit"]["in"] == 0
    assert second.counts()["zones"]["yard"]["entered"] == 1
    assert second.counts()["zones"]["yard"]["occupancy"] == 0


@pytest.mark.parametrize(
    "broken",
    [{}, {"schema": 99}, {"lines": {"gate": 3}}, {"tracks": {"id": [1, 2]}}, {"zones": {"yard": [1]}}, {"times_ns": 5}],
)
def test_a_broken_state_is_one_sentence(broken: dict[str, Any]) -> None:
    state = {**start().state(), **broken} if broken else {}
    with pytest.raises(DataError, match="door: the stored analytics state is not usable"):
        start(state)


def test_bad_boxes_and_ids_are_ignored() -> None:
    analytics = start()
    nan, inf = float("nan"), float("inf")
    bad = [(nan, 0, 10, 10), (0, 0, inf, 10), (50, 50, 40, 60), (50, 50, 60, 40), (5, 5, 5, 9), (600, 400, 640, 480)]
    for number in range(20):
        analytics.update(tracks_of([1, 2, 3, 4, 5, -1], bad), number * S // 10)
    assert len(analytics._table) == 0
    assert analytics.counts()["zones"]["yard"]["entered"] == 0


def test_an_id_twice_in_a_frame_is_one_track() -> None:
    analytics = start()
    for number in range(20):
        analytics.update(tracks_of([9, 3, 3], boxes([(500, 500), (600, 500), (700, 500)])), number * S // 10)
    assert analytics.counts()["zones"]["yard"]["occupancy"] == 2


def test_a_frame_out_of_order_changes_nothing() -> None:
    analytics = start()
    for number in range(10):
        analytics.update(tracks_of([1], boxes([(640, 300)])), 10 * S + number * S // 10)
    before = json.dumps(analytics.state())
    for late_ns in (10 * S, 10 * S + 9 * S // 10, 9 * S):
        assert analytics.update(tracks_of([1], boxes([(640, 500)])), late_ns) == ()
    assert json.dumps(analytics.state()) == before


def test_a_clock_that_begins_anew_ends_the_visits_and_goes_on() -> None:
    analytics = start()
    for number in range(20):
        analytics.update(tracks_of([1], boxes([(600, 500)])), 1000 * S + number * S // 10)
    events = list(analytics.update(tracks_of([1], boxes([(600, 500)])), 0))
    assert [event.kind for event in events] == ["zone_left"]
    events = [
        e for number in range(1, 20) for e in analytics.update(tracks_of([1], boxes([(600, 500)])), number * S // 10)
    ]
    assert "zone_entered" in [event.kind for event in events]
    assert analytics.counts()["zones"]["yard"]["occupancy"] == 1


def test_memory_is_bounded_by_seconds() -> None:
    analytics = start()
    largest = 0
    for number in range(200):
        # every tenth is born in the zone
        feet = np.where(np.arange(200)[:, None] % 10 == 0, (640, 500), (100, 200))
        analytics.update(tracks_of(np.arange(200) + number * 200, boxes(feet)), 5 * number * S)
        largest = max(largest, len(analytics._table._buffer))
    assert len(analytics._table) <= 8 * 200
    assert largest <= 4 * 8 * 200
    assert analytics.counts()["zones"]["yard"]["occupancy"] <= 3 * 20
    analytics.update(Tracks.empty(), 9000 * S)
    assert len(analytics._table) == 0 and len(analytics._table._buffer) == 64


def test_a_flood_of_tracks_is_cut_at_the_limit() -> None:
    analytics = start()
    for number in range(8):
        ids = np.arange(10_000) + number * 10_000
        analytics.update(tracks_of(ids, np.tile(boxes([(640, 500)]), (10_000, 1))), number * S // 5)
    assert len(analytics._table) <= 40_000


def test_ids_in_any_order_find_their_rows() -> None:
    analytics = start()
    rng = np.random.default_rng(0)
    ids = rng.permutation(10_000)[:300]
    feet = np.stack((np.linspace(320, 880, 300), np.full(300, 500)), 1)
    for number in range(10):
        order = rng.permutation(300)[: 100 + 20 * number]
        analytics.update(tracks_of(ids[order], boxes(feet[order])), number * S // 2)
    rows = analytics._table.rows
    assert (np.diff(rows["id"]) > 0).all()
    by_id = dict(zip(ids.tolist(), boxes(feet), strict=True))
    assert all((by_id[int(row["id"])] == row["xyxy"]).all() for row in rows)
