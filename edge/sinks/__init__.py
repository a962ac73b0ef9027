"""Where results go: one file per kind, one protocol (``edge.interfaces.Sink``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.lazy import lazily

if TYPE_CHECKING:
    from edge.sinks.choose import open_sink

__all__ = ["open_sink"]
__getattr__ = lazily(__name__, {"open_sink": "choose"})
