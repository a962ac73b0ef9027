"""Instance masks: pixels when asked, in COCO's own words, the same whole, in parts, moved and put together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge.masks import (
    Masks,
    Prototypes,
    encode_rle,
    feet_of,
    mask_iou,
    mask_of,
    masks_from_whole,
    place_of,
    whole_masks,
)
from edge.types import Detections, Float32

WIDTH, HEIGHT = 128, 72


def some_masks(seed: int, num: int = 5, scale: float = 0.25, pad: float = 7.0) -> Masks:
    """Smooth maps on a 32x32 grid in whose middle a frame of 128x72 lies, letterboxed."""
    rng = np.random.default_rng(seed)
    values = np.stack([cv2.GaussianBlur(rng.normal(size=(32, 32)).astype(np.float32), (0, 0), 2) for _ in range(6)])
    low = rng.uniform(-5, (100, 50), (num, 2))
    boxes = np.concatenate([low, low + rng.uniform(3, 60, (num, 2))], axis=1).astype(np.float32)
    maps = Prototypes(values, (scale, scale), (0.0, pad))
    weights = rng.normal(size=(num, 6)).astype(np.float32)
    return Masks((maps,), np.zeros(num, np.int32), weights, boxes, (WIDTH, HEIGHT))


def by_the_rule(masks: Masks, row: int) -> Float32:
    """(H, W) bool, pixel by pixel: bilinear between the middles of the cells, above zero, inside the box."""
    maps = masks.prototypes[masks.source[row]]
    cells = np.tensordot(masks.coefficients[row], maps.values, 1).astype(np.float64)
    x = np.clip((np.arange(WIDTH) + 0.5) * maps.scale[0] + maps.shift[0] - 0.5, 0, cells.shape[1] - 1)
    y = np.clip((np.arange(HEIGHT) + 0.5) * maps.scale[1] + maps.shift[1] - 0.5, 0, cells.shape[0] - 1)
    left, top = np.minimum(x.astype(int), cells.shape[1] - 2), np.minimum(y.astype(int), cells.shape[0] - 2)
    dx, dy = (x - left)[None, :], (y - top)[:, None]
    upper = cells[top][:, left] * (1 - dx) + cells[top][:, left + 1] * dx
    lower = cells[top + 1][:, left] * (1 - dx) + cells[top + 1][:, left + 1] * dx
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    x1, y1, x2, y2 = masks.xyxy[row]
    inside = (columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2)
    return (upper * (1 - dy) + lower * dy > 0) & inside


@pytest.mark.parametrize("scale", [0.25, 0.2371])
@pytest.mark.parametrize("seed", range(6))
def test_pixels_follow_the_published_rule(seed: int, scale: float) -> None:
    masks = some_masks(seed, scale=scale)
    whole = whole_masks(masks)
    for row in range(len(masks)):
        expected = by_the_rule(masks, row)
        # a pixel on the edge itself may fall either way
        assert (whole[row] != expected).sum() <= 0.02 * max(expected.sum(), 50)


@settings(deadline=None, max_examples=examples(60))
@given(
    mask=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)),
    right=st.integers(0, 3),
    below=st.integers(0, 3),
    left=st.integers(0, 3),
    above=st.integers(0, 3),
)
def test_run_lengths_are_those_of_coco(mask: np.ndarray, right: int, below: int, left: int, above: int) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    whole = np.pad(mask, ((above, below), (left, right)))
    place = (left, above, left + mask.shape[1], above + mask.shape[0])
    size = (whole.shape[1], whole.shape[0])
    assert encode_rle(mask, place, size) == coco.encode(np.asfortranarray(whole))["counts"].decode()


def test_run_lengths_of_large_frames() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    whole = np.zeros((2160, 3840), np.uint8)
    whole[100:2000, 3000:3800] = 1
    counts = encode_rle(whole[90:2010, 2990:3810].copy(), (2990, 90, 3810, 2010), (3840, 2160))
    assert counts == coco.encode(np.asfortranarray(whole))["counts"].decode()


@pytest.mark.parametrize("value", [0, 1])
def test_run_lengths_of_a_frame_of_one_kind(value: int) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    whole = np.full((5, 7), value, np.uint8)
    assert encode_rle(whole, (0, 0, 7, 5), (7, 5)) == coco.encode(np.asfortranarray(whole))["counts"].decode()


def test_moved_masks_are_the_same_pixels_elsewhere() -> None:
    masks = some_masks(3)
    moved = masks.moved(40, 30, (WIDTH + 40, HEIGHT + 30))
    assert (whole_masks(moved)[:, 30:, 40:] == whole_masks(masks)).all()


def test_scaled_masks_cover_the_same_parts() -> None:
    masks = some_masks(4)
    large = whole_masks(masks.scaled(2, (2 * WIDTH, 2 * HEIGHT)))
    small = whole_masks(masks)
    assert np.abs(large.mean((1, 2)) - small.mean((1, 2))).max() < 0.01
    assert (large[:, ::2, ::2] == small).mean() > 0.98


def test_masks_of_two_tiles_stand_side_by_side() -> None:
    first, second = some_masks(1, 2), some_masks(2, 3)
    both = Masks.concatenate([first, second])
    assert (whole_masks(both) == np.concatenate([whole_masks(first), whole_masks(second)])).all()
    assert (whole_masks(both[np.array([4, 0])]) == whole_masks(both)[[4, 0]]).all()


def test_a_box_outside_the_frame_has_no_pixels() -> None:
    masks = some_masks(0, 1)
    gone = Masks(masks.prototypes, masks.source, masks.coefficients, masks.xyxy + np.float32(500), masks.size)
    mask, place = mask_of(gone, 0)
    assert mask.size == 0
    assert encode_rle(mask, place, gone.size) == encode_rle(np.zeros((1, 1), np.uint8), (0, 0, 1, 1), gone.size)


def test_a_box_that_is_no_number_has_no_pixels() -> None:
    masks = some_masks(0, 1)
    masks.xyxy[0] = np.nan
    assert place_of(masks, 0) == (0, 0, 0, 0)


def test_whole_masks_there_and_back() -> None:
    whole = np.zeros((2, 40, 50), np.bool_)
    whole[0, 3:20, 5:9] = True
    whole[1, 10:39, 20:45] = True
    boxes = np.array([[5, 3, 9, 20], [20, 10, 45, 39]], np.float32)
    assert (whole_masks(masks_from_whole(whole, boxes)) == whole).all()


def test_a_mask_stands_on_its_lowest_pixels() -> None:
    whole = np.zeros((2, 40, 50), np.bool_)
    whole[0, 3:20, 5:30] = True
    whole[0, 20:25, 26:30] = True
    boxes = np.array([[0, 0, 50, 40], [10, 10, 20, 30]], np.float32)
    feet = feet_of(masks_from_whole(whole, boxes), np.array([0, 1]))
    assert feet.tolist() == [[28.0, 25.0], [15.0, 30.0]]


def test_overlap_of_masks() -> None:
    whole = np.zeros((3, 40, 50), np.bool_)
    whole[0, 0:10, 0:10] = True
    whole[1, 0:10, 5:15] = True
    masks = masks_from_whole(whole, np.tile(np.array([0, 0, 50, 40], np.float32), (3, 1)))
    assert mask_iou(masks, 0, masks, 1) == pytest.approx(1 / 3)
    assert mask_iou(masks, 2, masks, 2) == 1.0
    assert mask_iou(masks, 0, masks, 2) == 0.0


def test_parts_of_detections_stay_together() -> None:
    masks = some_masks(1, 3)
    points = np.arange(3 * 4 * 3, dtype=np.float32).reshape(3, 4, 3)
    corners = np.arange(3 * 8, dtype=np.float32).reshape(3, 4, 2)
    score, kind = np.array([0.9, 0.5, 0.7], np.float32), np.array([0, 1, 0], np.int32)
    found = Detections(masks.xyxy, score, kind, masks, points, corners, ("cat", "dog"))
    chosen = found[np.array([2, 0])]
    assert chosen.class_names == ["cat", "cat"] and found[1:2].class_names == ["dog"]
    assert chosen.keypoints is not None and chosen.corners is not None
    assert (chosen.keypoints == points[[2, 0]]).all() and (chosen.corners == corners[[2, 0]]).all()
    both = Detections.concatenate([Detections.empty(), found, chosen])
    assert len(both) == 5 and both.masks is not None and len(both.masks) == 5
    moved = found.moved(10, 20, (500, 500))
    assert moved.keypoints is not None and (moved.keypoints[..., 2] == points[..., 2]).all()
    assert moved.corners is not None and (moved.corners - corners == (10, 20)).all()
    assert len(Detections.concatenate([])) == 0
