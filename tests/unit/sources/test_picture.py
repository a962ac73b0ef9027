"""What is done to a picture before anybody sees it: masks that leave nothing, regions, rotation, sizes and rates."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edge.config.picture import Mask, Region
from edge.pictures.planes import Colour, PlaneForm, Planes
from edge.sources.motion_gate import GateLimits, MotionGate
from edge.sources.picture import Pace, PicturePreparer, PictureSettings
from edge.sources.prepared import Preparation
from edge.types import Float32, UInt8

SECOND_NS = 1_000_000_000


def numbered(width: int = 64, height: int = 48) -> UInt8:
    """A picture in which every pixel tells its place."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(width)
    image[..., 1] = np.arange(height)[:, None]
    image[..., 2] = 200
    return image


def prepared(image: UInt8, **settings: Any) -> UInt8:
    return PicturePreparer(PictureSettings(**settings)).prepare(Planes.of(image)).bgr


def test_a_region_keeps_its_pixels_and_nothing_else() -> None:
    image = prepared(numbered(), roi=(0.25, 0.5, 0.75, 1.0))
    assert image.shape == (24, 32, 3)
    assert image[0, 0].tolist() == [16, 24, 200]
    assert image[-1, -1].tolist() == [47, 47, 200]


@pytest.mark.parametrize(
    ("degrees", "corner"), [(0, [0, 0, 200]), (90, [0, 47, 200]), (180, [63, 47, 200]), (270, [63, 0, 200])]
)
def test_rotation_is_clockwise(degrees: Any, corner: list[int]) -> None:
    image = prepared(numbered(), rotate=degrees)
    assert image.shape[:2] == ((48, 64) if degrees in (0, 180) else (64, 48))
    assert image[0, 0].tolist() == corner


def test_size_is_what_comes_out_whatever_comes_in() -> None:
    preparer = PicturePreparer(PictureSettings(size=(32, 20)))
    assert [preparer.prepare(Planes.of(numbered(*size))).bgr.shape for size in ((64, 48), (128, 96), (32, 20))] == [
        (20, 32, 3)
    ] * 3


@pytest.mark.parametrize(
    ("camera", "expected"), [((400, 100), (100, 25)), ((50, 40), (50, 40)), ((100, 400), (20, 80))]
)
def test_a_picture_over_the_limit_keeps_its_shape(camera: tuple[int, int], expected: tuple[int, int]) -> None:
    image = prepared(numbered(*camera), limit=(100, 80))
    assert (image.shape[1], image.shape[0]) == expected


CORNERS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=6)


@given(corners=CORNERS, degrees=st.sampled_from([0, 90, 180, 270]), size=st.sampled_from([None, (40, 30), (90, 100)]))
def test_no_pixel_inside_a_mask_comes_out(corners: list[tuple[float, float]], degrees: Any, size: Any) -> None:
    """The canary is painted exactly on the pixels that the mask covers: none of its colour may be left."""
    import cv2

    image = np.full((48, 64, 3), (0, 0, 90), np.uint8)
    inside = np.zeros((48, 64), np.uint8)
    hull = cv2.convexHull(np.array(corners, np.float32))[:, 0]
    polygon = tuple((float(x), float(y)) for x, y in hull)
    if len(polygon) < 3:
        return
    cv2.fillPoly(inside, [np.floor(np.array(polygon) * (64, 48)).astype(np.int32)], 1)
    image[inside == 1] = (255, 255, 0)
    result = prepared(image, masks=(polygon,), rotate=degrees, size=size)
    assert not result[..., :2].any()


def test_where_two_masks_overlap_nothing_shows() -> None:
    square = ((0.1, 0.1), (0.6, 0.1), (0.6, 0.6), (0.1, 0.6))
    other = tuple((x + 0.2, y + 0.2) for x, y in square)
    image = prepared(numbered(), masks=(square, other))
    assert not image[10:28, 10:36].any()
    assert not image[18:36, 22:48].any()


