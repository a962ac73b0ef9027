"""Frames into the model's input tensor: the same code for running, calibrating and judging a model.

Shape letters: B batch, H W frame pixels, h w model pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edge.models.manifest import InputSpec
from edge.types import Array, Letterbox, UInt8


def fit(width: int, height: int, spec: InputSpec) -> Letterbox:
    """Place a frame of this size in the model's input."""
    if spec.resize == "stretch":
        scales = spec.width / width, spec.height / height
        return Letterbox(*scales, 0, 0, width, height, spec.width, spec.height)
    scale = min(spec.width / width, spec.height / height)
    free_x = spec.width - max(1, round(width * scale))
    free_y = spec.height - max(1, round(height * scale))
    # whole pixels of padding, so that the picture is resized exactly once
    pad = (free_x // 2, free_y // 2) if spec.anchor == "centre" else (0, 0)
    return Letterbox(scale, scale, *pad, width, height, spec.width, spec.height)


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

    def images(self, images: Sequence[UInt8], *, pad_to: int = 0) -> tuple[Array, list[Letterbox]]:
        """Make the batch of (H, W, 3) uint8 BGR images.

        Args:
            images: at most ``max_batch``.
            pad_to: rows of the tensor if the engine wants a fixed number; what the last ones hold does not matter.

        Returns:
            (B, h, w, 3) or (B, 3, h, w) as the manifest says, a view of this object's memory: valid until the next
            call; and B letterboxes.
        """
        letterboxes = [self.write(image, row) for row, image in enumerate(images)]
        return self._tensor[: max(len(images), pad_to)], letterboxes

    def write(self, image: UInt8, row: int) -> Letterbox:
        """Put one (H, W, 3) image into one row of the tensor."""
        box = fit(image.shape[1], image.shape[0], self._spec)
        if self._takes_bytes:
            _paste(image, self._tensor[row], box, self._spec.pad)
            return box
        _paste(image, self._canvas, box, self._spec.pad)
        self._normalise(row)
        return box

    def _normalise(self, row: int) -> None:
        spec = self._spec
        channels = (0, 1, 2) if spec.colour == "bgr" else (2, 1, 0)
        for target, channel in enumerate(channels):
            plane = cv2.extractChannel(self._canvas, channel)
            out = self._tensor[row, target] if spec.layout == "nchw" else self._tensor[row, :, :, target]
            table = self._tables[target]
            out[...] = plane if table is None else table[plane]


def _levels(mean: float, std: float, dtype: str) -> Array | None:
    """(256,) what each grey level becomes, None where nothing changes."""
    if (mean, std) == (0, 1):
        return None
    levels: Array = ((np.arange(256) - mean) / std).astype(dtype)
    return levels


def _paste(image: UInt8, target: UInt8, box: Letterbox, pad: int) -> None:
    """Resize an image into its place in ``target`` (h, w, 3) and fill what is left with the padding."""
    width = max(1, round(box.frame_width * box.scale_x))
    height = max(1, round(box.frame_height * box.scale_y))
    left, top = int(box.pad_x), int(box.pad_y)
    right, bottom = left + width, top + height
    target[:top] = pad
    target[bottom:] = pad
    target[top:bottom, :left] = pad
    target[top:bottom, right:] = pad
    place = target[top:bottom, left:right]
    if (image.shape[1], image.shape[0]) == (width, height):
        place[...] = image
        return
    cv2.resize(image, (width, height), dst=place, interpolation=cv2.INTER_LINEAR)
