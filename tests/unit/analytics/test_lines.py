"""Guarantee 12: one true crossing counts once, at any frame rate, under jitter, drop-outs and flicker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.analytics.analytics import StreamAnalytics
from edge.config.analytics import AnalyticsSettings, LineSettings
from edge.errors import ConfigError
from edge.types import Array, Event, Float64, Tracks

WIDTH, HEIGHT = 1280, 720
BOX_W, BOX_H = 60.0, 100.0
# the default band is a tenth of the box size (80 px), and boxes here shrink by at most a tenth
JITTER_PX = 7.0
LINE = LineSettings(name="gate", points_px=((490, 360), (790, 360)))


def tracks_at(
    feet: Sequence[Sequence[float]] | Array, ids: Sequence[int] | Array, class_id: int = 0, scale: float = 1.0
) -> Tracks:
    """Boxes whose bottom centres are at these points."""
    x, y = np.asarray(feet, np.float64).reshape(-1, 2).T
    w, h = BOX_W * scale, BOX_H * scale
    num = len(ids)
    return Tracks(
        np.asarray(ids, np.int64),
        np.stack((x - w / 2, y - h, x + w / 2, y), 1).astype(np.float32),
        np.ones(num, np.float32),
        np.full(num, class_id, np.int32),
        np.ones(num, np.float32),
        np.zeros((num, 2), np.float32),
        np.arange(num, dtype=np.int32),
    )


def counter(*lines: LineSettings, stream: str = "door") -> StreamAnalytics:
    chosen = AnalyticsSettings(lines=lines or (LINE,))
    return StreamAnalytics(chosen, stream=stream, classes=("person", "car"), width=WIDTH, height=HEIGHT)


def run(
    analytics: StreamAnalytics,
    path: Sequence[Sequence[float] | None],
    fps: float = 25,
    track_id: int = 7,
    scale: float = 1.0,
) -> list[Event]:
    """Let one track go along a path (None: not seen in that frame), then be gone for ten seconds."""
    frames = [tracks_at([p], [track_id], scale=scale) if p is not None else Tracks.empty() for p in path]
    events: list[Event] = []
    step_ns = round(1e9 / fps)
    for number, tracks in enumerate(frames):
        events += analytics.update(tracks, number * step_ns)
    for second in range(1, 11):
        events += analytics.update(Tracks.empty(), len(frames) * step_ns + second * 1_000_000_000)
    return events


def totals(analytics: StreamAnalytics, name: str = "gate") -> tuple[int, int]:
    counts = analytics.counts()["lines"][name]
    return counts["in"], counts["out"]


def over(d: Sequence[float], x: float = 640) -> list[tuple[float, float]]:
    """A path at these distances below the horizontal line."""
    return [(x, 360 + value) for value in d]


@dataclass(frozen=True)
class Walk:
    """A generated way of one object: its line, frame rate and observed feet."""

    line: LineSettings
    fps: float
    feet: list[tuple[float, float] | None]
    direction: int


@st.composite
def walks(draw: st.DrawFn, turns: Sequence[float], drop_outs: bool = True, flicker: bool = False) -> Walk:
    """Along the distances ``turns`` from a line of any angle, with jitter, drop-outs and any speed and frame rate."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    angle = draw(st.floats(0, 2 * np.pi))
    direction = draw(st.sampled_from((-1, 1)))
    along = np.array([np.cos(angle), np.sin(angle)])
    right = np.array([-along[1], along[0]])
    middle = np.array([WIDTH, HEIGHT]) / 2
    ends = tuple((float(x), float(y)) for x, y in (middle + sign * 150 * along for sign in (-1, 1)))
    distance = _distances(turns, draw(st.floats(2, 150)))
    first, last = rng.uniform(-120, 120, 2)
    place = np.linspace(first, last, len(distance))
    feet = middle + np.outer(direction * distance, right) + np.outer(place, along)
    feet += _jitter(rng, draw(st.floats(0, JITTER_PX)), len(feet))
    feet = _flicker(feet, rng) if flicker else feet
    seen = rng.random(len(feet)) > (draw(st.floats(0, 0.7)) if drop_outs else 0)
    seen[[0, -1]] = True
    observed = [(float(x), float(y)) if is_seen else None for (x, y), is_seen in zip(feet, seen, strict=True)]
    return Walk(LineSettings(name="gate", points_px=ends), draw(st.floats(1, 60)), observed, direction)


