"""Following objects over time (``edge.interfaces.Tracker``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.lazy import lazily

if TYPE_CHECKING:
    from edge.trackers.choose import open_tracker
    from edge.trackers.settings import TrackerSettings

__all__ = ["TrackerSettings", "open_tracker"]
__getattr__ = lazily(__name__, {"TrackerSettings": "settings", "open_tracker": "choose"})
