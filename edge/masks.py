"""Instance masks: kept as the model gives them, made into pixels where somebody needs them, written as in COCO.

Shape letters: N objects, H W frame pixels, h w cells of the prototypes, P prototypes, R runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

UInt8: TypeAlias = NDArray[np.uint8]
Bool: TypeAlias = NDArray[np.bool_]
Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
Float32: TypeAlias = NDArray[np.float32]

# x1 y1 x2 y2 in whole frame pixels, right and bottom exclusive
Place = tuple[int, int, int, int]
# what the corners of a map may be off by before it is resampled exactly, which takes ten times as long
MOST_OFF_PX = 0.05
# of an object's larger side: so far from its edge an outline may run
MOST_BEND_SHARE = 0.004


@dataclass(frozen=True, slots=True)
class Prototypes:
    """Maps of one picture from which the masks of its objects are mixed.

    Attributes:
        values: (P, h, w) float32.
        scale: cells per frame pixel, x and y.
        shift: where the frame's left and upper edge lie, in cells: ``cell = pixel * scale + shift``.
    """

    values: Float32
    scale: tuple[float, float]
    shift: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Masks:
    """The instance masks of N objects as the model gives them; pixels are made where they are needed.

    A pixel belongs to an object where the sum of the prototypes, weighted by the object's coefficients, is above zero,
    inside the object's box (YOLACT, Bolya et al. 2019, arXiv 1904.02689).

    Attributes:
        prototypes: of the pictures that the objects were found in: one, or one per tile.
        source: (N,) int32, whose prototypes are an object's.
        coefficients: (N, P) float32.
        xyxy: (N, 4) float32 frame pixels; no mask reaches beyond its box.
        size: width and height of the frame.
    """

    prototypes: tuple[Prototypes, ...]
    source: Int32
    coefficients: Float32
    xyxy: Float32
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Bool | Int64 | slice) -> Masks:
        return Masks(self.prototypes, self.source[index], self.coefficients[index], self.xyxy[index], self.size)

    def moved(self, x: int, y: int, size: tuple[int, int]) -> Masks:
        """The same masks in a picture of this size, of which theirs is the part from ``x``, ``y`` on."""
        placed = tuple(
            replace(maps, shift=(maps.shift[0] - x * maps.scale[0], maps.shift[1] - y * maps.scale[1]))
            for maps in self.prototypes
        )
        return replace(self, prototypes=placed, xyxy=self.xyxy + np.array([x, y, x, y], np.float32), size=size)

    def scaled(self, factor: float, size: tuple[int, int]) -> Masks:
        """The same masks in the picture made this much larger, to this width and height."""
        placed = tuple(
            replace(maps, scale=(maps.scale[0] / factor, maps.scale[1] / factor)) for maps in self.prototypes
        )
        return replace(self, prototypes=placed, xyxy=self.xyxy * np.float32(factor), size=size)

    @staticmethod
    def concatenate(parts: Sequence[Masks]) -> Masks:
        """All masks of at least one part, in order; all are of the same frame."""
        first = np.cumsum([0, *(len(part.prototypes) for part in parts)])
        most = max(part.coefficients.shape[1] for part in parts)
        wide = [np.pad(part.coefficients, ((0, 0), (0, most - part.coefficients.shape[1]))) for part in parts]
        return Masks(
            tuple(maps for part in parts for maps in part.prototypes),
            np.concatenate([part.source + np.int32(at) for part, at in zip(parts, first, strict=False)]),
            np.concatenate(wide),
            np.concatenate([part.xyxy for part in parts]),
            parts[0].size,
        )


def place_of(masks: Masks, row: int) -> Place:
    """The whole pixels of an object's box inside the frame; of no area where none is inside."""
    width, height = masks.size
    x1, y1, x2, y2 = np.nan_to_num(masks.xyxy[row]).tolist()
    left, top = min(max(ceil(x1), 0), width), min(max(ceil(y1), 0), height)
    return left, top, min(max(ceil(x2), left), width), min(max(ceil(y2), top), height)


def mask_of(masks: Masks, row: int) -> tuple[UInt8, Place]:
    """The mask of one object within its box: (h, w) uint8, 0 or 1, and where in the frame it lies."""
    place = place_of(masks, row)
    if place[0] == place[2] or place[1] == place[3]:
        return np.zeros((place[3] - place[1], place[2] - place[0]), np.uint8), place
    maps = masks.prototypes[int(masks.source[row])]
    cells, left, top = _mixed(maps, masks.coefficients[row], place)
    return _magnified(cells, (left, top), maps, place), place