def _distances(turns: Sequence[float], step: float) -> Float64:
    """Distances from one turning point to the next in steps, resting two frames at each."""
    parts = [np.repeat(turns[0], 2)]
    for start, end in pairwise(turns):
        parts += [np.linspace(start, end, max(2, int(abs(end - start) / step))), np.repeat(end, 10)]
    return np.concatenate(parts).astype(np.float64)


def _jitter(rng: np.random.Generator, most: float, num: int) -> Float64:
    angle, length = rng.uniform(0, 2 * np.pi, num), rng.uniform(0, most, num)
    return np.stack((length * np.cos(angle), length * np.sin(angle)), 1)


def _flicker(feet: Float64, rng: np.random.Generator) -> Float64:
    """One frame, not the first or the last ones, anywhere in the picture."""
    feet[rng.integers(1, len(feet) - 3)] = rng.uniform((100, 150), (WIDTH - 100, HEIGHT - 50))
    return feet


def counted(walk: Walk) -> tuple[int, int]:
    """Counts in the walk's own direction and against it."""
    analytics = counter(walk.line)
    events = run(analytics, walk.feet, walk.fps)
    entered, left = totals(analytics)
    assert len(events) == entered + left
    return (entered, left) if walk.direction > 0 else (left, entered)


@settings(max_examples=examples(40), deadline=None)
@given(walks(turns=(-90, 90)))
def test_a_true_crossing_counts_once(walk: Walk) -> None:
    assert counted(walk) == (1, 0)


@settings(max_examples=examples(25), deadline=None)
@given(walks(turns=(-90, -0.1, -90)))
def test_turning_back_before_the_line_counts_nothing(walk: Walk) -> None:
    assert counted(walk) == (0, 0)


@settings(max_examples=examples(25), deadline=None)
@given(walks(turns=(-90, 90, -90), drop_outs=False))
def test_there_and_back_counts_one_each(walk: Walk) -> None:
    assert counted(walk) == (1, 1)


@settings(max_examples=examples(20), deadline=None)
@given(walks(turns=(-90, -60), drop_outs=False, flicker=True))
def test_a_flicker_of_one_frame_counts_nothing(walk: Walk) -> None:
    assert counted(walk) == (0, 0)


@settings(max_examples=examples(20), deadline=None)
@given(walks(turns=(-90, 90), drop_outs=False, flicker=True))
def test_a_flicker_of_one_frame_does_not_change_the_count_of_a_crossing(walk: Walk) -> None:
    analytics = counter(walk.line)
    run(analytics, walk.feet, walk.fps)
    entered, left = totals(analytics)
    forward, backward = (entered, left) if walk.direction > 0 else (left, entered)
    assert backward == 0
    # a flicker around the end of the segment in the very frame of the crossing may hide it, but never doubles it
    assert forward <= 1


@settings(max_examples=examples(15), deadline=None)
@given(walks(turns=(-90, 90)), st.data())
def test_an_id_switch_never_counts_twice(walk: Walk, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(walk.feet) - 1))
    analytics = counter(walk.line)
    step_ns = round(1e9 / walk.fps)
    for number, feet in enumerate(walk.feet):
        tracks = Tracks.empty() if feet is None else tracks_at([feet], [3 if number < at else 4])
        analytics.update(tracks, number * step_ns)
    analytics.update(Tracks.empty(), (len(walk.feet) + 1) * step_ns + 10_000_000_000)
    assert sum(totals(analytics)) <= 1


