"""Frames into the model's input tensor: the same code for running, calibrating and judging a model.

Planes of luma and chroma are resized as they are, and the small picture is made BGR: what it costs depends on the
model's size, not on the camera's. Of a picture that is smaller than the model's input, BGR is made first.
Shape letters: B batch, H W frame pixels, h w model pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from edge.models.manifest import InputSpec, Interpolation
from edge.pictures.colour import to_bgr
from edge.pictures.planes import Planes
from edge.types import Array, Float64, Letterbox, UInt8

# sizes of pictures whose place is remembered: cameras have few, hostile ones many
MAX_SIZES = 64


def fit(width: int, height: int, spec: InputSpec) -> Letterbox:
    """Place a frame of this size in the model's input."""
    if spec.resize == "stretch":
        scales = spec.width / width, spec.height / height
        return Letterbox(*scales, 0, 0, width, height, spec.width, spec.height)
    if spec.is_cut:
        return _fit_crop(width, height, spec)
    scale = min(spec.width / width, spec.height / height)
    free_x = spec.width - max(1, round(width * scale))
    free_y = spec.height - max(1, round(height * scale))
    # whole pixels of padding, so that the picture is resized exactly once
    pad = (free_x // 2, free_y // 2) if spec.anchor == "centre" else (0, 0)
    return Letterbox(scale, scale, *pad, width, height, spec.width, spec.height)


def _fit_crop(width: int, height: int, spec: InputSpec) -> Letterbox:
    """The short side as long as the input's divided by ``crop``, and of the rest the middle, as torchvision does.

    Where it is stretched, both sides become so long.
    """
    across, down = int(spec.width / spec.crop) / width, int(spec.height / spec.crop) / height
    if spec.resize == "crop":
        across = down = max(across, down)
    # torchvision cuts the long side to whole pixels
    over_x, over_y = int(width * across + 1e-6) - spec.width, int(height * down + 1e-6) - spec.height
    return Letterbox(across, down, -round(over_x / 2), -round(over_y / 2), width, height, spec.width, spec.height)


class Preprocessor:
    """Fills one tensor with up to ``max_batch`` frames. The tensor is allocated once and reused by the next batch."""

    def __init__(self, spec: InputSpec, max_batch: int) -> None:
        self._spec = spec
        size = (spec.height, spec.width)
        shape = (max_batch, *size, 3) if spec.layout == "nhwc" else (max_batch, 3, *size)
        self._tensor: Array = np.zeros(shape, spec.dtype)
        self._canvas: UInt8 = np.full((*size, 3), spec.pad, np.uint8)
        self._takes_bytes = (spec.dtype, spec.layout, spec.colour) == ("uint8", "nhwc", "bgr")
        self._tables = [_levels(mean, std, spec.dtype) for mean, std in zip(spec.mean, spec.std, strict=True)]
        # how the picture lies in each row, whose padding is written once
        self._boxes: list[Letterbox | None] = [None] * max_batch
        self._known: dict[tuple[int, int], tuple[Letterbox, slice, slice]] = {}
        self._small = _SmallPlanes()

    def images(self, images: Sequence[UInt8 | Planes], *, pad_to: int = 0) -> tuple[Array, list[Letterbox]]:
        """Make the batch of pictures.

        Args:
            images: at most ``max_batch``, (H, W, 3) uint8 BGR or planes.
            pad_to: rows of the tensor if the engine wants a fixed number; what the last ones hold does not matter.

        Returns:
            (B, h, w, 3) or (B, 3, h, w) as the manifest says, a view of this object's memory: valid until the next
            call; and B letterboxes.
        """
        letterboxes = [self.write(image, row) for row, image in enumerate(images)]
        return self._tensor[: max(len(images), pad_to)], letterboxes

    def write(self, image: UInt8 | Planes, row: int) -> Letterbox:
        """Put one picture into one row of the tensor."""
        picture = Planes.of(image)
        box, rows, columns = self._placed(picture.size)
        if self._boxes[row] != box:
            self._fill(row)
            self._boxes[row] = box
        place = self._tensor[row, rows, columns] if self._takes_bytes else self._canvas[rows, columns]
        self._paste(picture, place, box)
        if not self._takes_bytes:
            self._normalise(place, row, rows, columns)
        return box

    def _placed(self, size: tuple[int, int]) -> tuple[Letterbox, slice, slice]:
        """How a picture of this size lies in the model's input, and its rows and columns there."""
        known = self._known.get(size)
        if known is None:
            if len(self._known) >= MAX_SIZES:
                self._known.clear()
            box = fit(*size, self._spec)
            known = self._known[size] = box, *_place(box, self._spec)
        return known

    def _fill(self, row: int) -> None:
        """Pad a whole row."""
        if self._takes_bytes:
            self._tensor[row] = self._spec.pad
            return
        self._canvas[...] = self._spec.pad
        self._normalise(self._canvas, row, slice(None), slice(None))

    def _paste(self, picture: Planes, place: UInt8, box: Letterbox) -> None:
        """Resize a picture into its place (h, w, 3)."""
        spec = self._spec
        height, width = place.shape[:2]
        if spec.is_cut:
            place[...] = _cropped(picture.bgr, box, spec.interpolation)
        elif (
            spec.interpolation == "bilinear" and not picture.is_bgr and picture.width * picture.height > width * height
        ):
            self._small.resize(picture, place)
        elif picture.size == (width, height):
            place[...] = picture.bgr
        elif spec.interpolation == "bilinear":
            cv2.resize(picture.bgr, (width, height), dst=place, interpolation=cv2.INTER_LINEAR)
        else:
            place[...] = resized(picture.bgr, width, height, spec.interpolation)

    def _normalise(self, place: UInt8, row: int, rows: slice, columns: slice) -> None:
        """Write BGR (h, w, 3) to its place in a row, in the channels, layout and numbers that the manifest says."""
        spec, tensor = self._spec, self._tensor[row]
        channels = cv2.split(place)
        for target, channel in enumerate((0, 1, 2) if spec.colour == "bgr" else (2, 1, 0)):
            out = tensor[target, rows, columns] if spec.layout == "nchw" else tensor[rows, columns, target]
            table = self._tables[target]
            out[...] = channels[channel] if table is None else table[channels[channel]]


class _SmallPlanes:
    """Planes at the model's size, in memory that is used again and again."""

    def __init__(self) -> None:
        # of which sizes of picture, chroma and place they are
        self._sizes: tuple[object, ...] = ()
        self._planes: list[UInt8] = []
        self._shown: list[UInt8] = []
        self._merged: UInt8 = np.empty((0, 0, 3), np.uint8)

    def resize(self, picture: Planes, place: UInt8) -> None:
        """Resize planes and write their BGR to ``place`` (h, w, 3)."""
        planes = picture.separate
        sizes = picture.size, planes[1].shape, place.shape
        if self._sizes != sizes:
            self._make(*sizes)
        for plane, small in zip(planes, self._planes, strict=True):
            cv2.resize(plane, small.shape[::-1], dst=small, interpolation=cv2.INTER_LINEAR)
        cv2.merge(self._shown, self._merged)
        cv2.transform(self._merged, to_bgr(picture.form.colour), dst=place)

    def _make(self, size: tuple[int, int], chroma: tuple[int, ...], place: tuple[int, ...]) -> None:
        height, width = place[:2]
        # of odd sides the last chroma sample lies half beyond the picture
        wide, high = (
            round(small * 2 * half / side)
            for small, half, side in zip((width, height), chroma[::-1], size, strict=True)
        )
        self._planes = [np.empty(shape, np.uint8) for shape in ((height, width), (high, wide), (high, wide))]
        self._shown = [small[:height, :width] for small in self._planes]
        self._merged = np.empty((height, width, 3), np.uint8)
        self._sizes = size, chroma, place


def _place(box: Letterbox, spec: InputSpec) -> tuple[slice, slice]:
    """Rows and columns of the model's input in which the picture lies."""
    if spec.is_cut:
        return slice(None), slice(None)
    width = max(1, round(box.frame_width * box.scale_x))
    height = max(1, round(box.frame_height * box.scale_y))
    return slice(int(box.pad_y), int(box.pad_y) + height), slice(int(box.pad_x), int(box.pad_x) + width)


def _levels(mean: float, std: float, dtype: str) -> Array | None:
    """(256,) what each grey level becomes, None where nothing changes."""
    if (mean, std) == (0, 1):
        return None
    levels: Array = ((np.arange(256) - mean) / std).astype(dtype)
    return levels


def _cropped(image: UInt8, box: Letterbox, interpolation: Interpolation) -> UInt8:
    width = max(box.model_width, int(box.frame_width * box.scale_x + 1e-6))
    height = max(box.model_height, int(box.frame_height * box.scale_y + 1e-6))
    left, top = max(0, int(-box.pad_x)), max(0, int(-box.pad_y))
    whole = resized(image, width, height, interpolation)
    return whole[top : top + box.model_height, left : left + box.model_width]


def resized(image: UInt8, width: int, height: int, interpolation: Interpolation) -> UInt8:
    """An (H, W, 3) uint8 picture as (height, width, 3)."""
    if interpolation in ("bilinear", "cubic"):
        method = cv2.INTER_LINEAR if interpolation == "bilinear" else cv2.INTER_CUBIC
        whole: UInt8 = cv2.resize(image, (width, height), interpolation=method).astype(np.uint8, copy=False)
        return whole
    # Pillow rounds to whole grey levels between the two passes, across first
    across = _filtered(np.ascontiguousarray(image.transpose(1, 0, 2)), width, interpolation)
    return _filtered(np.ascontiguousarray(across.transpose(1, 0, 2)), height, interpolation)


def _filtered(image: UInt8, length: int, interpolation: Interpolation) -> UInt8:
    """Resize the first axis of an (H, W, 3) picture."""
    if image.shape[0] == length:
        return image
    if interpolation == "nearest":
        # rounded as torch does, for where a sample lies between two that decides (Pillow's differs there)
        place = ((np.arange(length) + 0.5) * np.float64(np.float32(image.shape[0] / length))).astype(np.float32)
        nearest: UInt8 = image[np.minimum(place.astype(int), image.shape[0] - 1)]
        return nearest
    rows = _weights(image.shape[0], length, interpolation) @ image.reshape(len(image), -1).astype(np.float32)
    levels: UInt8 = np.clip(np.floor(rows + 0.5), 0, 255).astype(np.uint8)
    whole: UInt8 = levels.reshape(length, *image.shape[1:])
    return whole


@lru_cache(maxsize=16)
def _weights(source: int, target: int, interpolation: Interpolation) -> Any:
    """(target, source) sparse weights of Pillow's resampling: a filter as wide as the step, sums of 1."""
    from scipy.sparse import csr_matrix

    step = source / target
    support, kernel = KERNELS[interpolation]
    reach = support * max(step, 1.0)
    centre = (np.arange(target) + 0.5) * step
    first = np.maximum(0, (centre - reach + 0.5).astype(int))
    last = np.minimum(source, (centre + reach + 0.5).astype(int))
    column = first[:, None] + np.arange(int((last - first).max()))
    distance = (column + 0.5 - centre[:, None]) / max(step, 1.0)
    weight = np.where(column < last[:, None], kernel(distance), 0)
    weight /= weight.sum(1, keepdims=True)
    row = np.repeat(np.arange(target), column.shape[1])
    inside = np.minimum(column, source - 1).ravel()
    return csr_matrix((weight.ravel().astype(np.float32), (row, inside)), shape=(target, source))


def _cubic(distance: Float64) -> Float64:
    """Keys' kernel with a = -0.5, Pillow's (OpenCV's has -0.75)."""
    a, distance = -0.5, np.abs(distance)
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * a
    kernel: Float64 = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return kernel


# of Pillow: how far a filter reaches in steps, and its weight at a distance from the middle
KERNELS: dict[Interpolation, tuple[float, Callable[[Float64], Float64]]] = {
    "antialias": (1.0, lambda x: np.maximum(0, 1 - np.abs(x))),
    "antialias-cubic": (2.0, _cubic),
    "antialias-lanczos": (3.0, lambda x: np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0)),
    "antialias-box": (0.5, lambda x: np.where((x > -0.5) & (x <= 0.5), 1.0, 0)),
    "antialias-hamming": (1.0, lambda x: np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)),
}
