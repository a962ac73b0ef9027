"""A tracker's arithmetic in C is NumPy's, bit for bit, whatever happens in front of the camera."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import COMPILED, need

from edge.compiled import built
from edge.trackers import association, in_c
from edge.trackers import motion as kalman
from edge.trackers.settings import BYTETRACK, OCSORT, SORT, TrackerSettings
from edge.trackers.tracker import MotionTracker
from edge.trackers.tracks import ROW
from edge.types import Array, Detections, Float64, Tracks

FRAME_NS = 40_000_000
compiled = built("_tracks")


@pytest.fixture(autouse=True, scope="module")
def is_built() -> None:
    need(COMPILED)


SETTINGS = {
    "edge": TrackerSettings(),
    "edge, any class, coasting": TrackerSettings(per_class=False, coast_s=0.3, height_power=1.0, duplicate_overlap=0.5),
    "edge, no re-update": TrackerSettings(replay_steps=0, height_power=0.0, own_motion=False, max_objects=6),
    "bytetrack": BYTETRACK,
    "sort": SORT,
}


def frames(seed: int, count: int, num_objects: int) -> list[Detections]:
    """People who walk, meet, hide, leave and come, with boxes that tremble, doubles, and nonsense now and then."""
    rng = np.random.default_rng(seed)
    centre, speed = rng.uniform(0, 300, (num_objects, 2)), rng.normal(0, 6, (num_objects, 2))
    size = rng.uniform((20, 50), (60, 120), (num_objects, 2))
    kind = rng.integers(0, 2, num_objects)
    found = []
    for _ in range(count):
        centre = centre + speed + rng.normal(0, 8) * (rng.random() < 0.2)
        box = np.concatenate((centre - size / 2, centre + size / 2), axis=1) + rng.normal(0, 1, (num_objects, 4))
        seen = np.flatnonzero(rng.random(num_objects) < 0.85)
        seen = np.concatenate((seen, seen[:1]))
        placed, score = box[seen].astype(np.float32), rng.uniform(0.05, 1, len(seen)).astype(np.float32)
        if len(placed) and rng.random() < 0.1:
            placed[0, rng.integers(4)] = rng.choice([np.nan, np.inf, -np.inf, 0])
            score[-1] = np.nan
        found.append(Detections(placed, score, kind[seen].astype(np.int32)))
    return found


def assert_equal(a: Tracks, b: Tracks) -> None:
    for field in fields(Tracks):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if one is None:
            assert other is None
            continue
        assert one.dtype == other.dtype, field.name
        np.testing.assert_array_equal(one, other, err_msg=field.name)


def in_numpy(how: TrackerSettings, monkeypatch: pytest.MonkeyPatch) -> MotionTracker:
    with monkeypatch.context() as patch:
        patch.setattr(in_c, "_compiled", None)
        return MotionTracker(how)


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=examples(15))
@given(st.integers(0, 2**32), st.integers(0, 14), st.booleans())
def test_every_frame_is_the_same(name: str, seed: int, num_objects: int, is_turning: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        slow = in_numpy(SETTINGS[name], patch)
    fast = MotionTracker(SETTINGS[name])
    assert fast._steps is not None and slow._steps is None
    rng, time_ns = np.random.default_rng(seed), 0
    for found in frames(seed, 30, num_objects):
        time_ns += int(FRAME_NS * rng.choice([0, 1, 1, 1, 1, 3, 60], p=[0.03, 0.3, 0.3, 0.2, 0.1, 0.06, 0.01]))
        motion = np.array([[1.01, 0.02, rng.normal(0, 9)], [-0.02, 1.01, 3]]) if is_turning else None
        assert_equal(fast.update(found, time_ns, motion), slow.update(found, time_ns, motion))
    np.testing.assert_array_equal(fast._state, slow._state)
    np.testing.assert_array_equal(fast._tracks, slow._tracks)


def test_a_heap_of_boxes_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """More pairs meet than C has room for, and more objects are there than are taken."""
    how = TrackerSettings(max_objects=100)
    fast, slow, rng = MotionTracker(how), in_numpy(how, monkeypatch), np.random.default_rng(0)
    for k in range(12):
        low = rng.uniform(0, 40, (120, 2))
        box = np.concatenate((low, low + rng.uniform(60, 90, (120, 2))), axis=1).astype(np.float32)
        found = Detections(box, rng.uniform(0.2, 1, 120).astype(np.float32), np.zeros(120, np.int32))
        assert_equal(fast.update(found, k * FRAME_NS), slow.update(found, k * FRAME_NS))


def test_what_only_numpy_does_is_left_to_it() -> None:
    assert in_c.steps_for(OCSORT) is None
    assert in_c.steps_for(TrackerSettings(height_power=0.7)) is None


def chosen(table: Float64) -> list[int]:
    """The row of each column as C assigns them: overlaps are given directly, with a threshold of 0."""
    rows = np.zeros(len(table), ROW)
    rows["is_confirmed"] = True
    row, col = (np.ascontiguousarray(places) for places in np.nonzero(np.ones_like(table)))
    num = table.shape[1]
    track_of = np.empty(num, np.int64)
    numbers = (0.0,) * 9
    boxes, state = np.zeros((num, 4)), np.zeros((5, len(table), 4))
    compiled.match(rows, state, boxes, np.ones(num), row, col, np.ascontiguousarray(table[row, col]), numbers, track_of)
    return track_of.tolist()


@settings(max_examples=examples(200))
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32), st.booleans())
def test_the_assignment_is_scipys_ties_included(num_rows: int, num_cols: int, seed: int, has_ties: bool) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(-2, 4, (num_rows, num_cols)) / 4.0 if has_ties else rng.uniform(-0.5, 1, (num_rows, num_cols))
    row, col = np.nonzero(np.ones_like(table))
    won, by = association.assign(row, col, table[row, col], table.shape)
    expected = np.full(num_cols, -1)
    expected[by] = won
    assert chosen(table) == expected.tolist()


def state_and_rows(count: int) -> tuple[Array, Float64]:
    rows = np.zeros(count, ROW)
    return rows, kalman.start(np.tile([50.0, 50, 20, 40], (count, 1)), 1.0, 0.1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows, state: (rows[:1], state),
        lambda rows, state: (rows, state.astype(np.float32)),
        lambda rows, state: (rows, state[:, ::2]),
        lambda rows, state: (rows["box"].copy(), state),
    ],
    ids=["fewer rows", "single precision", "with gaps", "other rows"],
)
def test_arrays_that_do_not_fit_are_refused(spoil: object) -> None:
    rows, state = spoil(*state_and_rows(3))  # type: ignore[operator]
    with pytest.raises((ValueError, BufferError)):
        compiled.advance(rows, state, (0.0, 0.04, 0.1, 0.1))