def test_left_to_right_of_the_drawn_direction_is_in() -> None:
    # drawn from left to right, its right-hand side is below
    analytics = counter()
    events = run(analytics, over([-60, -30, 30, 60, 60, 60, 60, 60]))
    assert totals(analytics) == (1, 0)
    assert events[0].kind == "line_crossed"
    assert dict(events[0].data) == {
        "line": "gate",
        "direction": "in",
        "class": "person",
        "position_px": [640.0, 420.0],
        "speed_px_s": 0.0,
    }
    assert events[0].track_id == 7 and events[0].stream == "door"


def test_a_line_drawn_the_other_way_round_counts_out() -> None:
    analytics = counter(LineSettings(name="gate", points_px=((790, 360), (490, 360))))
    run(analytics, over([-60, -30, 30, 60, 60, 60, 60, 60]))
    assert totals(analytics) == (0, 1)


def test_supervision_2598_a_flicker_does_not_count_in_the_wrong_direction() -> None:
    # the box of an object that goes up is cut at the knees for one frame, then it goes on
    analytics = counter()
    run(analytics, over([90, 70, 50, 30, 20, -40, 20, 10, -10, -30, -50, -70, -70, -70, -70]))
    assert totals(analytics) == (0, 1)


def test_supervision_2578_unconfirmed_ids_never_count() -> None:
    analytics = counter()
    for number, (a, b) in enumerate(zip([-60, 60] * 10, [60, -60] * 10, strict=True)):
        analytics.update(tracks_at(over([a, b]), [-1, -1]), number * 100_000_000)
    assert totals(analytics) == (0, 0)
    assert analytics.update(Tracks.empty(), 60_000_000_000) == ()


@pytest.mark.parametrize(
    ("points", "anchor", "message"),
    [
        (((0, 10), (1280, 10)), "bottom-centre", "too close to the frame's edge to ever count: the bottom-centre"),
        (((0, 718), (1280, 718)), "bottom-centre", "gets 2.0 px beyond its right side"),
        (((0, 712), (1280, 712)), "centre", "too close to the frame's edge"),
        (((5, 0), (5, 720)), "bottom-centre", "beyond its right side"),
        (((1280, 100), (1280, 600)), "right-centre", "beyond its left side"),
        (((100, 100), (100, 100)), "centre", "it is 0 px long"),
        (((100, 100), (1300, 100)), "centre", "must lie in the frame of 1280x720 pixels"),
        (((100, 100), (200, 100), (300, 200)), "centre", "a line has two points, found 3"),
    ],
)
def test_supervision_1838_a_line_that_can_never_count_is_a_config_error(
    points: tuple, anchor: str, message: str
) -> None:
    line = LineSettings(name="gate", points_px=points, anchor=anchor)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="door: line 'gate': ") as raised:
        counter(line)
    assert message in str(raised.value)


def test_a_line_close_to_the_border_still_counts_large_boxes() -> None:
    # the band of a 300-pixel person is 24 px, and the line is 12 px from the border
    analytics = counter(LineSettings(name="gate", points_px=((100, 708), (1180, 708))))
    run(analytics, [(640, y) for y in (650, 680, 700, 714, 719, 720, 720, 720, 720)], scale=3)
    assert totals(analytics) == (1, 0)


@pytest.mark.parametrize(("first", "expected"), [(1, (0, 0)), (3.5, (0, 0)), (5, (0, 1)), (-1, (0, 0))])
def test_a_track_that_begins_on_the_line_has_no_side_and_half_a_band_away_it_has(
    first: float, expected: tuple[int, int]
) -> None:
    analytics = counter()
    run(analytics, over([first, -3, -20, -40, -60, -60, -60, -60]))
    assert totals(analytics) == expected


def test_passing_beyond_the_ends_does_not_count() -> None:
    analytics = counter()
    run(analytics, over([-60, -30, 30, 60, 60, 60, 60, 60], x=830))
    run(analytics, over([60, 30, -30, -60, -60, -60, -60], x=450), track_id=8)
    assert totals(analytics) == (0, 0)


