"""A source as a Python program reads it: an iterator over frames, and a context that closes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge.addresses.uris import short_name
from edge.sources import choose
from edge.types import Frame

if TYPE_CHECKING:
    from edge.interfaces import CameraSource, SourceInfo


class SourceReader:
    """The frames of a source, in order. Used by one thread; ends with the file, or when the camera breaks.

    It reads what comes and tries nothing again; ``edge.track`` keeps the newest frame of cameras and reconnects.

    Attributes:
        info: size, rate and decoder of the source.
    """

    def __init__(self, source: CameraSource, name: str) -> None:
        """Args: an open source, closed with this; the stream's name in its frames."""
        self._source = source
        self._name = name
        self._seq = 0
        self.info: SourceInfo = source.info

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame

    def read(self) -> Frame | None:
        """The next frame, or None at the end.

        Raises:
            SourceError: the source broke.
        """
        picture = self._source.read_planes()
        if picture is None:
            return None
        planes, pts_ns = picture
        captured_ns = self._source.captured_ns or time.monotonic_ns()
        frame = Frame(self._name, 0, self._seq, captured_ns, pts_ns, planes)
        self._seq += 1
        return frame

    def close(self) -> None:
        """Free everything. May be called twice."""
        self._source.close()

    def __enter__(self) -> SourceReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(source: str | int | Path, *, name: str | None = None) -> SourceReader:
    """Open a camera, a file or a scene.

    Args:
        source: ``rtsp://…``, ``http://…``, a camera's number or node, a video file, a folder of pictures,
            ``gst:PIPELINE``, or ``synthetic://street?seed=1``.
        name: of the stream in its frames; None makes one from the address.

    Raises:
        SourceError: it cannot be opened.
        MissingError: the machine lacks what it needs.
    """
    address = str(source)
    return SourceReader(choose.open_source(address), name or short_name(address))
