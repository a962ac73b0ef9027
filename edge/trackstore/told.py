"""What a rule says of stored rows, and the order in which the live rules would have said it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# as ``StreamAnalytics.update`` goes through a frame
RESTART_CROSSED, RESTART_LEFT, REFRESHED, LOST_CROSSED, LOST_LEFT, CROSSED, MOVED, LOITERED, STOPPED, CROWDED = range(
    10
)
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Told:
    """One event before it has its facts.

    Attributes:
        frame: number of the frame in the chunk. phase: its place within the frame.
        row: of the track, which gives the facts; ``NOBODY`` where it is about a zone as a whole.
        part: number of the line or zone. kind: of a zone's event. data: beyond the name of the part.
    """

    frame: int
    phase: int
    row: int
    part: int
    kind: str
    data: Mapping[str, Any]
