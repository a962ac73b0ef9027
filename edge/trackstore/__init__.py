"""What every stream saw and decided, frame by frame, kept on disk: written off the hot path, small, and crash-proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.lazy import lazily

if TYPE_CHECKING:
    from edge.trackstore.read import Reader
    from edge.trackstore.store import TrackStore

__all__ = ["Reader", "TrackStore"]
__getattr__ = lazily(__name__, {"Reader": "read", "TrackStore": "store"})
