"""Watches who is in which zone: enter, leave, dwell, loitering, crowds, stopped objects. N tracks, Z zones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.analytics.anchors import Anchors
from edge.analytics.classes import class_name
from edge.analytics.geometry import Polygons, area_of, box_size, crosses_itself, reach
from edge.analytics.state import NEVER, settle
from edge.errors import ConfigError

if TYPE_CHECKING:
    from edge.config.analytics import ZoneSettings
    from edge.types import Array, Bool, Float32, Float64, Int64, Tracks

FAR_NS = np.iinfo(np.int64).max
NOBODY_ROW = -1


@dataclass(frozen=True, slots=True)
class ZoneChange:
    """Something that happened in a zone.

    Attributes:
        kind: kind of the event.
        slot: row of the track, -1 where it is about the zone as a whole.
        zone: index of the zone.
        data: further facts of the event.
    """

    kind: str
    slot: int
    zone: int
    data: Mapping[str, Any]


class ZoneWatcher:
    """The zones of one stream. What it knows of single tracks stands in the rows it is given."""

    def __init__(
        self,
        zones: Sequence[ZoneSettings],
        classes: Sequence[str],
        width: int,
        height: int,
        model_anchors: Sequence[str] = (),
    ) -> None:
        self.names = [zone.name for zone in zones]
        self._classes = tuple(classes)
        self.points = [np.array(zone.pixels(width, height), np.float64) for zone in zones]
        self.anchors = Anchors([zone.anchor for zone in zones], model_anchors, "zone_at")
        self._polygons = Polygons(self.points, width, height) if zones else None
        self._band_share = np.array([zone.band_box_share for zone in zones], np.float64)
        self._band_px = np.array([zone.band_px for zone in zones], np.float64)
        self._cap = np.array([self._depth(k, zone, width, height) / 2 for k, zone in enumerate(zones)], np.float64)
        self.settle_ns = np.array([round(zone.settle_s * 1e9) for zone in zones], np.int64)
        self.loiter_ns = _nanoseconds([zone.loiter_s for zone in zones])
        self.stopped_ns = _nanoseconds([zone.stopped_s for zone in zones])
        self.still_share = np.array([(z.stopped_s or 0) * z.stopped_heights_per_s for z in zones], np.float64)
        self.has_loiter = any(zone.loiter_s for zone in zones)
        self.has_stopped = any(zone.stopped_s for zone in zones)
        self.crowd_count = np.array([z.crowd_count or np.iinfo(np.int32).max for z in zones], np.int64)
        self.crowd_ns = np.array([round(zone.crowd_s * 1e9) for zone in zones], np.int64)
        self.occupancy = np.zeros(len(zones), np.int64)
        self._entered = np.zeros(len(zones), np.int64)
        self._entered_by: list[dict[str, int]] = [{} for _ in zones]
        self._left = np.zeros(len(zones), np.int64)
        self._dwell_s = np.zeros(len(zones), np.float64)
        self._crowded = np.full(len(zones), -1, np.int8)
        self._crowd_pending_ns = np.full(len(zones), NEVER, np.int64)

    def update(self, rows: Array, slot: Int64, tracks: Tracks, wanted: Bool, now_ns: int) -> list[ZoneChange]:
        """Take the tracks of this frame.

        Args:
            rows: the table's rows, whose zone fields are changed.
            slot: (N,) row of each track.
            tracks: N of them.
            wanted: (N, Z) whether the track's class and the schedule let it be in the zone.
            now_ns: time of the frame.
        """
        if self._polygons is None or len(slot) == 0:
            return []
        side, pending = rows["zone_side"][slot], rows["zone_pending_ns"][slot]
        since_ns: Int64 | int = now_ns
        at = self.anchors.of(tracks)
        self.anchors.remember(rows, slot, at)
        sides = self.sides(at, tracks.xyxy)
        accepted, _ = settle(side, pending, sides, now_ns, self.settle_ns)
        if accepted.any():
            since_ns = np.where(accepted, pending, now_ns)
            side, pending[accepted] = np.where(accepted, -side, side), NEVER
        rows["zone_side"][slot], rows["zone_pending_ns"][slot] = side, pending
        return self._move(rows, slot, (side > 0) & wanted, since_ns)

    def linger(self, rows: Array, slot: Int64, xyxy: Float32, now_ns: int) -> list[ZoneChange]:
        """See who loiters and who stopped, after ``update``. Seconds matter here, so not every frame must be seen."""
        if len(slot) == 0 or not (self.has_loiter or self.has_stopped):
            return []
        present = rows["zone_present"][slot]
        changes = self._loiter(rows, slot, present, now_ns) if self.has_loiter else []
        return changes + (self._stop(rows, slot, xyxy, present, now_ns) if self.has_stopped else [])

    def refresh(self, rows: Array, wanted: Bool, now_ns: int) -> list[ZoneChange]:
        """Apply a changed schedule to all (T,) remembered tracks; ``wanted`` is (T, Z)."""
        if self._polygons is None or len(rows) == 0:
            return []
        present = (rows["zone_side"] > 0) & wanted & ~rows["is_lost"][:, None]
        return self._move(rows, np.arange(len(rows)), present, now_ns)

    def lose(self, rows: Array, slot: Int64) -> list[ZoneChange]:
        """Let lost tracks leave their zones, at the time when they were last seen."""
        if self._polygons is None or len(slot) == 0:
            return []
        nowhere = np.zeros((len(slot), len(self.names)), np.bool_)
        changes = self._move(rows, slot, nowhere, rows["seen_ns"][slot][:, None], reason="lost")
        rows["zone_side"][slot] = -1
        rows["zone_pending_ns"][slot] = NEVER
        rows["zone_stopped"][slot] = False
        rows["still_ns"][slot] = NEVER
        return changes

    def watch_crowds(self, now_ns: int) -> list[ZoneChange]:
        """Compare the occupancy of every zone with its limit; call once per frame, after ``update``."""
        if self._polygons is None:
            return []
        is_full = self.occupancy >= self.crowd_count
        if (is_full == (self._crowded > 0)).all():
            self._crowd_pending_ns[...] = NEVER
            return []
        seen = np.where(is_full, np.int8(1), np.int8(-1))
        accepted, _ = settle(self._crowded, self._crowd_pending_ns, seen, now_ns, self.crowd_ns)
        if not accepted.any():
            return []
        self._crowded[accepted] = seen[accepted]
        self._crowd_pending_ns[accepted] = NEVER
        begun = np.flatnonzero(accepted & (seen > 0))
        return [ZoneChange("zone_crowded", NOBODY_ROW, int(z), {"occupancy": int(self.occupancy[z])}) for z in begun]

    def forget_crowds(self) -> None:
        """Begin timing crowds again: the clock has jumped back."""
        self._crowd_pending_ns[...] = NEVER

    def counts(self, rows: Array) -> dict[str, Any]:
        """Zone name → occupancy now, totals, mean dwell of those that left, whether it is crowded, and by class.

        A class is named from the first object on that entered. ``rows`` are those that ``update`` changed.
        """
        return {
            name: {
                "occupancy": int(self.occupancy[k]),
                "entered": int(self._entered[k]),
                "left": int(self._left[k]),
                "mean_dwell_s": round(float(self._dwell_s[k] / max(1, self._left[k])), 3),
                "is_crowded": bool(self._crowded[k] > 0),
                "by_class": self._by_class(rows, k),
            }
            for k, name in enumerate(self.names)
        }

    def _by_class(self, rows: Array, zone: int) -> dict[str, dict[str, int]]:
        inside = Counter(
            class_name(self._classes, number) for number in rows["class_id"][rows["zone_present"][:, zone]]
        )
        entered = self._entered_by[zone]
        # an object that is called something else by now has entered under its first name
        return {
            name: {"occupancy": inside[name], "entered": entered.get(name, 0)} for name in sorted({*entered, *inside})
        }

    def state(self) -> dict[str, Any]:
        """What ``load`` takes."""
        columns = (self._entered, self._left, self._dwell_s, self.occupancy, self._crowded, self._crowd_pending_ns)
        table = zip(*(column.tolist() for column in columns), self._entered_by, strict=True)
        return dict(zip(self.names, map(list, table), strict=True))

    def load(self, state: Mapping[str, Any], *, with_tracks: bool) -> None:
        """Continue from what ``state`` gave; without the tracks, only totals."""
        for k, name in enumerate(self.names):
            if name in state:
                entered, left, dwell_s, occupancy, crowded, pending_ns, *by_class = state[name]
                self._entered[k], self._left[k], self._dwell_s[k] = entered, left, dwell_s
                for named in by_class[:1]:
                    self._entered_by[k] = {str(one): int(count) for one, count in named.items()}
                if with_tracks:
                    self.occupancy[k], self._crowded[k], self._crowd_pending_ns[k] = occupancy, crowded, pending_ns

    def _depth(self, index: int, zone: ZoneSettings, width: int, height: int) -> float:
        assert self._polygons is not None
        return self._polygons.deepest(index, reach(zone.anchor, zone.min_box_px, width, height))

    def sides(self, at: Float64, xyxy: Float32) -> Array:
        """(N, Z) int8: inside (1) or outside (-1) beyond the band, or within it (0), of (N, Z, 2) anchors."""
        distance, band = self.distance(at), self.band(xyxy)
        return (distance > band).view(np.int8) - (distance < -band).view(np.int8)

    def distance(self, at: Float64) -> Float64:
        """(N, Z) pixels from the nearest edge, positive inside."""
        assert self._polygons is not None
        return self._polygons.signed_distance(at)

    def band(self, xyxy: Float32) -> Float64:
        """(N, Z) half the width of the band in which an object keeps its side."""
        band: Float64 = np.minimum(np.maximum(self._band_share * box_size(xyxy), self._band_px), self._cap)
        return band

    def _move(
        self, rows: Array, slot: Int64, present: Bool, time_ns: Int64 | int, reason: str = "left"
    ) -> list[ZoneChange]:
        """Enter and leave: make (N, Z) ``present`` true, each change at its time, one for all or (N, Z)."""
        was = rows["zone_present"][slot]
        changed = present != was
        if not changed.any():
            return []
        times_ns = np.broadcast_to(time_ns, present.shape)
        changes = []
        for n, zone in np.argwhere(changed).tolist():
            row = rows[slot[n]]
            if present[n, zone]:
                row["zone_since_ns"][zone] = times_ns[n, zone]
                row["zone_loitered"][zone] = False
                self._entered[zone] += 1
                name = class_name(self._classes, int(row["class_id"]))
                self._entered_by[zone][name] = self._entered_by[zone].get(name, 0) + 1
                changes.append(ZoneChange("zone_entered", int(slot[n]), zone, {}))
                continue
            dwell_s = max(0, int(times_ns[n, zone]) - int(row["zone_since_ns"][zone])) / 1e9
            self._left[zone] += 1
            self._dwell_s[zone] += dwell_s
            changes.append(
                ZoneChange("zone_left", int(slot[n]), zone, {"dwell_s": round(dwell_s, 3), "reason": reason})
            )
        rows["zone_present"][slot] = present
        self.occupancy += present.sum(0) - was.sum(0)
        return changes

    def _loiter(self, rows: Array, slot: Int64, present: Bool, now_ns: int) -> list[ZoneChange]:
        since_ns = rows["zone_since_ns"][slot]
        due = present & ~rows["zone_loitered"][slot]
        due &= now_ns - np.where(present, since_ns, now_ns) > self.loiter_ns
        if not due.any():
            return []
        rows["zone_loitered"][slot] |= due
        return [
            ZoneChange("zone_loitering", int(slot[n]), z, {"dwell_s": round((now_ns - int(since_ns[n, z])) / 1e9, 3)})
            for n, z in np.argwhere(due).tolist()
        ]

    def _stop(self, rows: Array, slot: Int64, xyxy: Float32, present: Bool, now_ns: int) -> list[ZoneChange]:
        """Objects that stayed within the distance that the slowest moving one would cover in ``stopped_s``."""
        x, y = (xyxy[:, 0:1] + xyxy[:, 2:3]) / 2, (xyxy[:, 1:2] + xyxy[:, 3:4]) / 2
        radius = self.still_share * (xyxy[:, 3:] - xyxy[:, 1:2])
        still_ns = rows["still_ns"][slot]
        gap_x, gap_y = x - rows["still_x"][slot], y - rows["still_y"][slot]
        moved = (gap_x * gap_x + gap_y * gap_y > radius * radius) | (still_ns == NEVER)
        if moved.any():
            still_ns[moved] = now_ns
            rows["still_ns"][slot] = still_ns
            rows["still_x"][slot] = np.where(moved, x, rows["still_x"][slot])
            rows["still_y"][slot] = np.where(moved, y, rows["still_y"][slot])
        stopped = rows["zone_stopped"][slot] & ~moved
        due = present & ~stopped & (now_ns - still_ns >= self.stopped_ns)
        rows["zone_stopped"][slot] = stopped | due
        return [
            ZoneChange("object_stopped", int(slot[n]), z, {"still_s": round((now_ns - int(still_ns[n, z])) / 1e9, 3)})
            for n, z in (np.argwhere(due).tolist() if due.any() else ())
        ]


def _nanoseconds(seconds: Sequence[float | None]) -> Int64:
    return np.array([FAR_NS if value is None else round(value * 1e9) for value in seconds], np.int64)


def check_zone(zone: ZoneSettings, where: str, width: int, height: int) -> None:
    """See that a zone is a polygon that objects can be in.

    Raises:
        ConfigError: too few points, outside the frame, crossing itself, without area, or out of every anchor's reach.
    """
    points = np.array(zone.pixels(width, height), np.float64)
    if len(points) < 3:
        raise ConfigError(f"{where}: a zone has at least three points, found {len(points)}")
    if not np.isfinite(points).all() or (points < 0).any() or (points > (width, height)).any():
        raise ConfigError(
            f"{where}: its points {points.tolist()} must lie in the frame of {width}x{height} pixels; draw it again"
        )
    if crosses_itself(points):
        raise ConfigError(
            f"{where}: its outline {points.tolist()} crosses or touches itself; draw it as a simple polygon"
        )
    if area_of(points) < (2 * zone.band_px) ** 2:
        raise ConfigError(f"{where}: it covers {area_of(points):.1f} square pixels; draw it larger")
    depth = _reachable_depth(zone, points, width, height)
    if depth < zone.band_px:
        raise ConfigError(
            f"{where}: the {zone.anchor} of a box of at least {zone.min_box_px:g} px gets {max(depth, 0):.1f} px into "
            f"it, expected at least {zone.band_px:g}; draw it larger or further from the frame's edge"
        )


def _reachable_depth(zone: ZoneSettings, points: Float64, width: int, height: int) -> float:
    area = reach(zone.anchor, zone.min_box_px, width, height)
    return Polygons([points], width, height).deepest(0, area)