def outlines_of(masks: Masks, row: int) -> list[list[int]]:
    """The outlines of one object's mask: each ``x, y, x, y…`` in frame pixels; what lies inside two is a hole."""
    # not above: whoever imports a type would wait for it
    import cv2

    mask, (left, top, _, _) = mask_of(masks, row)
    if not mask.size:
        return []
    found, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))
    within = max(MOST_BEND_SHARE * max(mask.shape), 0.5)
    simple = [cv2.approxPolyDP(outline, within, True).reshape(-1) for outline in found]
    return [[int(value) for value in outline] for outline in simple if len(outline) >= 6]


def whole_masks(masks: Masks) -> Bool:
    """(N, H, W) bool, for those who want all pixels of all objects."""
    whole = np.zeros((len(masks), masks.size[1], masks.size[0]), np.bool_)
    for row in range(len(masks)):
        mask, (x1, y1, x2, y2) = mask_of(masks, row)
        whole[row, y1:y2, x1:x2] = mask
    return whole


def masks_from_whole(whole: Bool, xyxy: Float32) -> Masks:
    """The opposite of ``whole_masks``, for labels: (N, H, W) masks of objects with these (N, 4) boxes."""
    maps = Prototypes(whole.astype(np.float32) - np.float32(0.5), (1.0, 1.0), (0.0, 0.0))
    one = np.eye(len(whole), dtype=np.float32)
    return Masks((maps,), np.zeros(len(whole), np.int32), one, xyxy, (whole.shape[2], whole.shape[1]))


def masks_of_maps(
    maps: Float32, scale: tuple[float, float], shift: tuple[float, float], size: tuple[int, int]
) -> Masks:
    """Masks of models that give each object a map of its own, above zero where the object is.

    Args:
        maps: (N, h, w) float32; kept, so the caller must not write to them.
        scale, shift: see ``Prototypes``.
        size: width and height of the frame.
    """
    cells_of = np.zeros((len(maps), 4), np.float32)
    for row, cells in enumerate(maps > 0):
        columns, rows = np.flatnonzero(cells.any(axis=0)), np.flatnonzero(cells.any(axis=1))
        if len(columns):
            # between two middles the sign may change anywhere
            cells_of[row] = columns[0] - 1, rows[0] - 1, columns[-1] + 2, rows[-1] + 2
    placed = (cells_of - np.array(shift * 2, np.float32)) / np.array(scale * 2, np.float32)
    boxes: Float32 = np.clip(placed, 0, np.array(size * 2, np.float32))
    own = Prototypes(maps, scale, shift)
    return Masks((own,), np.zeros(len(maps), np.int32), np.eye(len(maps), dtype=np.float32), boxes, size)


def feet_of(masks: Masks, rows: Int32 | Int64) -> Float32:
    """(N, 2) where these masks stand: the middle of their lowest pixels, or of the box's lower edge without any."""
    feet = np.stack([(masks.xyxy[rows, 0] + masks.xyxy[rows, 2]) / 2, masks.xyxy[rows, 3]], axis=1)
    for number, row in enumerate(rows.tolist()):
        mask, (left, top, _, _) = mask_of(masks, row)
        lines = np.flatnonzero(mask.any(axis=1))
        if len(lines):
            columns = np.flatnonzero(mask[lines[-1]])
            feet[number] = left + (columns[0] + columns[-1] + 1) / 2, top + lines[-1] + 1
    return feet.astype(np.float32, copy=False)


def mask_iou(first: Masks, one: int, second: Masks, other: int) -> float:
    """Overlap of two masks of the same frame, intersection over union; 1 where both are empty."""
    a, (ax1, ay1, ax2, ay2) = mask_of(first, one)
    b, (bx1, by1, bx2, by2) = mask_of(second, other)
    x1, y1, x2, y2 = max(ax1, bx1), max(ay1, by1), min(ax2, bx2), min(ay2, by2)
    shared = 0
    if x1 < x2 and y1 < y2:
        shared = int((a[y1 - ay1 : y2 - ay1, x1 - ax1 : x2 - ax1] & b[y1 - by1 : y2 - by1, x1 - bx1 : x2 - bx1]).sum())
    union = int(a.sum()) + int(b.sum()) - shared
    return shared / union if union else 1.0


