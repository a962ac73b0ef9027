"""YOLOX (Ge et al. 2021, arXiv 2107.08430): anchor-free, one output (N, A, 5 + C) of raw offsets and sigmoid scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge.heads.candidates import best_class, corners, detections, grid_centres, output_of
from edge.models.manifest import Manifest
from edge.types import Array, Float32, Letterbox, Prediction

STRIDES = (8, 16, 32)


class YoloxHead:
    """Offsets in cells, sizes as logarithms of cells; score = objectness times class."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        strides = manifest.reading.strides or STRIDES
        self._cells, self._strides = grid_centres(manifest.input.width, manifest.input.height, strides)

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        raw = output_of(outputs, self._manifest)
        return [self._decode_one(raw[row], box) for row, box in enumerate(letterboxes)]

    def scores(self, outputs: Mapping[str, Array]) -> Float32:
        """(N, A, 1 + C): objectness, and each class without it."""
        return output_of(outputs, self._manifest)[..., 4:].astype(np.float32, copy=False)

    def _decode_one(self, raw: Float32, box: Letterbox) -> Prediction:
        anchor, class_id, score = best_class(raw[:, 5:], self._manifest.thresholds.track_score, raw[:, 4])
        values, stride = raw[anchor], self._strides[anchor, None]
        centre = (values[:, :2] + self._cells[anchor]) * stride
        # what overflows is no size, and the box is dropped
        with np.errstate(over="ignore"):
            size = np.exp(values[:, 2:4]) * stride
        return detections(corners(np.concatenate([centre, size], 1)), score, class_id, box, self._manifest)
