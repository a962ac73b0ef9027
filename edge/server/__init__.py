"""The HTTP server: live pictures, the interface for programs, metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.lazy import lazily

if TYPE_CHECKING:
    from edge.server.board import LiveBoard
    from edge.server.server import LiveServer

__all__ = ["LiveBoard", "LiveServer"]
__getattr__ = lazily(__name__, {"LiveBoard": "board", "LiveServer": "server"})
