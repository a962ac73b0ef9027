"""One labelled picture, and what a data set is. N objects, H W pixels, C classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from edge.types import Bool, Float32, Int32, UInt8

DataTask = Literal["detect", "segment", "classify"]
IGNORE_LABEL = 255
# of ``Sample.owner``
NO_OBJECT = 255


@dataclass(frozen=True, slots=True)
class Outlines:
    """What is known of N objects next to their boxes. Index with a boolean mask.

    Attributes:
        segmentations: N of COCO's form: polygons ``[[x1, y1, x2, y2, …], …]`` in pixels or run lengths (a table with
            ``counts`` and ``size``); None where an object has none.
        keypoints: (N, K, 3) float32: x, y in pixels, and 0 where a point is not labelled, 1 hidden, 2 visible; None
            where the data set has none.
        names: K of the key points; empty where the data set does not tell.
    """

    segmentations: tuple[Any, ...]
    keypoints: Float32 | None = None
    names: tuple[str, ...] = ()

    def __getitem__(self, index: Bool) -> Outlines:
        kept = tuple(self.segmentations[row] for row in np.flatnonzero(index))
        return Outlines(kept, None if self.keypoints is None else self.keypoints[index], self.names)


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and its labels; which of them are used depends on the task.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        image_id: file name, or seed of a rendered picture; unique within the data set.
        boxes: (N, 4) float32 pixels, x1 y1 x2 y2.
        labels: (N,) int32 class ids.
        ignore: (N,) bool; neither learned nor counted (difficult, crowd, hidden).
        weight: (N,) float32 in [0, 1]; 1 for labels made by people, the teacher's confidence otherwise.
        outlines: masks and key points of the objects, to judge models by; None where the data set has none, and after
            any change of the picture.
        mask: (H, W) uint8 class ids, 255 = unlabelled; segmentation only.
        owner: (H, W) uint8, which object (row of ``boxes``) each pixel shows, 255 for none; where masks are learned.
        points: (N, K, 3) key points as in ``Outlines``, moved with the picture; where key points are learned.
        mirror: of the K points, which one each is called in a mirror image: a left elbow is a right one there.
        label: class id; classification only.
        second_label: class id of what was mixed in, None if nothing was.
        label_share: of ``label``, in [0, 1]; the rest is the second label's.
    """

    image: UInt8
    image_id: str
    boxes: Float32 = field(default_factory=lambda: np.empty((0, 4), np.float32))
    labels: Int32 = field(default_factory=lambda: np.empty(0, np.int32))
    ignore: Bool = field(default_factory=lambda: np.empty(0, np.bool_))
    weight: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    mask: UInt8 | None = None
    label: int | None = None
    second_label: int | None = None
    label_share: float = 1.0
    outlines: Outlines | None = None
    owner: UInt8 | None = None
    points: Float32 | None = None
    mirror: tuple[int, ...] = ()


class Dataset(Protocol):
    """Labelled pictures by index."""

    @property
    def name(self) -> str: ...

    @property
    def task(self) -> DataTask: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names and labels: the same data set gives the same."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
