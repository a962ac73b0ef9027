"""What runs a model: one file per library, one protocol (``edge.interfaces.Engine``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.lazy import lazily

if TYPE_CHECKING:
    from edge.engines.choose import open_engine

__all__ = ["open_engine"]
__getattr__ = lazily(__name__, {"open_engine": "choose"})
