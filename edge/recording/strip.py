"""A strip of small pictures of a recorded file, for looking through it: its key pictures, and nothing else is decoded.

Shape letters: H W pixels of one small picture, R C rows and columns of the strip.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from edge.errors import SinkError
from edge.recording.seek import Layout, layout_of
from edge.types import UInt8

MAX_TILES = 60
COLUMNS = 10
TILE_WIDTH = 160
JPEG_QUALITY = 72
CACHE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Strip:
    """Small pictures in rows of ``COLUMNS``, each ``size`` (width, height), as one JPEG; ``times_s`` are the file's."""

    jpeg: bytes
    times_s: tuple[float, ...]
    size: tuple[int, int]


class Strips:
    """The newest strips that were asked for, so many bytes. Any thread may ask; one strip is made at a time."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._made: OrderedDict[Path, Strip] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Of all that is kept."""
        return sum(len(strip.jpeg) for strip in self._made.values())

    def of(self, path: Path) -> Strip:
        """The strip of a finished file, whose content never changes.

        Raises:
            SinkError: it cannot be read, or has no key picture.
        """
        with self._lock:
            strip = self._made.get(path) or strip_of(path)
            self._made[path] = strip
            self._made.move_to_end(path)
            while self.num_bytes > self._max_bytes:
                self._made.popitem(last=False)
            return strip


def strip_of(path: Path, max_tiles: int = MAX_TILES) -> Strip:
    """At most so many key pictures, evenly spaced; see ``Strips``."""
    try:
        layout = layout_of(path)
        count = min(len(layout.fragments), max_tiles)
        tiles = _tiles(layout, [len(layout.fragments) * tile // count for tile in range(count)])
    except (av.error.FFmpegError, OSError) as error:
        raise SinkError(f"{path.name}: no strip can be made ({error.strerror})") from None
    if not tiles:
        raise SinkError(f"{path.name}: there is no key picture for a strip")
    height, width = tiles[0][1].shape[:2]
    rows = -(-len(tiles) // COLUMNS)
    strip = np.zeros((rows * height, min(len(tiles), COLUMNS) * width, 3), np.uint8)
    for number, (_, tile) in enumerate(tiles):
        row, column = divmod(number, COLUMNS)
        strip[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    _, jpeg = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return Strip(jpeg.tobytes(), tuple(round(at_s, 3) for at_s, _ in tiles), (width, height))


def _tiles(layout: Layout, numbers: Sequence[int]) -> list[tuple[float, UInt8]]:
    """Time in the file and (H, W, 3) uint8 BGR of the key pictures with which these fragments begin."""
    if not numbers:
        return []
    found = []
    with layout.keys_of(numbers) as (container, keys):
        stream: Any = container.streams.video[0]
        stream.thread_type = "NONE"
        for packet in itertools.chain(keys, (None,)):
            for frame in stream.decode(packet):
                height = max(2, round(TILE_WIDTH * frame.height / frame.width))
                found.append((float(frame.time), frame.to_ndarray(format="bgr24", width=TILE_WIDTH, height=height)))
    return found
