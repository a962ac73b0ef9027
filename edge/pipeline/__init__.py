"""The way of a frame: capture, newest-frame hand-over, batch, analysis, output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.lazy import lazily

if TYPE_CHECKING:
    from edge.pipeline.pipeline import Pipeline
    from edge.pipeline.stream import Stream
    from edge.pipeline.track import track

__all__ = ["Pipeline", "Stream", "track"]
__getattr__ = lazily(__name__, {"Pipeline": "pipeline", "Stream": "stream", "track": "track"})
