"""Points, lines and polygons in the picture (y downwards). N objects, K drawn parts, E polygon edges; pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edge.types import Bool, Float32, Float64

# share of the box's width and height at which each anchor lies
ANCHOR_SHARES = {
    "bottom-centre": (0.5, 1.0),
    "centre": (0.5, 0.5),
    "top-centre": (0.5, 0.0),
    "left-centre": (0.0, 0.5),
    "right-centre": (1.0, 0.5),
    "bottom-left": (0.0, 1.0),
    "bottom-right": (1.0, 1.0),
    "top-left": (0.0, 0.0),
    "top-right": (1.0, 0.0),
}
# a polygon edge this close to the frame's border is the border: boxes are cut there, nothing passes it
BORDER_SHARE = 0.005
GRID = 48


def anchors(xyxy: Float32, shares: Float64) -> Float64:
    """(N, K, 2) anchor points of (N, 4) boxes, for (K, 2) shares of the box's size."""
    low = xyxy[:, None, :2]
    points: Float64 = low + shares * (xyxy[:, None, 2:] - low).astype(np.float64)
    return points


def box_size(xyxy: Float32) -> Float32:
    """(N, 1) mean of width and height."""
    size: Float32 = (xyxy[:, 2] - xyxy[:, 0] + xyxy[:, 3] - xyxy[:, 1]) * np.float32(0.5)
    return size[:, None]


def reach(anchor: str, min_box_px: float, width: int, height: int) -> tuple[float, float, float, float]:
    """Where the anchor of a box of at least this size can lie: x0, y0, x1, y1. The model's own can lie anywhere."""
    if anchor not in ANCHOR_SHARES:
        return 0.0, 0.0, float(width), float(height)
    share_x, share_y = ANCHOR_SHARES[anchor]
    size = min(min_box_px, width, height)
    return share_x * size, share_y * size, width - (1 - share_x) * size, height - (1 - share_y) * size


def room_beside(start: Float64, end: Float64, area: tuple[float, float, float, float]) -> tuple[float, float]:
    """How far a point of the rectangle ``area`` can get from a segment to its left and right, alongside it.

    Returns:
        Pixels to the left and to the right, as seen when looking from start to end; negative if it cannot get there.
    """
    along = (end - start) / np.hypot(*(end - start))
    x0, y0, x1, y1 = area
    corners: list[Float64] = [np.array(corner) for corner in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    corners = _clip(corners, start, along)
    corners = _clip(corners, end, -along)
    if not corners:
        return -np.inf, -np.inf
    right = np.array([along[0] * (p[1] - start[1]) - along[1] * (p[0] - start[0]) for p in corners])
    return float(-right.min()), float(right.max())


def _clip(corners: list[Float64], origin: Float64, normal: Float64) -> list[Float64]:
    """The part of a convex polygon on the side of ``origin`` to which ``normal`` points (Sutherland-Hodgman)."""
    kept: list[Float64] = []
    for index, there in enumerate(corners):
        here = corners[index - 1]
        a, b = float((here - origin) @ normal), float((there - origin) @ normal)
        if (a < 0) != (b < 0):
            kept.append(here + (there - here) * (a / (a - b)))
        if b >= 0:
            kept.append(there)
    return kept


def crosses_itself(points: Float64) -> bool:
    """Whether two edges of the (K, 2) polygon that are not neighbours meet, or a corner repeats."""
    num = len(points)
    edges = [(points[i], points[(i + 1) % num]) for i in range(num)]
    if any(np.array_equal(a, b) for a, b in combinations(points, 2)):
        return True
    return any(
        _meet(*edges[i], *edges[j])
        for i, j in combinations(range(num), 2)
        if j - i > 1 and not (i == 0 and j == num - 1)
    )


def _meet(a: Float64, b: Float64, c: Float64, d: Float64) -> bool:
    """Whether the closed segments ab and cd share a point."""
    if not (_turn(a, b, c) * _turn(a, b, d) <= 0 and _turn(c, d, a) * _turn(c, d, b) <= 0):
        return False
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    return bool((low <= high).all())


def _turn(a: Float64, b: Float64, c: Float64) -> float:
    """-1, 0 or 1: to which side the way a → b → c turns."""
    return float(np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])))


