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
        return Event(kind, self._stream, time_ns, int(row["id"][0]), data | self._facts(row, anchors, part))

    def _facts(self, row: Array, anchors: Anchors, part: int) -> dict[str, Any]:
        """Class, position of the anchor that the drawn part has, and speed of the track in a (1,) row."""
        box, velocity = row["xyxy"], np.nan_to_num(row["velocity"])
        facts: dict[str, Any] = {
            "class": class_name(self._classes, int(row["class_id"][0])),
            "position_px": [round(float(value), 1) for value in anchors.remembered(row)[0, part]],
            "speed_px_s": round(float(np.hypot(*velocity[0])), 1),
        }
        if self._ground is not None:
            feet = np.column_stack(((box[:, 0] + box[:, 2]) / 2, box[:, 3]))
            metres, speed = self._ground.locate(feet, velocity)
            is_known = bool(np.isfinite(speed[0]))
            facts["position_m"] = [round(float(value), 2) for value in metres[0]] if is_known else None
            facts["speed_m_s"] = round(float(speed[0]), 2) if is_known else None
            facts["speed_km_h"] = round(float(speed[0]) * 3.6, 1) if is_known else None
        return facts
