"""Large pictures looked at in tiles, so that small objects stay visible: cut into overlapping parts, results merged.

The whole picture is looked at too, for objects that no tile holds whole (as in SAHI, Akyon et al. 2022,
https://arxiv.org/abs/2202.06934). N objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.boxes import area, distinct
from edge.pictures.planes import Planes
from edge.types import Bool, Detections, Float32, UInt8

# a box that ends so near an inner edge of its tile is a part of something
EDGE_PX = 2.0
# a part of which so much lies in a box that was seen whole shows the same object
MOST_COVERED = 0.5


@dataclass(frozen=True, slots=True)
class TileGrid:
    """How a picture is cut.

    Attributes:
        columns, rows: number of tiles.
        overlap: share of a tile that its neighbour shows too; objects up to this size are whole in one of them.
    """

    columns: int
    rows: int
    overlap: float = 0.2

    @property
    def num_pictures(self) -> int:
        """How many pictures the model sees of one: the tiles and the whole."""
        return self.columns * self.rows + 1

    def places(self, width: int, height: int) -> list[tuple[int, int, int, int]]:
        """Left, top, right, bottom of each tile in pixels, the whole picture last."""
        across, down = _spans(width, self.columns, self.overlap), _spans(height, self.rows, self.overlap)
        tiles = [(left, top, right, bottom) for top, bottom in down for left, right in across]
        return [*tiles, (0, 0, width, height)]

    def cut(self, image: UInt8 | Planes) -> list[UInt8 | Planes]:
        """The tiles of an (H, W, 3) BGR picture or of planes, the picture itself last."""
        if isinstance(image, Planes):
            return [*(image.cut(*place) for place in self.places(*image.size)[:-1]), image]
        height, width = image.shape[:2]
        places = self.places(width, height)[:-1]
        return [*(np.ascontiguousarray(image[top:bottom, left:right]) for left, top, right, bottom in places), image]

    def merge(self, parts: Sequence[Detections], width: int, height: int, iou_threshold: float) -> Detections:
        """What the tiles and the whole picture showed, as one, each object once.

        Args:
            parts: as ``cut`` gives the pictures; boxes in pixels of each.
            width, height: of the picture.
            iou_threshold: overlap from which two boxes of a class are the same object.
        """
        places = self.places(width, height)
        size = (width, height)
        placed = [part.moved(*place[:2], size) for part, place in zip(parts, places, strict=True)]
        is_part = np.concatenate(
            [_is_cut(found.xyxy, place, width, height) for found, place in zip(parts, places, strict=True)]
        )
        found = Detections.concatenate(placed)
        whole = np.flatnonzero(~is_part)
        whole = whole[distinct(found[whole], iou_threshold, per_class=True)]
        rest = np.flatnonzero(is_part)
        same = found.class_id[rest][:, None] == found.class_id[whole][None, :]
        covered = (_covered(found.xyxy[rest], found.xyxy[whole]) * same).max(axis=1, initial=0.0)
        rest = rest[covered < MOST_COVERED]
        rest = rest[distinct(found[rest], iou_threshold, per_class=True)]
        kept = np.concatenate((whole, rest))
        return found[kept[np.argsort(-found.score[kept], kind="stable")]]


def _spans(length: int, count: int, overlap: float) -> list[tuple[int, int]]:
    """Begin and end of ``count`` equal parts that overlap and together cover the length."""
    size = min(length, int(np.ceil(length / (count - (count - 1) * overlap))))
    begins = np.rint(np.linspace(0, length - size, count)).astype(int)
    return [(int(begin), int(begin) + size) for begin in begins]


def _is_cut(xyxy: Float32, place: tuple[int, int, int, int], width: int, height: int) -> Bool:
    """(N,) which boxes of a tile end at an edge of it that is none of the picture."""
    left, top, right, bottom = place
    cut: Bool = np.zeros(len(xyxy), np.bool_)
    if left > 0:
        cut |= xyxy[:, 0] < EDGE_PX
    if top > 0:
        cut |= xyxy[:, 1] < EDGE_PX
    if right < width:
        cut |= xyxy[:, 2] > right - left - EDGE_PX
    if bottom < height:
        cut |= xyxy[:, 3] > bottom - top - EDGE_PX
    return cut


def _covered(parts: Float32, boxes: Float32) -> Float32:
    """(P, N) how much of each part lies in each box."""
    low = np.maximum(parts[:, None, :2], boxes[None, :, :2])
    high = np.minimum(parts[:, None, 2:], boxes[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    share: Float32 = shared / np.maximum(area(parts), 1e-6)[:, None]
    return share
