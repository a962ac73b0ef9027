"""Camera motion from pictures and from boxes, against motion that is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.trackers import camera_motion
from edge.types import Float64, UInt8


def scene(seed: int = 0) -> UInt8:
    """A picture with many corners."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (23, 40), np.uint8)
    return np.asarray(cv2.resize(coarse, (320, 184), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize(
    "affine",
    [
        [[1, 0, 0], [0, 1, 0]],
        [[1, 0, 6.5], [0, 1, -3]],
        [[1.02, 0, -3], [0, 1.02, -2]],
        [[0.9998, -0.02, 2], [0.02, 0.9998, -4]],
    ],
    ids=["still", "pan", "zoom", "roll"],
)
def test_known_motion_is_found_in_the_pictures(affine: list[list[float]]) -> None:
    before = scene()
    true = np.array(affine, np.float64)
    after = cv2.warpAffine(before, true, (320, 184), borderMode=cv2.BORDER_REFLECT)
    found = camera_motion.estimate(before, np.asarray(after))
    corners = np.array([[20, 20, 1], [300, 20, 1], [20, 160, 1], [300, 160, 1]], np.float64)
    np.testing.assert_allclose(corners @ found.T, corners @ true.T, atol=0.75)


def test_a_blank_picture_shows_no_motion() -> None:
    blank = np.zeros((184, 320), np.uint8)
    np.testing.assert_array_equal(camera_motion.estimate(blank, blank), np.eye(2, 3))


def test_the_same_pictures_give_the_same_motion() -> None:
    before, after = scene(), np.roll(scene(), 5, axis=1)
    np.testing.assert_array_equal(camera_motion.estimate(before, after), camera_motion.estimate(before, after))


def errors(shift: tuple[float, float], movers: int, num: int = 20, jitter: float = 1.0) -> Float64:
    rng = np.random.default_rng(1)
    error = np.array(shift) + rng.normal(0, jitter, (num, 2))
    error[:movers] += 50
    return error


def test_the_shift_of_most_boxes_is_the_cameras() -> None:
    np.testing.assert_allclose(camera_motion.shift_of_pairs(errors((12, -7), movers=5)), [12, -7], atol=1.0)


def test_jitter_is_no_camera_motion() -> None:
    np.testing.assert_array_equal(camera_motion.shift_of_pairs(errors((0, 0), movers=0)), [0, 0])


@pytest.mark.parametrize("num", [0, 1, 2])
def test_few_boxes_say_nothing_about_the_camera(num: int) -> None:
    np.testing.assert_array_equal(camera_motion.shift_of_pairs(np.full((num, 2), 30.0)), [0, 0])
