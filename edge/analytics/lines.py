"""Counts tracks that cross a line, once per true crossing, by direction and class. N tracks, L lines, C classes.

A track has a side only when its anchor is beyond a band around the line. It has crossed when it settles on the other
side and the path of its anchors passed through the segment once more in that direction than back, so what happens
within the band, beyond the ends, for one frame or while the track is lost cannot count twice or the wrong way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.analytics.anchors import Anchors
from edge.analytics.classes import class_name
from edge.analytics.geometry import box_size, reach, room_beside
from edge.analytics.state import NEVER, settle
from edge.errors import ConfigError

if TYPE_CHECKING:
    from edge.config.analytics import LineSettings
    from edge.types import Array, Bool, Float32, Float64, Int64, Tracks

DIRECTIONS = ("out", "in")
Crossing = tuple[int, int, str]


class LineCounter:
    """The lines of one stream and their counts. What it knows of single tracks stands in the rows it is given."""

    def __init__(
        self,
        lines: Sequence[LineSettings],
        classes: Sequence[str],
        width: int,
        height: int,
        model_anchors: Sequence[str] = (),
    ) -> None:
        self.names = [line.name for line in lines]
        self.points = np.array([line.pixels(width, height) for line in lines], np.float64).reshape(-1, 2, 2)
        self._classes = tuple(classes)
        self.anchors = Anchors([line.anchor for line in lines], model_anchors, "line_at")
        self._start = self.points[:, 0]
        self._along = self.points[:, 1] - self._start
        self._length = np.hypot(self._along[:, 0], self._along[:, 1])
        self._unit = self._along / self._length[:, None]
        self._band_share = np.array([line.band_box_share for line in lines], np.float64)
        self._band_px = np.array([line.band_px for line in lines], np.float64)
        self.settle_ns = np.array([round(line.settle_s * 1e9) for line in lines], np.int64)
        areas = [reach(line.anchor, line.min_box_px, width, height) for line in lines]
        rooms = [room_beside(ends[0], ends[1], area) for ends, area in zip(self.points, areas, strict=True)]
        # near the border the band must leave room to settle in
        self._cap = np.array(rooms, np.float64).reshape(-1, 2).T / 2
        self._counts: list[dict[str, dict[str, int]]] = [{"in": {}, "out": {}} for _ in lines]

    def update(self, rows: Array, slot: Int64, tracks: Tracks, wanted: Bool, now_ns: int) -> list[Crossing]:
        """Take the tracks of this frame, before ``rows`` learns them.

        Args:
            rows: the table's rows, whose line fields are changed.
            slot: (N,) row of each track.
            tracks: N of them.
            wanted: (N, L) whether the track's class and the schedule let it count.
            now_ns: time of the frame.

        Returns:
            (row, line, direction) of every crossing that became certain in this frame.
        """
        if not self.names or len(slot) == 0:
            return []
        at = self.anchors.of(tracks)
        distance = self.distance(at)
        size = box_size(tracks.xyxy)
        seen = self.sides(distance, size)
        side, net = rows["line_side"][slot], rows["line_net"][slot]
        net = net + self._passes(rows, slot, at, distance)
        pending = rows["line_pending_ns"][slot]
        accepted, is_same = settle(side, pending, seen, now_ns, self.settle_ns)
        net[is_same] = 0
        crossings = []
        if accepted.any():
            counts = accepted & (np.sign(net) == seen) & wanted
            crossings = [self._count(rows, int(slot[n]), line, int(seen[n, line])) for n, line in np.argwhere(counts)]
            side, pending[accepted], net[accepted] = np.where(accepted, seen, side), NEVER, 0
        self._settle_new(side, net, distance, size)
        rows["line_side"][slot], rows["line_pending_ns"][slot], rows["line_net"][slot] = side, pending, net
        self.anchors.remember(rows, slot, at)
        return crossings

    def lose(self, rows: Array, slot: Int64, wanted: Bool) -> list[Crossing]:
        """Decide about tracks that are lost: one last seen beyond a line has crossed it."""
        if not self.names or len(slot) == 0:
            return []
        side, net = rows["line_side"][slot], rows["line_net"][slot]
        is_pending = rows["line_pending_ns"][slot] != NEVER
        if not is_pending.any():
            return []
        counts = is_pending & (np.sign(net) == -side) & wanted
        crossings = [self._count(rows, int(slot[n]), line, -int(side[n, line])) for n, line in np.argwhere(counts)]
        rows["line_side"][slot] = np.where(is_pending, -side, side)
        rows["line_pending_ns"][slot] = NEVER
        rows["line_net"][slot] = np.where(is_pending, 0, net)
        return crossings

    def counts(self) -> dict[str, Any]:
        """Line name → counts ``in`` and ``out``, and the same by class."""
        return {
            name: {
                "in": sum(count["in"].values()),
                "out": sum(count["out"].values()),
                "by_class": {direction: dict(count[direction]) for direction in ("in", "out")},
            }
            for name, count in zip(self.names, self._counts, strict=True)
        }

    def load_counts(self, counts: Mapping[str, Any]) -> None:
        """Continue from what ``counts`` gave; lines that it does not know begin at 0."""
        for name, count in zip(self.names, self._counts, strict=True):
            if name in counts:
                for direction in DIRECTIONS:
                    count[direction] = {str(k): int(v) for k, v in counts[name]["by_class"][direction].items()}

    def distance(self, at: Float64) -> Float64:
        """(N, L) pixels from the infinite line, positive to the right of its direction."""
        offset = at - self._start
        right: Float64 = self._unit[:, 0] * offset[..., 1] - self._unit[:, 1] * offset[..., 0]
        return right

    def sides(self, distance: Float64, size: Float32) -> Array:
        """(N, L) int8: beyond the band to the right (1) or left (-1), or within it (0)."""
        band = np.maximum(self._band_share * size, self._band_px)
        right = distance > np.minimum(band, self._cap[1])
        left = distance < -np.minimum(band, self._cap[0])
        sides: Array = right.view(np.int8) - left.view(np.int8)
        return sides

    def _settle_new(self, side: Array, net: Array, distance: Float64, size: Float32) -> None:
        """Give tracks without a side one as soon as they are half a band away; changed in place."""
        is_new = side == 0
        if is_new.any():
            sides = self.sides(2 * distance, size)
            side[is_new] = sides[is_new]
            net[is_new] = 0

    def _passes(self, rows: Array, slot: Int64, at: Float64, distance: Float64) -> Array:
        """(N, L) 1 where the way from the last box to this one passes the segment to the right, -1 to the left."""
        right = np.where(distance >= 0, np.int8(1), np.int8(-1))
        changed = right * rows["line_right"][slot] < 0
        rows["line_right"][slot] = right
        if not changed.any():
            return np.zeros(changed.shape, np.int32)
        was = self.anchors.remembered(rows[slot])
        return self.passes((was, at), (self.distance(was), distance), changed)

    def passes(self, points: tuple[Float64, Float64], distances: tuple[Float64, Float64], changed: Bool) -> Array:
        """(N, L) 1 where the way between two points passes the segment to the right, -1 to the left, else 0.

        Args:
            points: (N, L, 2) before and now. distances: (N, L) theirs.
            changed: (N, L) whether the way passes the infinite line.
        """
        (was, at), (before, distance) = points, distances
        fraction = before / np.where(changed, before - distance, 1)
        point = was + fraction[..., None] * (at - was) - self._start
        share = (point * self._unit).sum(-1)
        changed = changed & (share >= 0) & (share <= self._length)
        return np.where(changed, np.where(distance >= 0, 1, -1), 0).astype(np.int32)

    def _count(self, rows: Array, slot: int, line: int, side: int) -> Crossing:
        direction = DIRECTIONS[side > 0]
        class_id = int(rows["class_id"][slot])
        name = class_name(self._classes, class_id)
        by_class = self._counts[line][direction]
        by_class[name] = by_class.get(name, 0) + 1
        return slot, line, direction


def check_line(line: LineSettings, where: str, width: int, height: int) -> None:
    """See that a line can count.

    Raises:
        ConfigError: it has no length, leaves the frame, or no anchor can get to one of its sides.
    """
    points = np.array(line.pixels(width, height), np.float64)
    if points.shape != (2, 2):
        raise ConfigError(f"{where}: a line has two points, found {len(points)}")
    if not np.isfinite(points).all() or (points < 0).any() or (points > (width, height)).any():
        raise ConfigError(
            f"{where}: its points {points.tolist()} must lie in the frame of {width}x{height} pixels; draw it again"
        )
    length = float(np.hypot(*(points[1] - points[0])))
    if length < 2 * line.band_px:
        raise ConfigError(
            f"{where}: it is {length:g} px long, expected at least {2 * line.band_px:g} (twice band_px); "
            "move its points apart"
        )
    rooms = room_beside(points[0], points[1], reach(line.anchor, line.min_box_px, width, height))
    needed = 2 * line.band_px
    for direction, room in zip(("left", "right"), rooms, strict=True):
        if room < needed:
            raise ConfigError(
                f"{where}: too close to the frame's edge to ever count: the {line.anchor} of a box of at least "
                f"{line.min_box_px:g} px gets {max(room, 0):.1f} px beyond its {direction} side, "
                f"expected at least {needed:g}; move the line inwards, choose another anchor or lower min_box_px"
            )