def test_a_mask_follows_a_camera_that_changes_its_size() -> None:
    preparer = PicturePreparer(PictureSettings(masks=(((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5)),)))
    for size in ((64, 48), (128, 96), (64, 48)):
        image = preparer.prepare(Planes.of(np.full((size[1], size[0], 3), 200, np.uint8))).bgr
        assert not image[: size[1] // 2].any()
        assert image[size[1] * 3 // 4 :].all()


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Mask, [[0.1, 0.1], [0.5, 0.5]], "at least 3"),
        (Mask, [[0.1, 0.1], [1.5, 0.5], [0.2, 0.9]], "less than or equal to 1"),
        (Mask, [[0.1, 0.1], [0.9, 0.9], [0.9, 0.1], [0.1, 0.9]], "cross each other"),
        (Region, [0.5, 0.1, 0.4, 0.9], "left < right"),
    ],
)
def test_a_polygon_that_would_leave_a_hole_is_refused(kind: Any, value: Any, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize("camera_fps", [5.0, 15.0, 24.7, 30.0, 60.0, 300.0])
@pytest.mark.parametrize("max_fps", [0.5, 5.0, 10.0, 29.97])
def test_the_rate_is_the_lower_of_the_two(camera_fps: float, max_fps: float) -> None:
    pace = Pace(max_fps)
    num_passed = sum(pace.passes(round(index * SECOND_NS / camera_fps)) for index in range(round(camera_fps * 20)))
    assert num_passed / 20 == pytest.approx(min(camera_fps, max_fps), rel=0.06, abs=0.06)


def test_a_clock_that_jumps_does_not_stop_the_stream() -> None:
    pace = Pace(10)
    assert pace.passes(100 * SECOND_NS)
    assert pace.passes(5 * SECOND_NS)
    assert not pace.passes(5 * SECOND_NS + 1)
    assert pace.passes(900 * SECOND_NS)
    assert pace.passes(900 * SECOND_NS + 100_000_000)


SIZE = 180 * 320 * 3


@cache
def much_noise() -> Float32:
    return 3 * np.random.default_rng(0).standard_normal(4 * SIZE, np.float32)


def noisy(seed: int, level: int = 100) -> UInt8:
    """Noise around a level: another part of the same for each seed, which costs less than to draw it."""
    begin = int(np.random.default_rng(seed).integers(3 * SIZE))
    noise = much_noise()[begin : begin + SIZE].reshape(180, 320, 3)
    return np.clip(level + noise, 0, 255).astype(np.uint8)


def test_the_gate_passes_motion_at_once_and_stillness_at_the_floor_rate() -> None:
    gate = MotionGate(GateLimits(enabled=True, floor_fps=1.0, hold_s=0.5))
    passed = []
    for index in range(100):
        image = noisy(index)
        if 50 <= index < 55:
            image[60:90, 10 * index - 450 : 10 * index - 430] = 220
        passed.append(gate.passes(image, index * 100_000_000))
    assert 4 <= sum(passed[10:50]) <= 5, "noise is no motion"
    assert all(passed[50:60]), "motion, and half a second after it"
    assert sum(passed[70:100]) <= 5


def test_light_that_changes_everywhere_is_no_motion() -> None:
    gate = MotionGate(GateLimits(enabled=True, floor_fps=0.1, hold_s=0))
    passed = [gate.passes(noisy(index, 100 + index), index * 100_000_000) for index in range(40)]
    assert sum(passed[1:]) <= 1


def test_a_preparation_survives_the_way_to_the_child() -> None:
    picture = PictureSettings(5.0, (((0.0, 0.0), (1.0, 0.0), (1.0, 0.5)),), (0.0, 0.1, 1.0, 0.9), 90, (64, 48), (9, 9))
    sent = Preparation(picture, GateLimits(enabled=True))
    assert Preparation.from_json(json.loads(json.dumps(sent.as_json()))) == sent


@settings(deadline=None, max_examples=examples(60))
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=6),
    st.integers(20, 70),
    st.integers(20, 70),
    st.sampled_from(["i420", "nv12"]),
    st.booleans(),
)
def test_a_mask_covers_planes_as_it_covers_bgr(
    mask: list[tuple[float, float]], width: int, height: int, kind: Any, is_full: bool
) -> None:
    """Where BGR is black, luma is black and chroma says nothing; elsewhere luma is what it was."""
    form = PlaneForm(kind, width, height, Colour("bt709", is_full))
    planes = form.over(np.random.default_rng(0).integers(30, 220, form.num_bytes, dtype=np.uint8))
    before = planes.copy()
    planes.freeze()
    masks = (tuple(mask),)
    covered = prepared(np.full((height, width, 3), 255, np.uint8), masks=masks)[..., 0] == 0
    masked = PicturePreparer(PictureSettings(masks=masks)).prepare(planes)
    luma, first, second = masked.separate
    assert (luma[covered] == form.colour.black).all()
    assert (luma[~covered] == before.arrays[0][~covered]).all()
    rows, columns = np.nonzero(covered)
    assert (first[rows // 2, columns // 2] == 128).all() and (second[rows // 2, columns // 2] == 128).all()
    assert (planes.arrays[0] == before.arrays[0]).all(), "the decoder's own picture was painted on"


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_planes_are_prepared_as_bgr_is(rotate: Any) -> None:
    form = PlaneForm("i420", 640, 480)
    planes = form.over(np.full(form.num_bytes, 128, np.uint8))
    planes.arrays[0][...] = np.linspace(40, 200, 640).astype(np.uint8)
    wanted = PictureSettings(roi=(0.11, 0.21, 0.92, 0.83), rotate=rotate, size=(200, 130))
    ours, theirs = (PicturePreparer(wanted).prepare(picture) for picture in (planes, Planes.of(planes.bgr)))
    assert ours.size == theirs.size == (200, 130)
    assert ours.form.format == "i420"
    assert np.abs(ours.bgr.astype(int) - theirs.bgr).max() <= 3


def test_motion_shows_in_luma_as_in_green() -> None:
    form = PlaneForm("i420", 320, 180)
    still, moved = (form.over(np.full(form.num_bytes, 128, np.uint8)) for _ in range(2))
    moved.arrays[0][60:120, 100:200] = 180
    gate = MotionGate(GateLimits(enabled=True, floor_fps=0.1, hold_s=0))
    passed = [gate.passes(picture, index * 100_000_000) for index, picture in enumerate([still] * 5 + [moved])]
    assert passed == [True, False, False, False, False, True]
