"""A folder of pictures, or one picture, as a source: in the order of their names."""

from __future__ import annotations

from pathlib import Path

import cv2

from edge.errors import SourceError
from edge.interfaces import SourceInfo
from edge.types import UInt8

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
FPS = 1.0


class ImageSource:
    """Every picture is a frame, one second apart; see ``edge.interfaces.Source``."""

    def __init__(self, path: Path) -> None:
        """Raises: SourceError: there is no picture there."""
        self._paths = (
            [path] if path.is_file() else sorted(item for item in path.iterdir() if item.suffix.lower() in SUFFIXES)
        )
        if not self._paths:
            raise SourceError(f"{path}: no pictures in this folder; expected {', '.join(sorted(SUFFIXES))}")
        self._index = 0
        first = _load(self._paths[0])
        self.info = SourceInfo(first.shape[1], first.shape[0], FPS, False, len(self._paths), "opencv images")

    def read(self) -> tuple[UInt8, int | None] | None:
        if self._index >= len(self._paths):
            return None
        image = _load(self._paths[self._index])
        pts_ns = round(self._index * 1e9 / FPS)
        self._index += 1
        return image, pts_ns

    def close(self) -> None:
        self._index = len(self._paths)


def load_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> UInt8 | None:
    """A picture as ``cv2.imread`` gives it; None too where it claims to be so large that OpenCV raises instead."""
    try:
        image: UInt8 | None = cv2.imread(str(path), flags)
    except (cv2.error, MemoryError):
        return None
    return image


def _load(path: Path) -> UInt8:
    image = load_image(path)
    if image is None:
        raise SourceError(f"{path}: not a picture that OpenCV can read, or one that is far too large")
    return image
