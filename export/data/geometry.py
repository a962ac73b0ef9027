"""Moving a picture, its boxes, masks and key points together. N objects, H W picture pixels, h w target pixels.

Coordinates are continuous: pixel 0 reaches from 0 to 1, so a box and the pixels it covers obey the same formula
``target = picture * scale + shift`` per axis, a negative scale being a mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge.boxes import area
from edge.types import Bool, Float32, Letterbox, UInt8
from export.data.sample import IGNORE_LABEL, NO_OBJECT, Sample

PAD_LEVEL = 114
# less of an object than this says little about it: neither learned nor counted
MIN_VISIBLE = 0.25
MIN_SIDE_PX = 1.0


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of the target in whole pixels; right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture lands: ``target = picture * scale + shift``, per axis."""

    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float

    @classmethod
    def of_letterbox(cls, box: Letterbox) -> Placement:
        """The placement that ``edge.models.preprocess`` uses, its rounding to whole pixels included."""
        width = max(1, round(box.frame_width * box.scale_x))
        height = max(1, round(box.frame_height * box.scale_y))
        return cls(width / box.frame_width, height / box.frame_height, int(box.pad_x), int(box.pad_y))

    def mirrored(self, width: int) -> Placement:
        """The same, seen in a mirror, in a target that is ``width`` pixels wide."""
        return replace(self, scale_x=-self.scale_x, shift_x=width - self.shift_x)

    def boxes(self, xyxy: Float32) -> Float32:
        """Map (N, 4) boxes; the corners stay in order under a mirror."""
        x = xyxy[:, 0::2] * self.scale_x + self.shift_x
        y = xyxy[:, 1::2] * self.scale_y + self.shift_y
        corners = [x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)]
        moved: Float32 = np.stack(corners, axis=1).astype(np.float32)
        return moved

    def points(self, values: Float32, mirror: tuple[int, ...]) -> Float32:
        """Map (N, K, 3) key points; in a mirror image each gets the place of its ``mirror`` partner."""
        moved = values.copy()
        moved[..., 0] = values[..., 0] * self.scale_x + self.shift_x
        moved[..., 1] = values[..., 1] * self.scale_y + self.shift_y
        placed: Float32 = moved[:, list(mirror)] if self.scale_x < 0 else moved
        return placed

    def matrix(self, window: Window) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """(2, 3) affine for ``cv2.warpAffine`` into the window; it counts from pixel centres, hence the halves."""
        x = self.shift_x - window.left + 0.5 * self.scale_x - 0.5
        y = self.shift_y - window.top + 0.5 * self.scale_y - 0.5
        return np.array([[self.scale_x, 0, x], [0, self.scale_y, y]], np.float64)


def turned(sample: Sample, quarters: int) -> Sample:
    """The sample turned counter-clockwise by ``quarters`` right angles; boxes, masks and points stay exact."""
    boxes, points = sample.boxes, sample.points
    width, height = sample.image.shape[1], sample.image.shape[0]
    for _ in range(quarters % 4):
        boxes = np.stack((boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]), axis=1)
        if points is not None:
            points = np.stack((points[..., 1], width - points[..., 0], points[..., 2]), axis=2).astype(np.float32)
        width, height = height, width
    image: UInt8 = np.ascontiguousarray(np.rot90(sample.image, quarters))
    mask, owner = (
        None if map_ is None else np.ascontiguousarray(np.rot90(map_, quarters)) for map_ in (sample.mask, sample.owner)
    )
    moved = replace(sample, image=image, boxes=boxes.astype(np.float32), mask=mask, owner=owner, points=points)
    return replace(moved, outlines=None)


def paint(image: UInt8, target: UInt8, placement: Placement, window: Window) -> None:
    """Write the placed picture into a window of ``target`` (h, w, 3); what it does not cover becomes grey."""
    size = (window.width, window.height)
    place = target[window.top : window.bottom, window.left : window.right]
    place[...] = cv2.warpAffine(
        image,
        placement.matrix(window),
        size,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(PAD_LEVEL,) * 3,
    )


def paint_mask(mask: UInt8, target: UInt8, placement: Placement, window: Window) -> None:
    """As ``paint`` for (H, W) class ids: nearest pixel, unlabelled where the picture does not reach."""
    rows, row_inside = _nearest(window.top, window.bottom, placement.scale_y, placement.shift_y, mask.shape[0])
    columns, inside = _nearest(window.left, window.right, placement.scale_x, placement.shift_x, mask.shape[1])
    place = target[window.top : window.bottom, window.left : window.right]
    place[...] = mask[rows[:, None], columns[None, :]]
    place[~row_inside] = IGNORE_LABEL
    place[:, ~inside] = IGNORE_LABEL


def _nearest(
    start: int, stop: int, scale: float, shift: float, length: int
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.intp]], Bool]:
    """Which picture pixel holds the centre of each target pixel, and whether there is one."""
    position = np.floor((np.arange(start, stop) + 0.5 - shift) / scale)
    inside: Bool = (position >= 0) & (position < length)
    return np.clip(position, 0, length - 1).astype(np.intp), inside


def place_labels(sample: Sample, placement: Placement, window: Window) -> Sample:
    """The sample's boxes and key points where its picture lands in the window, boxes cut at its edges.

    Boxes of which less than a quarter is left are kept as ``ignore``; those of which nothing is left are dropped, and
    the rest is numbered anew in ``owner``, which itself stays where it is. Points outside of the window are unlabelled.
    """
    moved = placement.boxes(sample.boxes)
    low = np.array([window.left, window.top] * 2, np.float32)
    high = np.array([window.right, window.bottom] * 2, np.float32)
    cut = np.clip(moved, low, high)
    visible = area(cut) / np.maximum(area(moved), 1e-6)
    keep: Bool = np.all((cut[:, 2:] - cut[:, :2]) >= MIN_SIDE_PX, axis=1)
    return replace(
        sample,
        boxes=cut[keep],
        labels=sample.labels[keep],
        ignore=(sample.ignore | (visible < MIN_VISIBLE))[keep],
        weight=sample.weight[keep],
        owner=None if sample.owner is None else numbered(sample.owner, keep),
        points=None if sample.points is None else _points_inside(sample, placement, window)[keep],
        outlines=None,
    )


def numbered(owner: UInt8, keep: Bool, first: int = 0) -> UInt8:
    """The map with its kept objects numbered from ``first`` on; what has no number left below 255 is nobody's."""
    table = np.full(256, NO_OBJECT, np.int64)
    kept = np.flatnonzero(keep)
    numbers = np.minimum(first + np.arange(len(kept)), NO_OBJECT)
    table[kept[kept < NO_OBJECT]] = numbers[kept < NO_OBJECT]
    renamed: UInt8 = table.astype(np.uint8)[owner]
    return renamed


def _points_inside(sample: Sample, placement: Placement, window: Window) -> Float32:
    assert sample.points is not None
    points = placement.points(sample.points, sample.mirror)
    x, y = points[..., 0], points[..., 1]
    is_inside = (x >= window.left) & (x < window.right) & (y >= window.top) & (y < window.bottom)
    points[~(is_inside & (points[..., 2] > 0))] = 0
    return points
