"""Detectors whose boxes are shares of the input's size: SSD-like face detectors and DETR-like transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge.heads.candidates import best_class, corners, detections

if TYPE_CHECKING:
    from edge.models.manifest import InputSpec, Manifest
    from edge.types import Array, Float32, Letterbox, Prediction


class SsdHead:
    """Scores (N, A, C) after softmax, the first of them the background; boxes (N, A, 4) ``x1 y1 x2 y2`` in 0..1."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._size = _size(manifest.input)

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        boxes, scores = _boxes_and_scores(outputs)
        first = 1 if self._manifest.has_background else 0
        return [self._decode_one(boxes[row], scores[row, :, first:], box) for row, box in enumerate(letterboxes)]

    def _decode_one(self, boxes: Float32, scores: Float32, box: Letterbox) -> Prediction:
        anchor, class_id, score = best_class(scores, self._manifest.thresholds.track_score)
        return detections(boxes[anchor] * self._size, score, class_id, box, self._manifest)


class DetrHead:
    """Logits (N, Q, C) with one sigmoid per class; boxes (N, Q, 4) ``cx cy w h`` in 0..1 (RT-DETR, D-FINE)."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._size = _size(manifest.input)

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        boxes, logits = _boxes_and_scores(outputs)
        return [self._decode_one(boxes[row], logits[row], box) for row, box in enumerate(letterboxes)]

    def _decode_one(self, boxes: Float32, logits: Float32, box: Letterbox) -> Prediction:
        scores = np.reciprocal(1 + np.exp(-logits.astype(np.float32)))
        anchor, class_id, score = best_class(scores, self._manifest.thresholds.track_score)
        return detections(corners(boxes[anchor]) * self._size, score, class_id, box, self._manifest)


def _size(spec: InputSpec) -> Float32:
    return np.array([spec.width, spec.height] * 2, np.float32)


def _boxes_and_scores(outputs: Mapping[str, Array]) -> tuple[Float32, Float32]:
    first, second = outputs.values()
    named_box = ["box" in name.lower() for name in outputs]
    if named_box == [False, True] or (named_box != [True, False] and second.shape[-1] == 4):
        return second, first
    return first, second