def encode_rle(mask: UInt8, place: Place, size: tuple[int, int]) -> str:
    """A mask in COCO's compressed run-length form, as ``counts`` of ``pycocotools.mask``.

    Args:
        mask: (h, w) 0 or 1, of a part of the frame.
        place: where in the frame it lies.
        size: width and height of the frame.
    """
    runs = _runs(mask, place, size)
    # from the third run of each colour on, the difference to the one before it is written
    rest = runs.copy()
    rest[3:] -= runs[1:-2]
    written = np.zeros((len(rest), 8), np.uint8)
    is_there = np.zeros(written.shape, np.bool_)
    open_ = np.ones(len(rest), np.bool_)
    for digit in range(written.shape[1]):
        # five bits a character, the lowest first; the sixth says that more follow
        bits = rest & 31
        rest >>= 5
        goes_on = np.where(bits & 16, rest != -1, rest != 0)
        written[:, digit] = bits + 32 * goes_on + 48
        is_there[:, digit] = open_
        open_ &= goes_on
        if not open_.any():
            break
    return written[is_there].tobytes().decode("ascii")


def _runs(mask: UInt8, place: Place, size: tuple[int, int]) -> Int64:
    """(R,) lengths of the runs down the columns of the frame, one column after the other, of 0 first."""
    import cv2

    width, height = size
    rows, columns = mask.shape
    # a zero below each column and one before the first, so that all of them are one line
    line = np.zeros(1 + columns * (rows + 1), np.uint8)
    line[1:].reshape(columns, rows + 1)[:, :rows] = cv2.transpose(mask) if mask.size else 0
    changes = np.flatnonzero(line[1:] != line[:-1])
    column, row = np.divmod(changes, rows + 1)
    at = (column + place[0]) * height + row + place[1]
    if rows == height:
        # a run that reaches the lower edge goes on at the top of the next column
        meets = np.flatnonzero(at[1:] == at[:-1])
        at = np.delete(at, np.concatenate((meets, meets + 1)))
    runs = np.diff(at, prepend=0, append=width * height)
    return runs if runs[-1] else runs[:-1]


def _mixed(maps: Prototypes, coefficients: Float32, place: Place) -> tuple[Float32, int, int]:
    """(h, w) sums of the prototypes in the cells that a place needs, and the first column and row of them."""
    _, rows, columns = maps.values.shape
    x1, y1, x2, y2 = place
    left = min(max(floor(x1 * maps.scale[0] + maps.shift[0]) - 1, 0), columns - 1)
    top = min(max(floor(y1 * maps.scale[1] + maps.shift[1]) - 1, 0), rows - 1)
    right = min(max(ceil(x2 * maps.scale[0] + maps.shift[0]) + 1, left + 1), columns)
    bottom = min(max(ceil(y2 * maps.scale[1] + maps.shift[1]) + 1, top + 1), rows)
    used = coefficients[: len(maps.values)]
    values = maps.values
    if np.count_nonzero(used) == 1:
        # a map of its own, among those of all others
        row = int(np.flatnonzero(used)[0])
        values, used = values[row : row + 1], used[row : row + 1]
    part = values[:, top:bottom, left:right]
    mixed = used @ part.reshape(len(part), -1)
    return mixed.reshape(part.shape[1:]).astype(np.float32, copy=False), left, top


def _magnified(cells: Float32, first: tuple[int, int], maps: Prototypes, place: Place) -> UInt8:
    """(h, w) 0 or 1: the sums brought to frame pixels, bilinear between the middles of the cells, and cut at zero."""
    # not above: whoever imports a type would wait for it
    import cv2

    x1, y1, x2, y2 = place
    rows, columns = cells.shape
    left, top = ((at - shift) / scale for at, shift, scale in zip(first, maps.shift, maps.scale, strict=True))
    width, height = columns / maps.scale[0], rows / maps.scale[1]
    off = max(abs(value - round(value)) for value in (left, top, width, height))
    inside = round(left) <= x1 and round(top) <= y1 and round(left + width) >= x2 and round(top + height) >= y2
    if off <= MOST_OFF_PX and inside:
        whole = cv2.resize(cells, (round(width), round(height)), interpolation=cv2.INTER_LINEAR)
        sums = whole[y1 - round(top) : y2 - round(top), x1 - round(left) : x2 - round(left)]
    else:
        (across, down), half = maps.scale, 0.5
        at_x = (x1 + half) * across + maps.shift[0] - half - first[0]
        at_y = (y1 + half) * down + maps.shift[1] - half - first[1]
        matrix = np.array([[across, 0, at_x], [0, down, at_y]], np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        sums = cv2.warpAffine(cells, matrix, (x2 - x1, y2 - y1), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    mask: UInt8 = (sums > 0).view(np.uint8)
    return mask
