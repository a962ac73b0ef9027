"""What came out of one stream in all, and how many frames may still come out."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.types import Event, Result

# far more than are in view at once; ids are never used again, so the oldest can be forgotten
MAX_KNOWN = 4096


class FrameBudget:
    """So many frames may come out of all streams together; any thread."""

    def __init__(self, num_frames: int) -> None:
        self._left = num_frames
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether one more frame may come out."""
        with self._lock:
            has_one = self._left > 0
            self._left -= has_one
        return has_one


class Tally:
    """Counts the different tracks of a stream and what crossed its lines and entered its zones; output's thread."""

    def __init__(self, classes: Sequence[str], lines: Sequence[str] = (), zones: Sequence[str] = ()) -> None:
        """Args: names by class id, and the names of the lines and zones, which are told with 0 too."""
        self._classes = classes
        self._known: dict[int, None] = {}
        self.tracks: Counter[str] = Counter()
        self._lines: dict[str, dict[str, Counter[str]]] = {}
        self._zones: dict[str, dict[str, Counter[str]]] = {}
        self.watch(lines, zones)

    def watch(self, lines: Sequence[str], zones: Sequence[str]) -> None:
        """Count at these lines and zones from now on; what was counted at others is forgotten. Any thread."""
        self._lines = {name: self._lines.get(name) or {"in": Counter(), "out": Counter()} for name in lines}
        self._zones = {name: self._zones.get(name) or {"entered": Counter(), "left": Counter()} for name in zones}

    def add(self, result: Result) -> None:
        """Take what a frame brought."""
        tracks = result.tracks
        if tracks is not None:
            for track_id, class_id in zip(tracks.track_id.tolist(), tracks.class_id.tolist(), strict=True):
                if self._known.pop(track_id, False) is False:
                    self.tracks[self._name(class_id)] += 1
                # what is in view stands last, and is forgotten last
                self._known[track_id] = None
            while len(self._known) > MAX_KNOWN:
                del self._known[next(iter(self._known))]
        for event in result.events:
            self._add_event(event)

    def as_dict(self) -> dict[str, Any]:
        """``tracks``, ``tracks_by_class``, and for each line and zone its counts, each also by class."""
        return {
            "tracks": self.tracks.total(),
            "tracks_by_class": dict(self.tracks.most_common()),
            "lines": {name: _told(counts) for name, counts in self._lines.items()},
            "zones": {name: _told(counts) for name, counts in self._zones.items()},
        }

    def _add_event(self, event: Event) -> None:
        # a part of another package may add events of these kinds that lack what ours have
        label = str(event.data.get("class", ""))
        line, zone = self._lines.get(event.data.get("line", "")), self._zones.get(event.data.get("zone", ""))
        if event.kind == "line_crossed" and line is not None and event.data.get("direction") in line:
            line[event.data["direction"]][label] += 1
        elif event.kind in ("zone_entered", "zone_left") and zone is not None:
            zone[event.kind.removeprefix("zone_")][label] += 1

    def _name(self, class_id: int) -> str:
        return self._classes[class_id] if class_id < len(self._classes) else f"class {class_id}"


def _told(counts: dict[str, Counter[str]]) -> dict[str, Any]:
    by_class = {kind: dict(count.most_common()) for kind, count in counts.items()}
    return {**{kind: count.total() for kind, count in counts.items()}, "by_class": by_class}
