"""Raw outputs to predictions: one file per family of models, one protocol (``edge.interfaces.Head``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.lazy import lazily

if TYPE_CHECKING:
    from edge.heads.choose import open_head

__all__ = ["open_head"]
__getattr__ = lazily(__name__, {"open_head": "choose"})
