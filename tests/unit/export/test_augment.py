"""Augmentation: boxes and masks stay on their pixels, whatever happens to the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from effort import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from edge.types import Bool, Float32
from export.data.augment import AugmentSettings, augment, letterboxed
from export.data.geometry import PAD_LEVEL, Placement, Window, numbered, paint, paint_mask, place_labels, turned
from export.data.instances import mirror_of
from export.data.mixing import cut_out
from export.data.sample import IGNORE_LABEL, NO_OBJECT, Sample

STILL = AugmentSettings(flip=0, crop=0, colour=0, blur=0, noise=0, jpeg=0)
BRIGHT = 180


def changed(name: str) -> AugmentSettings:
    """Nothing but this change, at its most."""
    values: dict[str, Any] = {name: 1.0}
    return replace(STILL, **values)


def painted(width: int, height: int, box: tuple[int, int, int, int], image_id: str = "a") -> Sample:
    """A black picture with one white rectangle, its box, and a mask of the same pixels."""
    x1, y1, x2, y2 = box
    image = np.zeros((height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    image[y1:y2, x1:x2] = 255
    mask[y1:y2, x1:x2] = 1
    return Sample(
        image,
        image_id,
        boxes=np.array([box], np.float32),
        labels=np.zeros(1, np.int32),
        ignore=np.zeros(1, np.bool_),
        weight=np.ones(1, np.float32),
        mask=mask,
    )


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    # not much smaller than the target: enlarged edges are soft
    width, height = draw(st.integers(60, 120)), draw(st.integers(60, 120))
    x1, y1 = draw(st.integers(0, width - 12)), draw(st.integers(0, height - 12))
    x2, y2 = draw(st.integers(x1 + 12, width)), draw(st.integers(y1 + 12, height))
    return painted(width, height, (x1, y1, x2, y2))


def agree(white: Bool, boxes: Float32, margin: int = 2) -> bool:
    """Whether pixels and boxes are the same except for a seam of ``margin`` pixels; slivers are too thin for a box."""
    is_core, is_near = np.zeros(white.shape, np.bool_), np.zeros(white.shape, np.bool_)
    for x1, y1, x2, y2 in np.rint(boxes).astype(int):
        is_core[y1 + margin : max(0, y2 - margin), x1 + margin : max(0, x2 - margin)] = True
        is_near[max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin] = True
    thick = cv2.morphologyEx(white.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return bool(white[is_core].all()) and not bool(thick[~is_near].any())


@settings(max_examples=examples(80), deadline=None)
@given(sample=samples(), other=samples(), seed=st.integers(0, 10_000), mosaic=st.booleans(), crop=st.booleans())
def test_boxes_follow_the_pixels(sample: Sample, other: Sample, seed: int, mosaic: bool, crop: bool) -> None:
    size = (64, 80)
    changes = replace(
        STILL, flip=0.5, turn=0.5, crop=float(crop), scale_min=0.5, scale_max=1.5, shift=0.2, mosaic=float(mosaic)
    )
    made = augment(sample, size, changes, default_rng(seed), lambda _: other, 1, "detect")
    # grey padding is no object, so white is what is brighter than halfway from it
    white = made.image[..., 0] > BRIGHT
    assert made.image.shape == (*size, 3)
    assert agree(white, made.boxes)


@settings(max_examples=examples(80), deadline=None)
@given(sample=samples(), seed=st.integers(0, 10_000), mosaic=st.booleans())
def test_masks_follow_the_pixels(sample: Sample, seed: int, mosaic: bool) -> None:
    size = (64, 80)
    changes = replace(STILL, flip=0.5, turn=0.5, crop=1.0, scale_min=0.5, scale_max=2.0, mosaic=float(mosaic))
    made = augment(sample, size, changes, default_rng(seed), lambda _: sample, 1, "segment")
    assert made.mask is not None and set(np.unique(made.mask)) <= {0, 1, IGNORE_LABEL}
    # bilinear pictures and nearest masks differ by half a pixel at an edge, seen where both are certain
    clear = (made.image[..., 0] == 255) | (made.image[..., 0] == 0)
    expected = np.where(made.image[..., 0] == 255, 1, 0)
    known = clear & (made.mask != IGNORE_LABEL)
    assert (made.mask[known] == expected[known]).all()


@settings(max_examples=examples(60), deadline=None)
@given(
    st.tuples(st.floats(0.3, 2), st.floats(0.3, 2), st.floats(-30, 30), st.floats(-30, 30)), st.booleans(), samples()
)
def test_placement_of_boxes_pictures_and_masks_is_one_formula(
    values: tuple[float, float, float, float], mirror: bool, sample: Sample
) -> None:
    placement = Placement(*values).mirrored(70) if mirror else Placement(*values)
    window = Window(3, 5, 67, 55)
    image, mask = np.zeros((60, 70, 3), np.uint8), np.zeros((60, 70), np.uint8)
    paint(sample.image, image, placement, window)
    assert sample.mask is not None
    paint_mask(sample.mask, mask, placement, window)
    boxes = place_labels(sample, placement, window).boxes
    assert agree(image[..., 0] > BRIGHT, boxes)
    assert agree(mask == 1, boxes)


def test_mirror_twice_is_the_same_place() -> None:
    placement = Placement(2.0, 1.5, 7.0, -3.0)
    assert placement.mirrored(100).mirrored(100) == placement


def test_flip_is_the_mirror_image() -> None:
    picture = default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    sample = replace(painted(64, 48, (3, 5, 30, 40)), image=picture)
    made = augment(sample, (48, 64), replace(STILL, flip=1.0), default_rng(0), lambda _: sample, 1, "segment")
    assert made.mask is not None and sample.mask is not None
    np.testing.assert_array_equal(made.image, picture[:, ::-1])
    np.testing.assert_array_equal(made.mask, sample.mask[:, ::-1])
    assert made.boxes.tolist() == [[34, 5, 61, 40]]


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, 5])
def test_a_turned_picture_has_its_boxes_exactly_where_they_are(quarters: int) -> None:
    sample = painted(64, 48, (3, 5, 30, 40))
    made = turned(sample, quarters)
    ((x1, y1, x2, y2),) = made.boxes.astype(int)
    white = np.zeros(made.image.shape[:2], np.bool_)
    white[y1:y2, x1:x2] = True
    np.testing.assert_array_equal(made.image[..., 0] == 255, white)
    np.testing.assert_array_equal(made.mask == 1, white)
    np.testing.assert_array_equal(turned(made, -quarters).image, sample.image)


def test_nearly_hidden_objects_are_ignored_and_vanished_ones_dropped() -> None:
    sample = painted(100, 100, (0, 0, 50, 50))
    placed = place_labels(sample, Placement(1, 1, -40, 0), Window(0, 0, 100, 100))
    assert placed.boxes.tolist() == [[0, 0, 10, 50]] and placed.ignore.tolist() == [True]
    assert len(place_labels(sample, Placement(1, 1, -50, 0), Window(0, 0, 100, 100)).boxes) == 0


def test_picture_without_objects_stays_without() -> None:
    empty = Sample(np.zeros((20, 30, 3), np.uint8), "empty")
    changes = AugmentSettings(mosaic=1.0, mixup=1.0, cutout=1.0)
    made = augment(empty, (32, 32), changes, default_rng(0), lambda _: empty, 1, "detect")
    assert made.boxes.shape == (0, 4) and len(made.labels) == len(made.ignore) == len(made.weight) == 0


def test_mixup_shows_both_pictures_and_keeps_both_boxes() -> None:
    left, right = painted(64, 64, (0, 0, 20, 64)), painted(64, 64, (44, 0, 64, 64))
    made = augment(left, (64, 64), replace(STILL, mixup=1.0), default_rng(0), lambda _: right, 1, "detect")
    assert made.boxes.tolist() == [[0, 0, 20, 64], [44, 0, 64, 64]]
    assert 90 < made.image[30, 5, 0] < 165 and 90 < made.image[30, 60, 0] < 165 and made.image[30, 32, 0] == 0


def test_cutout_hides_pixels_and_labels() -> None:
    sample = painted(64, 64, (0, 0, 64, 64))
    made = augment(sample, (64, 64), replace(STILL, cutout=1.0), default_rng(3), lambda _: sample, 1, "segment")
    assert made.mask is not None
    hole = made.image[..., 0] == 114
    assert hole.any() and (made.mask[hole] == IGNORE_LABEL).all() and (made.mask[~hole] == 1).all()


def test_hidden_boxes_are_ignored_by_cutout() -> None:
    sample, changes = painted(64, 64, (28, 28, 36, 36)), replace(STILL, cutout=1.0)
    made = [augment(sample, (64, 64), changes, default_rng(seed), lambda _: sample, 1, "detect") for seed in range(60)]
    for one in made:
        # the box is white on black, so what is grey inside it is hidden
        hidden = float((one.image[28:36, 28:36, 0] == 114).mean())
        assert bool(one.ignore[0]) == (hidden > 0.6)
    assert {bool(one.ignore[0]) for one in made} == {True, False}


def test_same_chance_gives_the_same_picture() -> None:
    sample = painted(50, 70, (3, 9, 40, 60))
    changes = AugmentSettings(mosaic=0.5, mixup=0.5, cutout=0.5, blur=0.5, noise=0.5, jpeg=0.5)
    made = [augment(sample, (64, 64), changes, default_rng(5), lambda _: sample, 1, "detect") for _ in range(2)]
    assert (made[0].image == made[1].image).all() and (made[0].boxes == made[1].boxes).all()
    other = augment(sample, (64, 64), changes, default_rng(6), lambda _: sample, 1, "detect")
    assert (other.image != made[0].image).any()


@pytest.mark.parametrize("name", ["colour", "blur", "noise", "jpeg"])
def test_pixel_changes_move_nothing_and_leave_the_original_alone(name: str) -> None:
    picture = default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    sample = replace(painted(48, 48, (5, 5, 30, 30)), image=picture.copy())
    made = augment(sample, (48, 48), changed(name), default_rng(1), lambda _: sample, 1, "detect")
    assert (made.image != picture).any()
    assert (sample.image == picture).all() and (made.boxes == sample.boxes).all()


def grey(level: int, label: int) -> Sample:
    return Sample(np.full((32, 32, 3), level, np.uint8), f"{label}.png", label=label)


def mixed_with(changes: AugmentSettings, seed: int) -> Sample:
    """A white picture of class 3, mixed with a black one of class 5."""
    return augment(grey(255, 3), (32, 32), changes, default_rng(seed), lambda _: grey(0, 5), 1, "classify")


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_labels_of_mixed_pictures_count_by_what_is_seen_of_each(name: str) -> None:
    made = [mixed_with(changed(name), seed) for seed in range(40)]
    for one in made:
        assert (one.label, one.second_label) == (3, 5)
        assert float(one.image.mean()) / 255 == pytest.approx(one.label_share, abs=0.003)
    shares = [one.label_share for one in made]
    assert min(shares) < 0.2 and max(shares) > 0.8


def test_mixup_shines_through_and_cutmix_shows_one_picture_per_pixel() -> None:
    assert len(np.unique(mixed_with(replace(STILL, mixup=1.0), 0).image)) == 1
    assert set(np.unique(mixed_with(replace(STILL, cutmix=1.0), 0).image)) == {0, 255}


def test_a_picture_is_mixed_once_at_most() -> None:
    made = mixed_with(replace(STILL, mixup=1.0, cutmix=1.0), 2)
    assert len(np.unique(made.image)) == 1


def test_pictures_that_are_not_mixed_keep_their_label() -> None:
    made = augment(grey(255, 3), (32, 32), STILL, default_rng(0), lambda _: pytest.fail("mixed"), 1, "classify")
    assert (made.label, made.second_label, made.label_share) == (3, None, 1.0)
    assert (made.image == 255).all()


def test_the_last_epochs_mix_nothing() -> None:
    plain = AugmentSettings(mosaic=0.5, mixup=0.5, cutmix=0.5).without_mixing()
    assert (plain.mosaic, plain.mixup, plain.cutmix) == (0, 0, 0)


def test_letterbox_is_placed_in_the_middle() -> None:
    placement = letterboxed(200, 100, (64, 64))
    assert (placement.scale_x, placement.shift_x, placement.shift_y) == (0.32, 0, 16)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"flip": 1.5}, "flip is a probability"), ({"scale_min": 2.0}, "0 < scale_min <= scale_max")],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentSettings(**wrong)


# the corners of the rectangle, called by the sides of the picture that they are on
CORNERS = ("left_top", "right_top", "right_bottom", "left_bottom", "middle")


def with_instances(sample: Sample) -> Sample:
    """The white rectangle as an instance: its pixels, and its corners and middle as key points."""
    (x1, y1, x2, y2) = sample.boxes[0].tolist()
    assert sample.mask is not None
    owner = np.where(sample.mask == 1, 0, NO_OBJECT).astype(np.uint8)
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), ((x1 + x2) / 2, (y1 + y2) / 2)]
    points = np.array([[(*corner, 2) for corner in corners]], np.float32)
    return replace(sample, mask=None, owner=owner, points=points, mirror=mirror_of(CORNERS))


@settings(max_examples=examples(80), deadline=None)
@given(
    sample=samples(), other=samples(), seed=st.integers(0, 10_000), mosaic=st.booleans(), mixup=st.booleans(),
    cutout=st.booleans(),
)  # fmt: skip
@example(
    sample=painted(60, 85, (0, 64, 12, 76)), other=painted(60, 85, (0, 64, 12, 76)), seed=72, mosaic=True, mixup=False,
    cutout=False,
)  # fmt: skip
def test_owners_and_key_points_follow_the_pixels(
    sample: Sample, other: Sample, seed: int, mosaic: bool, mixup: bool, cutout: bool
) -> None:
    sample, other = with_instances(sample), with_instances(other)
    changes = replace(
        STILL, flip=0.5, crop=1.0, scale_min=0.5, scale_max=1.5, shift=0.2,
        mosaic=float(mosaic), mixup=float(mixup), cutout=float(cutout),
    )  # fmt: skip
    made = augment(sample, (64, 80), changes, default_rng(seed), lambda _: other, 1, "detect")
    assert made.owner is not None and made.points is not None and len(made.points) == len(made.boxes)
    assert set(np.unique(made.owner)) <= {*range(len(made.boxes)), NO_OBJECT}
    if not mixup:
        is_owned, is_painted = made.owner != NO_OBJECT, made.image[..., 0] == 255
        assert not (is_owned & (made.image[..., 0] == 0)).any()
        # of an object that less than a pixel is left of, nobody owns the pixels
        nobodys = (is_painted & ~is_owned).astype(np.uint8)
        assert not cv2.erode(nobodys, np.ones((2, 2), np.uint8), borderValue=0).any()
    for row, (box, points) in enumerate(zip(made.boxes, made.points, strict=True)):
        y, x = np.nonzero(made.owner == row)
        assert len(x) == 0 or (x.min() >= box[0] - 1 and x.max() <= box[2] and y.min() >= box[1] - 1)
        known = points[:, 2] > 0
        assert (points[~known] == 0).all()
        # corners are the box's own, under their right names also in mirror images
        expected = np.array([box[[0, 1]], box[[2, 1]], box[[2, 3]], box[[0, 3]], (box[:2] + box[2:]) / 2])
        # where all corners are inside the window, nothing is cut off
        if known.all():
            np.testing.assert_allclose(points[:, :2], expected, atol=0.01)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_key_points_turn_with_the_picture(quarters: int) -> None:
    sample = with_instances(painted(64, 48, (3, 5, 30, 40)))
    made = turned(sample, quarters)
    assert made.points is not None and made.owner is not None
    x1, y1, x2, y2 = made.boxes[0].tolist()
    # the upper left corner is the lower left one after a quarter counter-clockwise
    corners = [(x1, y1), (x1, y2), (x2, y2), (x2, y1)]
    assert tuple(made.points[0, 0, :2]) == corners[quarters]
    assert tuple(made.points[0, 4, :2]) == ((x1 + x2) / 2, (y1 + y2) / 2)
    np.testing.assert_array_equal(made.owner == 0, made.image[..., 0] == 255)


def test_what_cutout_hides_is_a_hidden_key_point_and_nobodys_pixel() -> None:
    sample = with_instances(painted(64, 48, (3, 5, 30, 40)))
    made = cut_out(sample, 1.0, default_rng(3))
    assert made.owner is not None and made.points is not None
    grey = made.image[..., 0] == PAD_LEVEL
    assert grey.any() and (made.owner[grey] == NO_OBJECT).all()
    for x, y, seen in made.points[0]:
        assert seen == (1 if grey[min(int(y), 47), min(int(x), 63)] else 2)


def test_left_and_right_change_places_in_a_mirror_and_the_rest_stays() -> None:
    assert mirror_of(CORNERS) == (1, 0, 3, 2, 4)
    assert mirror_of(("nose", "left_eye", "tail")) == (0, 1, 2)
    assert mirror_of(()) == ()


def test_objects_beyond_the_254th_have_no_pixels() -> None:
    owner = np.arange(256, dtype=np.uint8).reshape(16, 16)
    keep = np.ones(300, np.bool_)
    keep[1] = False
    renamed = numbered(owner, keep, first=2)
    assert renamed.ravel()[:4].tolist() == [2, NO_OBJECT, 3, 4]
    assert renamed.ravel()[-4:].tolist() == [253, 254, NO_OBJECT, NO_OBJECT]
