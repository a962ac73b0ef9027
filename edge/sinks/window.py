"""Sink that shows the annotated picture in a window; Esc or closing the window stops the drawing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2

from edge.errors import MissingError
from edge.packages.installed import add_extra

if TYPE_CHECKING:
    from edge.types import Result, UInt8

ESCAPE_KEY = 27


class WindowSink:
    """Shows one stream in a window of its own. Created and used by the same thread.

    Raises:
        MissingError: this machine has no display, or this OpenCV cannot open windows.
    """

    takes_unseen = True

    def __init__(self, title: str) -> None:
        self.name = "window:"
        self._title = title
        self._is_open = False
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise MissingError(
                "window: needs a display and this session has none (DISPLAY is not set); use --sink http:8080 instead"
            )
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error:
            raise MissingError(
                f"window: this OpenCV has no windows or cannot reach the display; run: {add_extra('window')}, "
                "or use --sink http:8080 instead"
            ) from None
        self._is_open = True

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        if not self._is_open:
            return
        cv2.imshow(self._title, picture())
        is_closed = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        if cv2.waitKey(1) == ESCAPE_KEY or is_closed:
            self.close()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            cv2.destroyWindow(self._title)
