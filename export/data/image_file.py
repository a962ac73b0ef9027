"""Pictures and masks on disk: their size from the first bytes, and reading them the way their labels were drawn.

H W picture pixels.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from edge.errors import DataError
from edge.sources.images import load_image
from edge.types import UInt8

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_TAIL_BYTES = 64
# JPEG markers that carry the picture's size (ITU T.81, table B.1): SOF0-SOF15 without DHT, JPG and DAC
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def list_images(folder: Path, *, deep: bool = False) -> list[Path]:
    """All picture files of a folder (``deep``: and of those below it) by name; hidden files are left out."""
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height as shown (EXIF orientation applied), without decoding JPEG and PNG files.

    Returns:
        None where the file is no picture, or is a JPEG or PNG that was cut off.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(26)
        if head[:2] == b"\xff\xd8":
            size, is_turned = _jpeg_size(file) if _ends_with(file, b"\xff\xd9") else (None, False)
            return size[::-1] if size and is_turned else size
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            width, height = struct.unpack(">II", head[16:24]) if len(head) >= 24 else (0, 0)
            return (width, height) if width and height and _ends_with(file, b"IEND") else None
    image = load_image(path)
    return None if image is None else (image.shape[1], image.shape[0])


def stored_size(path: Path) -> tuple[int, int] | None:
    """Width and height without EXIF orientation; None where the file is no picture.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        if file.read(2) == b"\xff\xd8":
            return _jpeg_size(file)[0]
    image = load_image(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else (image.shape[1], image.shape[0])


def read_image(path: Path, size: tuple[int, int] | None = None) -> UInt8:
    """Decode a picture.

    Args:
        path: the file.
        size: width and height that its labels speak of. If only the picture as stored has it, EXIF is not applied.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        DataError: the file is missing, unreadable, or has another size.
    """
    image = load_image(path)
    if image is None:
        raise DataError(f"{path}: cannot be read as a picture; run: edge data URI, to list all such files")
    if size is not None and (image.shape[1], image.shape[0]) != size:
        image = load_image(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None or (image.shape[1], image.shape[0]) != size:
            raise DataError(f"{path}: expected a picture of {size[0]}x{size[1]}, found another; the file was changed")
    return image


def read_mask(path: Path) -> UInt8:
    """Decode an (H, W) uint8 mask of class ids.

    Raises:
        DataError: the file is missing, unreadable, or has colours instead of ids.
    """
    mask = load_image(path, cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise DataError(f"{path}: cannot be read as a mask")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise DataError(
            f"{path}: expected a mask of 8-bit class ids with one channel, found {mask.dtype} of shape {mask.shape}; "
            "convert colours to class ids first"
        )
    return mask


def _ends_with(file: BinaryIO, mark: bytes) -> bool:
    """Whether the end mark stands near the end (some cameras append a few bytes); leaves the position at byte 2."""
    file.seek(0, 2)
    file.seek(max(0, file.tell() - _TAIL_BYTES))
    found = mark in file.read()
    file.seek(2)
    return found


def _jpeg_size(file: BinaryIO) -> tuple[tuple[int, int] | None, bool]:
    """Walk the segments from byte 2 up to the frame header: size as stored, whether EXIF swaps the sides."""
    turned = False
    while True:
        mark = file.read(4)
        if len(mark) < 4 or mark[0] != 0xFF:
            return None, turned
        if mark[1] == 0xFF:
            # fill byte before a marker
            file.seek(-3, 1)
            continue
        length = struct.unpack(">H", mark[2:])[0]
        body = file.read(length - 2)
        if mark[1] in _SOF:
            if len(body) < 5:
                return None, turned
            height, width = struct.unpack(">HH", body[1:5])
            return (width, height), turned
        if mark[1] == 0xE1 and body[:6] == b"Exif\0\0":
            turned = turned or _orientation(body[6:]) >= 5


def _orientation(tiff: bytes) -> int:
    """The orientation tag of an EXIF block; 5 to 8 swap width and height (TIFF 6.0, tag 274)."""
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        start = struct.unpack_from(order + "I", tiff, 4)[0]
        count = struct.unpack_from(order + "H", tiff, start)[0]
        for number in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * number)
            if tag == 274:
                return int(value)
    except struct.error:
        return 1
    return 1
