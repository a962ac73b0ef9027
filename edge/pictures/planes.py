"""A picture as its decoder gives it: planes of luma and chroma, or BGR. BGR of planes is made when somebody asks, once.

Shape letters: H W picture pixels, h w chroma samples: half of them, rounded up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

UInt8: TypeAlias = NDArray[np.uint8]
PlaneFormat: TypeAlias = Literal["bgr", "i420", "nv12"]
Matrix: TypeAlias = Literal["bt601", "bt709", "bt2020"]
# chroma of what has no colour
NEUTRAL = 128
_ROTATIONS = {90: 0, 180: 1, 270: 2}


@dataclass(frozen=True, slots=True)
class Colour:
    """Of planes. Attributes: which matrix made them, and whether luma goes from 0 to 255 instead of from 16 to 235."""

    matrix: Matrix = "bt601"
    is_full: bool = False

    @property
    def black(self) -> int:
        """Luma of black."""
        return 0 if self.is_full else 16


BT601 = Colour()


@dataclass(frozen=True, slots=True)
class PlaneForm:
    """What planes look like in memory.

    Attributes:
        format: ``bgr`` (H, W, 3); ``i420`` luma (H, W), then U and V (h, w); ``nv12`` luma, then pairs (h, w, 2).
        width, height: of the picture in pixels.
        colour: of luma and chroma.
    """

    format: PlaneFormat
    width: int
    height: int
    colour: Colour = BT601

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the planes, in order."""
        return _shapes(self.format, self.width, self.height)

    @property
    def num_bytes(self) -> int:
        return sum(prod(shape) for shape in self.shapes)

    def over(self, memory: UInt8) -> Planes:
        """Planes over ``num_bytes`` of memory, one behind the other."""
        begin, arrays = 0, []
        for shape in self.shapes:
            end = begin + prod(shape)
            arrays.append(memory[begin:end].reshape(shape))
            begin = end
        return Planes(self, arrays)


