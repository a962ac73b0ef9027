"""The batched filter against a textbook Kalman filter with matrices, and what must hold whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.trackers import motion
from edge.types import Float64

POSITION_NOISE, SPEED_NOISE, MEASUREMENT_NOISE = 0.3, 0.8, 0.1
BOX = np.array([[100.0, 200.0, 40.0, 90.0]])


def states(box: Float64 = BOX) -> Float64:
    return motion.start(box, 2.0, MEASUREMENT_NOISE)


def textbook(boxes: list[Float64], times: list[float]) -> tuple[Float64, Float64]:
    """Mean (8,) and covariance (8, 8) after seeing all boxes, from the matrices of the textbook."""
    scale = np.tile(boxes[0][2:], 2)
    mean = np.r_[boxes[0], np.zeros(4)]
    cov = np.diag(np.r_[(2 * MEASUREMENT_NOISE * scale) ** 2, (2.0 * scale) ** 2])
    observe = np.eye(4, 8)
    for box, dt in zip(boxes[1:], np.diff(times), strict=True):
        scale = np.tile(mean[2:4], 2)
        step = np.eye(8) + dt * np.eye(8, k=4)
        noise = np.diag(np.r_[(POSITION_NOISE * scale) ** 2, (SPEED_NOISE * scale) ** 2]) * dt
        mean, cov = step @ mean, step @ cov @ step.T + noise
        scale = np.tile(mean[2:4], 2)
        gain = cov @ observe.T @ np.linalg.inv(observe @ cov @ observe.T + np.diag((MEASUREMENT_NOISE * scale) ** 2))
        mean, cov = mean + gain @ (box - observe @ mean), cov - gain @ observe @ cov
    return mean, cov


def test_the_filter_equals_the_textbook() -> None:
    rng = np.random.default_rng(1)
    times = [0.0, 0.04, 0.08, 0.2, 0.21, 0.5]
    boxes = [np.array([100 + 30 * t, 200 - 80 * t, 40 + 10 * t, 90.0]) + rng.normal(0, 1, 4) for t in times]
    state = states(boxes[0][None])
    for box, dt in zip(boxes[1:], np.diff(times), strict=True):
        motion.predict(state, dt, POSITION_NOISE, SPEED_NOISE)
        state = motion.update(state, box[None], MEASUREMENT_NOISE)
    mean, cov = textbook(boxes, times)
    np.testing.assert_allclose(state[motion.VALUE, 0], mean[:4])
    np.testing.assert_allclose(state[motion.SPEED, 0], mean[4:])
    np.testing.assert_allclose(state[motion.VAR, 0], np.diag(cov)[:4])
    np.testing.assert_allclose(state[motion.COV, 0], np.diag(cov, k=4))
    np.testing.assert_allclose(state[motion.SPEED_VAR, 0], np.diag(cov)[4:])


def test_each_track_is_filtered_as_if_it_were_alone() -> None:
    boxes = np.array([[100.0, 200, 40, 90], [500, 80, 10, 20], [0, 0, 300, 300]])
    together = states(boxes)
    motion.predict(together, 0.1, POSITION_NOISE, SPEED_NOISE)
    together = motion.update(together, boxes + 3, MEASUREMENT_NOISE)
    for row, box in enumerate(boxes):
        alone = states(box[None])
        motion.predict(alone, 0.1, POSITION_NOISE, SPEED_NOISE)
        alone = motion.update(alone, box[None] + 3, MEASUREMENT_NOISE)
        np.testing.assert_array_equal(together[:, row], alone[:, 0])


def test_predicting_twice_half_the_time_moves_as_far_as_once_the_whole() -> None:
    once, twice = states(), states()
    for state in (once, twice):
        state[motion.SPEED, 0, :2] = 30, -10
    motion.predict(once, 0.4, POSITION_NOISE, SPEED_NOISE)
    for _ in range(2):
        motion.predict(twice, 0.2, POSITION_NOISE, SPEED_NOISE)
    np.testing.assert_allclose(once[motion.VALUE], twice[motion.VALUE])


@given(st.lists(st.floats(0, 5), min_size=1, max_size=30))
def test_variances_stay_positive(steps_s: list[float]) -> None:
    state = states()
    for dt_s in steps_s:
        motion.predict(state, dt_s, POSITION_NOISE, SPEED_NOISE)
        state = motion.update(state, BOX, MEASUREMENT_NOISE)
        assert (state[motion.VAR] >= 0).all() and (state[motion.SPEED_VAR] >= 0).all()
        assert (state[motion.COV] ** 2 <= state[motion.VAR] * state[motion.SPEED_VAR] * (1 + 1e-6) + 1e-12).all()


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(1, 1e4), st.floats(1, 1e4))
def test_corners_and_centre_are_inverse(cx: float, cy: float, w: float, h: float) -> None:
    box = np.array([[cx, cy, w, h]])
    np.testing.assert_allclose(motion.to_centre(motion.to_corners(box)), box, atol=1e-8)


def test_boxes_grow_on_each_side() -> None:
    np.testing.assert_allclose(motion.to_corners(np.array([[50.0, 50, 20, 40]]), 0.25), [[35, 20, 65, 80]])


def test_a_lost_box_keeps_its_size() -> None:
    state = states()
    state[motion.SPEED, 0] = 10, 10, -100, 50
    motion.hold_size(state, np.array([True]))
    motion.predict(state, 1.0, POSITION_NOISE, SPEED_NOISE)
    np.testing.assert_allclose(state[motion.VALUE, 0], [110, 210, 40, 90])


def test_a_shrinking_box_does_not_turn_inside_out() -> None:
    state = states()
    state[motion.SPEED, 0, 2:] = -1000
    motion.predict(state, 1.0, POSITION_NOISE, SPEED_NOISE)
    assert (state[motion.VALUE, 0, 2:] == motion.LEAST_SIZE_PX).all()


def test_replay_finds_the_speed_of_the_gap() -> None:
    """A track that stood still and is found 100 px further a second later must have moved at 100 px/s."""
    state = states()
    for _ in range(20):
        motion.predict(state, 0.04, POSITION_NOISE, SPEED_NOISE)
        state = motion.update(state, BOX, MEASUREMENT_NOISE)
    found = BOX + np.array([100, 0, 0, 0])
    noise = (POSITION_NOISE, SPEED_NOISE, MEASUREMENT_NOISE)
    after = motion.update(motion.replay(state, BOX, found, np.array([1.0]), 8, noise), found, MEASUREMENT_NOISE)
    assert after[motion.SPEED, 0, 0] == pytest.approx(100, abs=15)
    assert abs(after[motion.SPEED, 0, 1]) < 1e-6


def test_warp_moves_turns_and_zooms() -> None:
    state = states()
    state[motion.SPEED, 0, :2] = 10, 0
    # a quarter turn, twice as large
    motion.warp(state, np.array([[0.0, -2, 5], [2, 0, 7]]))
    np.testing.assert_allclose(state[motion.VALUE, 0], [-2 * 200 + 5, 2 * 100 + 7, 80, 180])
    np.testing.assert_allclose(state[motion.SPEED, 0, :2], [0, 20], atol=1e-12)


def test_no_tracks_is_an_ordinary_case() -> None:
    state = states(np.empty((0, 4)))
    motion.predict(state, 0.1, POSITION_NOISE, SPEED_NOISE)
    assert motion.update(state, np.empty((0, 4)), MEASUREMENT_NOISE).shape == (5, 0, 4)
