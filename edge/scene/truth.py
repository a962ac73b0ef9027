"""What is truly in a rendered picture. N objects, H W pixels.

The truth is made of the very alpha masks that were painted: a pixel belongs to an object where its alpha is above zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edge.types import Bool, Float32, Float64, Int32, Int64, UInt8

CLASSES = ("person", "bicycle", "car")
SEGMENT_CLASSES = ("background", "road", "pavement", "building", "vegetation", "sky", *CLASSES)
FIRST_OBJECT_CLASS = SEGMENT_CLASSES.index("person")
# of people, in the order of their key points
JOINTS = (
    "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle",
)  # fmt: skip
LIMBS = (
    (0, 1),
    (0, 4),
    (1, 2),
    (2, 3),
    (4, 5),
    (5, 6),
    (1, 4),
    (1, 7),
    (4, 10),
    (7, 10),
    (7, 8),
    (8, 9),
    (10, 11),
    (11, 12),
)
# objects of which less is seen are neither learned nor counted
MIN_VISIBILITY = 0.35


@dataclass(frozen=True, slots=True)
class Silhouette:
    """One object as painted.

    Attributes:
        class_id: index into ``CLASSES``.
        track_id: of the object, never used again.
        left, top: picture pixel of the mask's corner; may lie outside the picture.
        mask: (h, w) uint8, above zero where the object is, hidden or not, inside the picture or not.
        shown: (h', w') uint8, above zero where nothing fixed stands in front; the part inside the picture only.
        joints: (K, 2) float32 picture pixels, none of what has none.
    """

    class_id: int
    track_id: int
    left: int
    top: int
    mask: UInt8
    shown: UInt8
    joints: Float32 = field(default_factory=lambda: np.empty((0, 2), np.float32))


class SceneTruth:
    """The objects of one picture, farthest first. Everything is worked out when it is first asked for.

    Attributes:
        xyxy: (N, 4) float32, tight box of the whole silhouette, hidden parts too, cut at the picture's edge.
        class_id: (N,) int32 index into ``CLASSES``.
        track_id: (N,) int64, never used again.
        visibility: (N,) float32, visible pixels / silhouette pixels; what is outside the picture counts as hidden.
        class_map: (H, W) uint8 index into ``SEGMENT_CLASSES``.
        keypoints: (N, K, 3) float32, ``JOINTS`` of people in pixels with COCO's 0 outside the picture (and of what has
            none), 1 where another object or something fixed is in front, 2 where it is seen.
    """

    def __init__(self, silhouettes: Sequence[Silhouette], background: UInt8) -> None:
        """Keep what was painted, farthest first, over a background (H, W) of segment classes."""
        self._background = background
        self._silhouettes = silhouettes

    @cached_property
    def _seen(self) -> list[tuple[Silhouette, tuple[int, int, int, int]]]:
        return [entry for entry in map(self._boxed, self._silhouettes) if entry is not None]

    def _boxed(self, one: Silhouette) -> tuple[Silhouette, tuple[int, int, int, int]] | None:
        """The silhouette with its box inside the picture, or None where it lies outside altogether."""
        height, width = self._background.shape
        top, left = max(0, one.top), max(0, one.left)
        inside = one.mask[top - one.top : max(0, height - one.top), left - one.left : max(0, width - one.left)]
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if len(rows) == 0:
            return None
        x, y = left + int(columns[0]), top + int(rows[0])
        return one, (x, y, left + int(columns[-1]) + 1, top + int(rows[-1]) + 1)

    def __len__(self) -> int:
        return len(self._seen)

    @cached_property
    def xyxy(self) -> Float32:
        return np.array([box for _, box in self._seen], np.float32).reshape(-1, 4)

    @cached_property
    def class_id(self) -> Int32:
        return np.array([one.class_id for one, _ in self._seen], np.int32)

    @cached_property
    def track_id(self) -> Int64:
        return np.array([one.track_id for one, _ in self._seen], np.int64)

    @cached_property
    def owner(self) -> Int32:
        """(H, W) int32: which object is on top at each pixel, -1 where none is."""
        owner = np.full(self._background.shape, -1, np.int32)
        for row, (one, _) in enumerate(self._seen):
            top, left = max(0, one.top), max(0, one.left)
            height, width = one.shown.shape
            owner[top : top + height, left : left + width][one.shown > 0] = row
        return owner

    @cached_property
    def visibility(self) -> Float32:
        seen = np.bincount(self.owner[self.owner >= 0], minlength=len(self._seen)).astype(np.float64)
        whole: Float64 = np.array([np.count_nonzero(one.mask) for one, _ in self._seen], np.float64)
        return (seen[: len(whole)] / np.maximum(whole, 1)).astype(np.float32)

    @cached_property
    def class_map(self) -> UInt8:
        classes: UInt8 = self._background.copy()
        lookup = (self.class_id + FIRST_OBJECT_CLASS).astype(np.uint8)
        painted = self.owner >= 0
        classes[painted] = lookup[self.owner[painted]]
        return classes

    @cached_property
    def keypoints(self) -> Float32:
        height, width = self._background.shape
        points = np.zeros((len(self._seen), len(JOINTS), 3), np.float32)
        for row, (one, _) in enumerate(self._seen):
            if not len(one.joints):
                continue
            x, y = np.floor(one.joints).astype(int).T
            inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
            is_seen = self.owner[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] == row
            points[row, :, :2] = np.where(inside[:, None], one.joints, 0)
            points[row, :, 2] = np.where(inside, 1 + is_seen, 0)
        return points

    @property
    def ignore(self) -> Bool:
        """(N,) bool: too little of it is seen to learn or count it."""
        hidden: Bool = self.visibility < MIN_VISIBILITY
        return hidden