@lru_cache(maxsize=64)
def _shapes(kind: PlaneFormat, width: int, height: int) -> tuple[tuple[int, ...], ...]:
    size, half = (height, width), (-(-height // 2), -(-width // 2))
    match kind:
        case "bgr":
            return ((*size, 3),)
        case "i420":
            return (size, half, half)
        case "nv12":
            return (size, (*half, 2))


class Planes:
    """A picture. Nobody writes to its arrays once it was given away; any thread may ask for ``bgr``.

    Attributes:
        form: format, size and colour.
        arrays: uint8, of the form's shapes; rows may lie apart.
    """

    __slots__ = ("_bgr", "_convert", "_lock", "arrays", "form")

    def __init__(self, form: PlaneForm, arrays: Sequence[UInt8], convert: Callable[[], UInt8] | None = None) -> None:
        """Args: form, arrays, and what makes a new BGR picture of them where the decoder knows a shorter way."""
        self.form = form
        self.arrays = tuple(arrays)
        self._convert = convert
        self._bgr: UInt8 | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        form = self.form
        return f"Planes({form.format} {form.width}x{form.height} {form.colour.matrix})"

    @property
    def width(self) -> int:
        return self.form.width

    @property
    def height(self) -> int:
        return self.form.height

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.form.width, self.form.height

    @property
    def is_bgr(self) -> bool:
        return self.form.format == "bgr"

    @property
    def bgr(self) -> UInt8:
        """(H, W, 3) uint8 BGR; of planes it is made once, kept, and read-only."""
        if self.is_bgr:
            return self.arrays[0]
        with self._lock:
            if self._bgr is None:
                self._bgr = self._made()
                self._bgr.flags.writeable = False
            return self._bgr

    def bgr_copy(self) -> UInt8:
        """A new (H, W, 3) uint8 BGR picture to draw on; nothing is kept of it."""
        known = self.arrays[0] if self.is_bgr else self._bgr
        return self._made() if known is None else known.copy()

    @property
    def separate(self) -> tuple[UInt8, ...]:
        """Y (H, W), U and V (h, w), for ``nv12`` copied out of their pairs; or BGR, as it is."""
        if self.form.format != "nv12":
            return self.arrays
        luma, pairs = self.arrays
        return luma, np.ascontiguousarray(pairs[..., 0]), np.ascontiguousarray(pairs[..., 1])

    @property
    def luma(self) -> UInt8:
        """(H, W) uint8: how bright it is, as the decoder gives it (``form.colour``); of BGR its grey, made again."""
        if not self.is_bgr:
            return self.arrays[0]
        import cv2

        return np.asarray(cv2.cvtColor(self.arrays[0], cv2.COLOR_BGR2GRAY), np.uint8)

    @property
    def brightness(self) -> tuple[UInt8, UInt8 | None]:
        """(H, W) uint8 at no cost, luma or green, and (256,) the grey level of each value; None where both are one."""
        if self.is_bgr:
            return self.arrays[0][..., 1], None
        return self.arrays[0], None if self.form.colour.is_full else grey_levels(False)

    def freeze(self) -> None:
        """Let nobody write to it any more."""
        for array in self.arrays:
            array.flags.writeable = False

    def copy(self) -> Planes:
        """The same in memory of its own, one plane behind the other."""
        copied = self.form.over(np.empty(self.form.num_bytes, np.uint8))
        copied.take(self)
        return copied

    def take(self, other: Planes) -> None:
        """Copy the pixels of a picture of the same form."""
        for target, source in zip(self.arrays, other.arrays, strict=True):
            np.copyto(target, source)

    def writable(self) -> Planes:
        """Itself where its arrays may be written to, else a copy: a decoder looks at its own pictures again."""
        return self if all(array.flags.writeable for array in self.arrays) else self.copy()

    def cut(self, left: int, top: int, right: int, bottom: int) -> Planes:
        """The part between these pixels, right and bottom exclusive; where its corner is even, without a copy."""
        form = PlaneForm(self.form.format, right - left, bottom - top, self.form.colour)
        first, *chroma = self.arrays
        parts = [_chroma_cut(array, (left, top), form.shapes[1]) for array in chroma]
        return Planes(form, [first[top:bottom, left:right], *parts])

    def even(self) -> Planes:
        """Odd sides one pixel longer, for which the last chroma samples stand too."""
        odd = (self.height % 2, self.width % 2)
        if self.is_bgr or not any(odd):
            return self
        longer = np.pad(self.arrays[0], ((0, odd[0]), (0, odd[1])), "edge")
        return self._like([longer, *self.arrays[1:]])

    def rotated(self, degrees: Literal[90, 180, 270]) -> Planes:
        """Turned clockwise."""
        import cv2

        turned = self._like(
            [np.asarray(cv2.rotate(array, _ROTATIONS[degrees]), np.uint8) for array in self.even().arrays]
        )
        width, height = self.size if degrees == 180 else self.size[::-1]
        # an odd side's longer end comes first where the picture is turned towards it
        left = turned.width - width if degrees != 270 else 0
        top = turned.height - height if degrees != 90 else 0
        return turned if turned.size == (width, height) else turned.cut(left, top, left + width, top + height)

    def resized(self, width: int, height: int) -> Planes:
        """Of another size, every pixel the mean of those that it stands for."""
        import cv2

        form = PlaneForm(self.form.format, width, height, self.form.colour)
        made = [
            np.asarray(cv2.resize(array, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.uint8)
            for array, shape in zip(self.arrays, form.shapes, strict=True)
        ]
        return Planes(form, made)

    @staticmethod
    def of(picture: UInt8 | Planes) -> Planes:
        """Of an (H, W, 3) BGR picture; what is a picture with planes already stays what it is."""
        if isinstance(picture, Planes):
            return picture
        return Planes(PlaneForm("bgr", picture.shape[1], picture.shape[0]), (picture,))

    def _like(self, arrays: Sequence[UInt8]) -> Planes:
        height, width = arrays[0].shape[:2]
        return Planes(PlaneForm(self.form.format, width, height, self.form.colour), arrays)

    def _made(self) -> UInt8:
        if self._convert is not None:
            return self._convert()
        from edge.pictures.frames import bgr_from

        return bgr_from(self)


def _chroma_cut(chroma: UInt8, corner: tuple[int, int], shape: tuple[int, ...]) -> UInt8:
    """Chroma of a part that begins at a pixel: from an odd one on, the means of the two samples that each lies on."""
    (left, top), (height, width) = corner, shape[:2]
    part = chroma
    for axis, (begin, length) in enumerate(((top, height), (left, width))):
        index: list[Any] = [slice(None), slice(None)]
        index[axis] = slice(begin // 2, begin // 2 + length)
        first = part[tuple(index)]
        if begin % 2:
            index[axis] = slice(begin // 2 + 1, begin // 2 + 1 + length)
            part = _mean(first, part[tuple(index)], axis)
        else:
            part = first
    return part


def _mean(first: UInt8, second: UInt8, axis: int) -> UInt8:
    """Of both, the second shifted by one; at the edge, where there is none, the first."""
    import cv2

    if second.shape[axis] < first.shape[axis]:
        second = np.concatenate([second, first.take([-1], axis)], axis)
    return np.asarray(cv2.addWeighted(first, 0.5, second, 0.5, 0), np.uint8)


@lru_cache(maxsize=2)
def grey_levels(is_full: bool) -> Any:
    """(256,) uint8 grey levels in [0, 255] by luma."""
    luma = np.arange(256.0)
    return np.rint(luma if is_full else (luma - 16) * 255 / 219).clip(0, 255).astype(np.uint8)
