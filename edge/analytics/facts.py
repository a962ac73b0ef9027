"""Events about tracks, with what is known of them: class, position, speed. Z lines and zones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.analytics.classes import class_name
from edge.analytics.zones import NOBODY_ROW, ZoneChange, ZoneWatcher
from edge.types import Array, Event

if TYPE_CHECKING:
    from edge.analytics.anchors import Anchors
    from edge.analytics.lines import Crossing, LineCounter
    from edge.analytics.speed import Ground


class EventMaker:
    """Turns what lines and zones report into events of one stream."""

    def __init__(
        self, stream: str, classes: Sequence[str], lines: LineCounter, zones: ZoneWatcher, ground: Ground | None
    ) -> None:
        self._stream, self._classes = stream, classes
        self._lines, self._zones, self._ground = lines, zones, ground

    def crossed(self, rows: Array, crossings: Sequence[Crossing], time_ns: int) -> list[Event]:
        """One ``line_crossed`` per crossing."""
        events = []
        for slot, line, direction in crossings:
            data = {"line": self._lines.names[line], "direction": direction}
            events.append(self._event("line_crossed", rows, slot, time_ns, data, self._lines.anchors, line))
        return events

    def changed(self, rows: Array, changes: Sequence[ZoneChange], time_ns: int) -> list[Event]:
        """One event per change in a zone."""
        events = []
        for change in changes:
            data = {"zone": self._zones.names[change.zone], **change.data}
            events.append(self._event(change.kind, rows, change.slot, time_ns, data, self._zones.anchors, change.zone))
        return events

    def _event(
        self, kind: str, rows: Array, slot: int, time_ns: int, data: dict[str, Any], anchors: Anchors, part: int
    ) -> Event:
        if slot == NOBODY_ROW:
            return Event(kind, self._stream, time_ns, None, data)
        row = rows[slot : slot + 1]
        return Event(kind, self._stream, time_ns, int(row["id"][0]), data | self.facts(row, anchors, [part])[0])

    def facts(self, rows: Array, anchors: Anchors, parts: Sequence[int]) -> list[dict[str, Any]]:
        """Class, place of the anchor that a drawn part has, and speed of each of (N,) tracks at its part."""
        names = [class_name(self._classes, number) for number in rows["class_id"].tolist()]
        places = anchors.remembered(rows)[np.arange(len(rows)), parts].astype(np.float64).tolist()
        velocity = np.nan_to_num(rows["velocity"])
        speeds = np.hypot(velocity[:, 0], velocity[:, 1]).astype(np.float64).tolist()
        found: list[dict[str, Any]] = [
            {
                "class": name,
                "position_px": [round(value, 1) for value in place],
                "speed_px_s": round(speed, 1),
            }
            for name, place, speed in zip(names, places, speeds, strict=True)
        ]
        if self._ground is not None:
            for number in range(len(found)):
                one = slice(number, number + 1)
                found[number] |= self._on_ground(self._ground, rows["xyxy"][one], velocity[one])
        return found

    @staticmethod
    def _on_ground(ground: Ground, box: Array, velocity: Array) -> dict[str, Any]:
        feet = np.column_stack(((box[:, 0] + box[:, 2]) / 2, box[:, 3]))
        metres, speed = ground.locate(feet, velocity)
        is_known = bool(np.isfinite(speed[0]))
        return {
            "position_m": [round(float(value), 2) for value in metres[0]] if is_known else None,
            "speed_m_s": round(float(speed[0]), 2) if is_known else None,
            "speed_km_h": round(float(speed[0]) * 3.6, 1) if is_known else None,
        }
