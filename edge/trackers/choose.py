"""Opens a tracker by its name: ours, or a published algorithm as a setting of the same machinery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.errors import ConfigError
from edge.trackers.settings import BYTETRACK, OCSORT, SORT, TrackerSettings
from edge.trackers.tracker import MotionTracker

if TYPE_CHECKING:
    from edge.interfaces import Tracker

NAMES = ("edge", "bytetrack", "ocsort", "sort")


def open_tracker(name: str = "edge", settings: TrackerSettings | None = None) -> Tracker:
    """A new tracker for one stream.

    Args:
        name: ``edge`` (ours), ``bytetrack``, ``ocsort`` or ``sort``.
        settings: used instead of the defaults; the published algorithms have their own and take none.

    Raises:
        ConfigError: no tracker has this name, or settings were given to a published algorithm.
    """
    if settings is not None and name in NAMES[1:]:
        raise ConfigError(f"tracker '{name}' is a published algorithm and takes no settings; use 'edge' to set them")
    match name:
        case "edge":
            return MotionTracker(settings)
        case "bytetrack":
            return MotionTracker(BYTETRACK)
        case "ocsort":
            return MotionTracker(OCSORT)
        case "sort":
            return MotionTracker(SORT)
        case _:
            raise ConfigError(f"tracker '{name}' is unknown; expected one of {', '.join(NAMES)}")
