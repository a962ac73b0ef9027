"""Camera motion from pictures and from boxes, against motion that is known."""

from __future__ import annotations

import time
from functools import cache

import cv2
import numpy as np
import pytest
from effort import examples
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge.trackers import camera_motion
from edge.types import Array, Float64, UInt8


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


def crowd_of(num: int, seed: int) -> Float64:
    """(N, 4) ``cx cy w h`` of walkers all over a frame."""
    rng = np.random.default_rng(seed)
    width = rng.uniform(30, 60, num)
    return np.column_stack((rng.uniform(0, 1280, num), rng.uniform(0, 720, num), width, 2.5 * width))


@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(
    num=st.integers(4, 60),
    seed=st.integers(0, 999),
    shift=st.tuples(st.floats(-250, 250), st.floats(-250, 250)),
    num_lost=st.integers(0, 20),
)
def test_a_turn_by_several_boxes_is_understood_without_pairs(
    num: int, seed: int, shift: tuple[float, float], num_lost: int
) -> None:
    rng, expected = np.random.default_rng(seed), crowd_of(num, seed)
    assume(max(np.abs(shift)) > 60)
    found = expected + np.array((*shift, 0, 0)) + rng.normal(0, 1.5, (num, 4))
    found = np.concatenate((found[min(num_lost, num // 4) :], crowd_of(num // 4, seed + 1)))
    np.testing.assert_allclose(camera_motion.shift_by_vote(expected, rng.permutation(found)), shift, atol=4)


@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(num=st.integers(0, 60), seed=st.integers(0, 999), num_walkers=st.integers(0, 20))
def test_those_who_stand_outvote_those_who_walk(num: int, seed: int, num_walkers: int) -> None:
    rng, expected = np.random.default_rng(seed), crowd_of(num, seed)
    walkers = min(num_walkers, num // 2)
    found = expected + rng.normal(0, 1.5, (num, 4))
    found[:walkers, 0] += 90
    np.testing.assert_array_equal(camera_motion.shift_by_vote(expected, found), [0, 0])


@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(num=st.integers(0, 300), other=st.integers(0, 300), scale=st.sampled_from([1e-3, 1.0, 1e6]))
def test_boxes_of_two_scenes_agree_on_nothing(num: int, other: int, scale: float) -> None:
    shift = camera_motion.shift_by_vote(scale * crowd_of(num, 1), crowd_of(other, 2))
    assert np.isfinite(shift).all()
    if scale != 1 or num > 20 < other:
        np.testing.assert_array_equal(shift, [0, 0])


def colour(grey: UInt8, scale: int = 4) -> UInt8:
    large = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR))


NO_BOXES = np.empty((0, 4), np.float32)


def test_motion_is_in_pixels_of_the_frame() -> None:
    camera = always()
    assert camera.update(colour(scene()), NO_BOXES) is None, "the first frame"
    found = camera.update(np.roll(colour(scene()), 24, axis=1), NO_BOXES)
    assert found is not None
    np.testing.assert_allclose(found[:, :2], np.eye(2), atol=0.01)
    np.testing.assert_allclose(found[:, 2], [24, 0], atol=1.5)


def test_a_still_camera_leaves_it_to_the_boxes() -> None:
    camera = camera_motion.CameraMotion()
    noise = np.random.default_rng(0)
    for _ in range(5):
        picture = colour(scene()).astype(np.int16) + noise.integers(-4, 5, (736, 1280, 1), np.int16)
        assert camera.update(np.clip(picture, 0, 255).astype(np.uint8), NO_BOXES) is None


def test_another_size_begins_anew() -> None:
    camera = always()
    camera.update(colour(scene()), NO_BOXES)
    assert camera.update(colour(scene())[:, :700], NO_BOXES) is None


def frame_with_bus(shift: int, width: int) -> UInt8:
    """A bus that drives past; what stands next to it stands still."""
    picture, bus = scene(), scene(seed=9)[:, :width]
    picture[:, 8 + shift : 8 + shift + width] = bus
    return colour(picture)


def drive(camera: camera_motion.CameraMotion, width: int, *, is_found: bool) -> list[Float64 | None]:
    """What is measured while a bus of that width drives by 32 pixels a frame."""
    found = []
    for k in range(4):
        box = np.array([[8 + 8 * k, 0, 8 + 8 * k + width, 184]], np.float32) * 4
        found.append(camera.update(frame_with_bus(8 * k, width), box if is_found else NO_BOXES))
    return found


@pytest.mark.parametrize("width", [60, 120, 180])
def test_a_bus_that_was_not_detected_is_no_camera(width: int) -> None:
    assert not any(motion is not None for motion in drive(always(), width, is_found=False))


def test_objects_are_left_out() -> None:
    found = drive(always(), 280, is_found=True)
    assert all(motion is None or np.abs(motion[:, 2]).max() < 1 for motion in found), "only the bus moves, by 32 pixels"
    deceived = drive(always(), 280, is_found=False)
    assert any(m is not None and np.abs(m[:, 2]).max() > 20 for m in deceived), "the scene is too easy to show anything"


def test_boxes_that_are_no_numbers_hide_nothing() -> None:
    grey, nan = scene(), np.full((1, 4), np.nan, np.float32)
    np.testing.assert_array_equal(camera_motion.corners_of(grey, nan), camera_motion.corners_of(grey))


def always() -> camera_motion.CameraMotion:
    return camera_motion.CameraMotion(is_always=True)


@cache
def mosaic(seed: int = 3) -> UInt8:
    """(900, 1400) grey: coarse and fine structure, larger than what a camera sees of it."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.integers(0, 128, (900 // n, 1400 // n), np.uint8), (1400, 900)) for n in (50, 9)]
    return np.asarray(cv2.add(*layers))


def grainy(seen: Array, noise: float, rng: np.random.Generator) -> UInt8:
    return np.clip(seen + noise * rng.standard_normal(seen.shape, np.float32), 0, 255).astype(np.uint8)


def turning(true: list[Float64], *, noise: float = 0.0) -> list[UInt8]:
    """(360, 640) frames of a camera before the mosaic: each of the affines carries its frame to the next."""
    rng, place = np.random.default_rng(0), np.array([[1, 0, -380], [0, 1, -270], [0, 0, 1]], np.float64)
    frames = []
    for affine in [np.eye(2, 3), *true]:
        place = np.vstack((affine, [0, 0, 1])) @ place
        seen = np.asarray(cv2.warpAffine(mosaic(), place[:2], (640, 360)))
        frames.append(grainy(seen, noise, rng) if noise else seen)
    return frames


def similarity(shift: tuple[float, float], turn_deg: float = 0.0, zoom: float = 1.0) -> Float64:
    """About the middle of the frame."""
    affine = cv2.getRotationMatrix2D((319.5, 179.5), turn_deg, zoom)
    affine[:, 2] += shift
    return np.asarray(affine, np.float64)


def error_px(found: Float64, true: Float64) -> float:
    """The largest, over the corners of the frame."""
    corners = np.array([[0, 0, 1], [640, 0, 1], [0, 360, 1], [640, 360, 1]], np.float64)
    return float(np.abs(corners @ found.T - corners @ true.T).max())


@settings(max_examples=examples(40), deadline=None, derandomize=True)
@given(
    shift=st.tuples(st.floats(-25, 25), st.floats(-25, 25)),
    turn_deg=st.floats(-1.5, 1.5),
    zoom=st.floats(0.98, 1.02),
    noise=st.sampled_from([0.0, 4.0]),
)
def test_a_turning_camera_is_measured_from_its_second_step_on(
    shift: tuple[float, float], turn_deg: float, zoom: float, noise: float
) -> None:
    true = similarity(shift, turn_deg, zoom)
    assume(error_px(np.eye(2, 3), true) > 6)
    camera = camera_motion.CameraMotion()
    found = [camera.update(frame, NO_BOXES) for frame in turning([true] * 4, noise=noise)]
    assert found[0] is None
    later = [motion for motion in found[2:] if motion is not None]
    assert len(later) == 3
    assert max(error_px(motion, true) for motion in later) < 1.5


def test_colour_and_luma_give_the_same_motion() -> None:
    frames = turning([similarity((9, 4))] * 3)
    in_grey, in_colour = camera_motion.CameraMotion(), camera_motion.CameraMotion()
    for grey in frames:
        a = in_grey.update(grey, NO_BOXES)
        b = in_colour.update(np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)), NO_BOXES)
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            np.testing.assert_allclose(a, b, atol=0.05)


def test_the_end_of_a_movement_is_found() -> None:
    path = [similarity((9, 4))] * 5 + [np.eye(2, 3)] * 5
    camera = camera_motion.CameraMotion()
    found = [camera.update(frame, NO_BOXES) for frame in turning(path)]
    assert all(motion is not None for motion in found[2:6])
    assert not any(motion is not None for motion in found[6:])


@pytest.mark.parametrize(("light", "noise"), [(1.0, 4.0), (1.0, 12.0), (0.15, 6.0)], ids=["day", "grainy", "night"])
def test_noise_is_no_movement(light: float, noise: float) -> None:
    rng, still = np.random.default_rng(0), light * mosaic()[:720, :1280].astype(np.float32)
    camera = camera_motion.CameraMotion()
    for _ in range(examples(40)):
        assert camera.update(grainy(still, noise, rng), NO_BOXES) is None


def test_a_cut_is_no_movement() -> None:
    scenes = [mosaic(seed)[:360, :640] for seed in (1, 2, 3, 4)]
    camera = camera_motion.CameraMotion()
    for k in range(24):
        assert camera.update(scenes[k // 2 % 4], NO_BOXES) is None


@pytest.mark.parametrize("light", [0, 255])
def test_a_picture_that_goes_blank_and_comes_back_is_no_movement(light: int) -> None:
    seen, blank = mosaic()[:360, :640], np.full((360, 640), light, np.uint8)
    camera = camera_motion.CameraMotion()
    for frame in [seen, seen, blank, blank, blank, seen, seen, blank, seen]:
        assert camera.update(np.ascontiguousarray(frame), NO_BOXES) is None


@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    colours=st.booleans(),
    boxes=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_no_size_and_no_box_stops_it(height: int, width: int, colours: bool, boxes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (height, width, 3) if colours else (height, width)
    for camera in (camera_motion.CameraMotion(), always()):
        for _ in range(4):
            xyxy = rng.choice([np.nan, -np.inf, -50.0, 0.0, 120.0, 9e9], (boxes, 4)).astype(np.float32)
            found = camera.update(rng.integers(0, 256, shape, np.uint8), xyxy)
            assert found is None or (found.shape == (2, 3) and np.isfinite(found).all())


def test_a_still_camera_costs_next_to_nothing() -> None:
    still = np.ascontiguousarray(mosaic()[:720, :1280])
    camera, spent = camera_motion.CameraMotion(), []
    for _ in range(60):
        started = time.thread_time()
        camera.update(still, NO_BOXES)
        spent.append(time.thread_time() - started)
    assert sorted(spent)[len(spent) // 2] < 0.0005, "0.02 ms where nothing else runs"


def test_corners_that_are_followed_measure_as_well_as_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    find = camera_motion.corners_of
    monkeypatch.setattr(camera_motion, "corners_of", lambda grey: looked.append(1) or find(grey))
    true = [similarity((9, -5), 0.3, 1.002)] * 12
    camera, *frames = always(), *turning(true, noise=2.0)
    found = [camera.update(frame, NO_BOXES) for frame in frames][1:]
    assert max(error_px(one, truth) for one, truth in zip(found, true, strict=True) if one is not None) < 2.5
    assert all(one is not None for one in found)
    assert len(looked) == 12 / camera_motion.MOST_FOLLOWED


def test_a_box_hides_corners_that_were_followed_into_it() -> None:
    corners = np.array([[5, 5], [15, 5], [30, 30]], np.float32)
    assert camera_motion.outside(corners, np.array([[10, 0, 20, 10]], np.float32)).tolist() == [[5, 5], [30, 30]]
    assert camera_motion.outside(corners, NO_BOXES) is corners
