"""Sink that keeps the newest annotated picture of a stream as a JPEG file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from edge.errors import SinkError
from edge.files import write_atomic

if TYPE_CHECKING:
    from edge.types import Result, UInt8

PERIOD_S = 1.0
JPEG_QUALITY = 90


class SnapshotSink:
    """Replaces one file, at most once a period, so that a reader always finds a whole picture.

    Args:
        path: the JPEG file.
        period_s: seconds between two pictures.
        clock_ns: monotonic clock.

    Raises:
        SinkError: the folder does not exist.
    """

    takes_unseen = True

    def __init__(
        self, path: Path, *, period_s: float = PERIOD_S, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.name = f"snapshot:{path}"
        if not path.parent.is_dir():
            raise SinkError(f"{self.name}: the folder {path.parent} does not exist; run: mkdir -p {path.parent}")
        self._path = path
        self._period_ns = int(period_s * 1e9)
        self._clock_ns = clock_ns
        self._due_ns: int | None = None

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        if self._due_ns is not None and self._clock_ns() < self._due_ns:
            return
        self._due_ns = self._clock_ns() + self._period_ns
        is_encoded, data = cv2.imencode(".jpg", picture(), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not is_encoded:
            raise SinkError(f"{self.name}: the picture could not be encoded as JPEG")
        try:
            write_atomic(self._path, data.tobytes())
        except OSError as error:
            raise SinkError(f"{self.name}: the picture could not be written ({error.strerror})") from None

    def close(self) -> None:
        pass