def test_around_the_end_and_back_through_the_line_counts_only_the_line() -> None:
    analytics = counter()
    around = [(640, 300), (850, 300), (850, 420), (850, 420), (850, 420), (640, 420), (640, 420), (640, 300)]
    run(analytics, [*around, *over([-60] * 6)])
    assert totals(analytics) == (0, 1)


def test_a_pass_that_was_taken_back_beyond_the_end_is_forgotten() -> None:
    analytics = counter()
    taken_back = [(780, 330), (780, 365), (800, 365), (800, 330)]
    around = [(850, 330), (850, 400), (850, 420), (850, 420), (850, 420), (850, 420)]
    run(analytics, [*taken_back, *around])
    assert totals(analytics) == (0, 0)


def test_standing_on_the_line_counts_nothing_until_it_is_left() -> None:
    analytics = counter()
    rng = np.random.default_rng(1)
    run(analytics, over([-60, -40, -20, *rng.uniform(-7.5, 7.5, 500), 20, 40, 60, 60, 60, 60]))
    assert totals(analytics) == (1, 0)


def test_lost_before_and_found_behind_the_line_counts_once() -> None:
    analytics = counter()
    run(analytics, [*over([-60, -40]), *[None] * 200, *over([40, 60, 60, 60, 60])])
    assert totals(analytics) == (1, 0)


def test_lost_right_after_the_crossing_counts() -> None:
    analytics = counter()
    events = run(analytics, over([-60, -40, 40]), fps=5)
    assert totals(analytics) == (1, 0)
    assert events[0].time_ns > 3_000_000_000


def test_predicted_positions_are_no_evidence() -> None:
    analytics = counter()
    for number, d in enumerate([-60, -40, 20, 40, 60, 80, 100, -60, -60, -60]):
        tracks = tracks_at(over([d]), [1])
        if 2 <= number <= 6:
            tracks = Tracks(
                tracks.track_id,
                tracks.xyxy,
                tracks.score,
                tracks.class_id,
                tracks.age,
                tracks.velocity,
                tracks.detection * 0 - 1,
            )
        analytics.update(tracks, number * 40_000_000)
    assert totals(analytics) == (0, 0)


def test_only_the_chosen_classes_count_and_a_class_that_flickers_keeps_its_majority() -> None:
    analytics = counter(LineSettings(name="gate", points_px=LINE.points_px, classes=("car",)))
    path = over([-60, -50, -40, -30, 30, 40, 50, 60, 60, 60])
    for number, feet in enumerate(path):
        car, person = tracks_at([feet], [1], class_id=1), tracks_at([feet], [2], class_id=0)
        analytics.update(car if number % 3 else tracks_at([feet], [1], class_id=0), number * 80_000_000)
        analytics.update(person, number * 80_000_000 + 40_000_000)
    assert analytics.counts()["lines"]["gate"] == {"in": 1, "out": 0, "by_class": {"in": {"car": 1}, "out": {}}}


def test_a_line_with_an_unknown_class_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="unknown class 'persn'; did you mean 'person'"):
        counter(LineSettings(name="gate", points_px=LINE.points_px, classes=("persn",)))


def test_ids_of_two_cameras_do_not_mix() -> None:
    here, there = counter(stream="here"), counter(stream="there")
    here.update(tracks_at(over([-60]), [1]), 0)
    for number, d in enumerate([60, 60, 60, 60, 60]):
        there.update(tracks_at(over([d]), [1]), number * 100_000_000)
    assert totals(here) == totals(there) == (0, 0)


def test_many_tracks_at_once_count_each_once() -> None:
    analytics = counter()
    num = 2000
    x = np.linspace(500, 780, num)
    for number, d in enumerate([-60, -30, 30, 60, 60, 60, 60]):
        analytics.update(
            tracks_at(np.stack((x, np.full(num, 360.0 + d)), 1), np.arange(num)[::-1]), number * 40_000_000
        )
    assert totals(analytics) == (num, 0)
