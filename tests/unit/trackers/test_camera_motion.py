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


@pytest.mark.parametrize("error", [0.0, 1e-200, 1e200], ids=["none", "tiny", "huge"])
def test_no_shift_is_too_small_or_large_to_compute(error: float) -> None:
    shift = camera_motion.shift_of_pairs(np.full((5, 2), error))
    assert np.isfinite(shift).all()


def colour(grey: UInt8, scale: int = 4) -> UInt8:
    large = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR))


NO_BOXES = np.empty((0, 4), np.float32)


def test_motion_is_in_pixels_of_the_frame() -> None:
    camera = camera_motion.CameraMotion()
    assert camera.update(colour(scene()), NO_BOXES) is None, "the first frame"
    found = camera.update(np.roll(colour(scene()), 24, axis=1), NO_BOXES)
    assert found is not None
    np.testing.assert_allclose(found[:, :2], np.eye(2), atol=0.01)
    np.testing.assert_allclose(found[:, 2], [24, 0], atol=1.5)


def test_a_still_camera_leaves_it_to_the_boxes() -> None:
    camera = camera_motion.CameraMotion()
    noise = np.random.default_rng(0)
    for _ in range(5):
        picture = colour(scene()).astype(np.int16) + noise.integers(-4, 5, (736, 1280, 1))
        assert camera.update(np.clip(picture, 0, 255).astype(np.uint8), NO_BOXES) is None


def test_another_size_begins_anew() -> None:
    camera = camera_motion.CameraMotion()
    camera.update(colour(scene()), NO_BOXES)
    assert camera.update(colour(scene())[:, :700], NO_BOXES) is None


def with_bus(shift: int) -> UInt8:
    """A bus that covers most of the picture and drives; what stands behind it stands still."""
    picture, bus = scene(), scene(seed=9)[:140, :200]
    picture[20:160, 40 + shift : 240 + shift] = bus
    return colour(picture)


def test_objects_are_left_out() -> None:
    box = np.array([[40, 20, 240, 160]], np.float32) * 4
    camera = camera_motion.CameraMotion()
    camera.update(with_bus(0), box)
    found = camera.update(with_bus(8), box + np.array([32, 0, 32, 0], np.float32))
    assert found is None or abs(found[:, 2]).max() < 1, "only the bus moves, by 32 pixels"
    deceived = camera_motion.CameraMotion()
    deceived.update(with_bus(0), NO_BOXES)
    found = deceived.update(with_bus(8), NO_BOXES)
    assert found is not None and abs(found[:, 2]).max() > 20, "the scene is too easy to show anything"


def test_boxes_that_are_no_numbers_hide_nothing() -> None:
    assert camera_motion.ground_of(np.full((1, 4), np.nan, np.float32), (10, 10)).all()
