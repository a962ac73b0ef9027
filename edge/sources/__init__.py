"""Where frames come from: one file per library, one protocol (``edge.interfaces.Source``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.lazy import lazily

if TYPE_CHECKING:
    from edge.sources.choose import open_source
    from edge.sources.reader import SourceReader

__all__ = ["SourceReader", "open_source"]
__getattr__ = lazily(__name__, {"SourceReader": "reader", "open_source": "choose"})
