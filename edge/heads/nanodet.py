"""NanoDet (RangiLyu): sides as distributions over distances (GFL, arXiv 2006.04388), and a score per class.

A anchors, C classes, 4 x R bins of the sides left, top, right, bottom.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge.heads.candidates import detections, every_class, grid_centres

if TYPE_CHECKING:
    from edge.models.manifest import Manifest
    from edge.types import Array, Float32, Int64, Letterbox, Prediction

NANODET_STRIDES = (8, 16, 32)
NANODET_PLUS_STRIDES = (8, 16, 32, 64)


class NanodetHead:
    """Reads one class and one distance output per stride (NanoDet), or all in one (NanoDet-Plus)."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        size = manifest.input.width, manifest.input.height
        self._grids = {strides: grid_centres(*size, strides) for strides in (NANODET_STRIDES, NANODET_PLUS_STRIDES)}

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        scores, bins = self._split(outputs)
        return [self._decode_one(scores[row], bins[row], box) for row, box in enumerate(letterboxes)]

    def _split(self, outputs: Mapping[str, Array]) -> tuple[Float32, Float32]:
        num_classes = len(self._manifest.classes)
        if len(outputs) == 1:
            raw = next(iter(outputs.values()))
            return raw[..., :num_classes], raw[..., num_classes:]
        by_stride = sorted(outputs, key=_stride_of)
        scores = [outputs[name] for name in by_stride if outputs[name].shape[-1] == num_classes]
        bins = [outputs[name] for name in by_stride if outputs[name].shape[-1] != num_classes]
        return np.concatenate(scores, 1), np.concatenate(bins, 1)

    def _decode_one(self, scores: Float32, bins: Float32, box: Letterbox) -> Prediction:
        anchor, class_id, score = every_class(scores, self._manifest.thresholds.track_score)
        cells, strides = self._grid_of(len(scores))
        boxes = _boxes(bins, anchor, cells, strides)
        return detections(boxes, score, class_id, box, self._manifest)

    def _grid_of(self, num_anchors: int) -> tuple[Float32, Float32]:
        grids = self._grids.values()
        return next(grid for grid in grids if len(grid[1]) == num_anchors)


def _boxes(bins: Float32, anchor: Int64, cells: Float32, strides: Float32) -> Float32:
    """(K, 4) boxes: the expected distance of each side, in strides, from the cell's centre."""
    num_bins = bins.shape[-1] // 4
    logits = bins[anchor].reshape(len(anchor), 4, num_bins)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    steps = np.arange(num_bins, dtype=np.float32)
    distance = (weights @ steps) / weights.sum(-1) * strides[anchor, None]
    centre = (cells[anchor] + np.float32(0.5)) * strides[anchor, None]
    return np.concatenate([centre - distance[:, :2], centre + distance[:, 2:]], 1)


def _stride_of(name: str) -> int:
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else 0
