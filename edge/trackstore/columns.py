"""Columns of whole numbers as few bytes: zigzag, one byte each with an escape for the large ones, then deflate.

Deflate runs with its run-length strategy: neighbouring numbers are differences, whose order tells nothing, so a search
for repeats costs most of the time and gains nothing. Shape letter: N numbers of a column.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import DataError

if TYPE_CHECKING:
    from edge.types import Array, Int64

ESCAPE = 255
_HEAD = struct.Struct("<BBII")
# how numbers lie in their bytes: all zero; one byte, large ones apart; every byte of all of them in turn
_ZERO, _ESCAPED, _PLANES = 0, 1, 2
# beyond this share of large numbers all of them are written in full
MOST_ESCAPED = 0.2
# no block has more rows: a damaged or forged length asks for no memory
MAX_NUMBERS = 16 << 20


def pack(values: Array) -> bytes:
    """The (N,) whole numbers, to be read by ``Unpacker.column``."""
    signed = np.asarray(values, np.int64)
    if not signed.any():
        return _HEAD.pack(_ZERO, 0, len(signed), 0)
    folded = ((signed << 1) ^ (signed >> 63)).view(np.uint64)
    width = (int(folded.max()).bit_length() + 7) // 8
    is_large = folded >= ESCAPE
    if np.count_nonzero(is_large) > MOST_ESCAPED * len(folded):
        mode, raw = _PLANES, _planes(folded, width)
    else:
        mode, raw = _ESCAPED, np.minimum(folded, ESCAPE).astype(np.uint8).tobytes() + _planes(folded[is_large], width)
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_RLE)
    packed = deflate.compress(raw) + deflate.flush()
    return _HEAD.pack(mode, width, len(folded), len(packed)) + packed


def _planes(folded: Array, width: int) -> bytes:
    return np.ascontiguousarray(folded.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width].T).tobytes()


class Unpacker:
    """Reads what ``pack`` gave, one column after the other.

    Args:
        data: columns, one behind the other.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def column(self) -> Int64:
        """The next (N,) int64 numbers.

        Raises:
            DataError: these are no packed columns.
        """
        try:
            mode, width, count, size = _HEAD.unpack_from(self._data, self._at)
            start, self._at = self._at + _HEAD.size, self._at + _HEAD.size + size
            if count > MAX_NUMBERS or not (mode == _ZERO or 1 <= width <= 8) or self._at > len(self._data):
                raise DataError(f"a column of {count} numbers of {width} bytes, expected at most {MAX_NUMBERS} of 8")
            if mode == _ZERO:
                return np.zeros(count, np.int64)
            raw = _inflated(self._data[start : self._at], count * (width + 1))
            return _unfolded(raw, mode, width, count)
        except (struct.error, zlib.error, ValueError, IndexError) as error:
            raise DataError(f"a column cannot be read ({error})") from None


def _inflated(packed: bytes, most: int) -> Array:
    inflate = zlib.decompressobj(-15)
    return np.frombuffer(inflate.decompress(packed, most + 1), np.uint8)


def _unfolded(raw: Array, mode: int, width: int, count: int) -> Int64:
    if mode == _ESCAPED:
        folded = raw[:count].astype(np.uint64)
        is_large = raw[:count] == ESCAPE
        if is_large.any():
            folded[is_large] = _joined(raw[count:], width)
    else:
        folded = _joined(raw, width)
    if len(folded) != count:
        raise ValueError(f"{len(folded)} numbers, expected {count}")
    values: Int64 = (folded >> np.uint64(1)).view(np.int64) ^ -(folded & np.uint64(1)).view(np.int64)
    return values


def _joined(raw: Array, width: int) -> Array:
    planes = np.zeros((len(raw) // width, 8), np.uint8)
    planes[:, :width] = raw.reshape(width, -1).T
    return planes.view("<u8").reshape(-1)
