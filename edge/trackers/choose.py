"""Opens a tracker by its name: ours, or a published algorithm as a setting of the same machinery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.errors import ConfigError
from edge.packages import plugins
from edge.trackers.settings import BYTETRACK, OCSORT, SORT, TrackerSettings
from edge.trackers.tracker import MotionTracker

if TYPE_CHECKING:
    from edge.interfaces import Tracker

NAMES = ("edge", "bytetrack", "ocsort", "sort")


def open_tracker(name: str = "edge", settings: TrackerSettings | None = None) -> Tracker:
    """A new tracker for one stream.

    Args:
        name: ``edge`` (ours), ``bytetrack``, ``ocsort``, ``sort``, or the tracker of an installed package.
        settings: used instead of the defaults; the published algorithms have their own and take none.

    Raises:
        ConfigError: no tracker has this name, or settings were given to another one than ours.
        PartError: the tracker of an installed package cannot be used.
    """
    if settings is not None and name != "edge":
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
            return _open_plugin(name)


def _open_plugin(name: str) -> Tracker:
    try:
        plugins.find("edge.trackers", name, NAMES)
    except ConfigError as error:
        start = f"tracker '{name}' is unknown; expected one of {', '.join(NAMES)}"
        raise ConfigError(f"{start}, or one of an installed package: {error}") from None
    made: Tracker = plugins.make("edge.trackers", name)
    return made


def is_plugin(name: str) -> bool:
    """Whether an installed package brings this tracker; what is built in always wins."""
    return name not in (*NAMES, "off")
