"""Drawing results into pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.lazy import lazily

if TYPE_CHECKING:
    from edge.overlay.overlay import Overlay, StreamState, Theme

__all__ = ["Overlay", "StreamState", "Theme"]
__getattr__ = lazily(__name__, {"Overlay": "overlay", "StreamState": "overlay", "Theme": "overlay"})