def area_of(points: Float64) -> float:
    """Area of a (K, 2) polygon (shoelace formula)."""
    x, y = points[:, 0], points[:, 1]
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)


class Polygons:
    """Several polygons whose signed distances are computed in one go. Edges along the frame's border do not count."""

    def __init__(self, polygons: Sequence[Float64], width: int, height: int) -> None:
        self._first = np.cumsum([0, *(len(p) for p in polygons)])[:-1]
        self._of_edge = np.repeat(np.arange(len(polygons)), [len(p) for p in polygons])
        starts = np.concatenate(polygons)
        ends = np.concatenate([np.roll(p, -1, axis=0) for p in polygons])
        along = ends - starts
        self._x, self._y = starts.T.copy()
        self._along_x, self._along_y = along.T.copy()
        self._end_y = ends[:, 1].copy()
        self._unit_x, self._unit_y = (along / np.maximum((along**2).sum(1, keepdims=True), 1e-12)).T.copy()
        self._slope = along[:, 0] / np.where(along[:, 1] == 0, 1, along[:, 1])
        self._border = np.where(_lies_on_border(starts, ends, width, height), np.inf, 0.0)
        margin = 1.5 * BORDER_SHARE * np.array([width, height])
        self._low, self._high = margin, np.array([width, height]) - margin

    def signed_distance(self, points: Float64) -> Float64:
        """Distance of the nearest edge, positive inside.

        Args:
            points: (N, Z, 2), one point per object and polygon. Points at the frame's border are drawn inwards a
                little, so that a polygon drawn along the border contains them.

        Returns:
            (N, Z) pixels, infinite where a polygon has only border edges.
        """
        if len(points) == 0:
            return np.empty(points.shape[:2])
        # x and y apart: numpy is slow along an axis of two
        at = np.minimum(np.maximum(points, self._low), self._high)
        x, y = at[..., 0][:, self._of_edge], at[..., 1][:, self._of_edge]
        dx, dy = x - self._x, y - self._y
        share = np.minimum(np.maximum(dx * self._unit_x + dy * self._unit_y, 0), 1)
        gap_x, gap_y = dx - share * self._along_x, dy - share * self._along_y
        nearest = np.minimum.reduceat(gap_x * gap_x + gap_y * gap_y + self._border, self._first, axis=1)
        passed = ((self._y > y) != (self._end_y > y)) & (dx < dy * self._slope)
        inside = np.logical_xor.reduceat(passed, self._first, axis=1)
        signed: Float64 = np.sqrt(nearest)
        np.negative(signed, out=signed, where=~inside)
        return signed

    def deepest(self, index: int, area: tuple[float, float, float, float]) -> float:
        """About how far inside polygon ``index`` a point of the rectangle ``area`` can get; negative if not at all."""
        corners = np.column_stack((self._x, self._y))[self._of_edge == index]
        x0, y0 = np.maximum(corners.min(0), area[:2])
        x1, y1 = np.minimum(corners.max(0), area[2:])
        if x0 > x1 or y0 > y1:
            return -np.inf
        grid = np.stack(np.meshgrid(np.linspace(x0, x1, GRID), np.linspace(y0, y1, GRID)), -1).reshape(-1, 1, 2)
        points = np.broadcast_to(grid, (len(grid), len(self._first), 2))
        return float(self.signed_distance(points)[:, index].max())


def _lies_on_border(starts: Float64, ends: Float64, width: int, height: int) -> Bool:
    """(E,) whether both ends of an edge lie on the same side of the frame's border."""
    limit = np.array([width, height]) * BORDER_SHARE
    size = np.array([width, height])
    low = (starts <= limit) & (ends <= limit)
    high = (starts >= size - limit) & (ends >= size - limit)
    on_border: Bool = np.any(low | high, axis=1)
    return on_border
