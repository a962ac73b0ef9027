"""The YOLOv5 and YOLOv8/11 families: boxes are decoded in the graph as ``cx cy w h`` in model pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge.heads.candidates import best_class, boxes_of, detections, output_of
from edge.models.manifest import Manifest
from edge.types import Array, Float32, Letterbox, Prediction

USUAL = "cx cy w h"


class Yolov8Head:
    """One output (N, 4 + C, A), or (N, A, 4 + C): box rows, then a sigmoid score per class."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        raw = self._upright(outputs)
        return [self._decode_one(raw[row], box) for row, box in enumerate(letterboxes)]

    def scores(self, outputs: Mapping[str, Array]) -> Float32:
        """(N, C, A)."""
        return self._upright(outputs)[:, 4 : 4 + len(self._manifest.classes)].astype(np.float32, copy=False)

    def _upright(self, outputs: Mapping[str, Array]) -> Array:
        raw = output_of(outputs, self._manifest)
        rows = 4 + len(self._manifest.classes)
        return raw.transpose(0, 2, 1) if raw.shape[2] == rows != raw.shape[1] else raw

    def _decode_one(self, raw: Float32, box: Letterbox) -> Prediction:
        classes = 4 + len(self._manifest.classes)
        # rows after the classes are mask coefficients or key points
        anchor, class_id, score = best_class(raw[4:classes].T, self._manifest.thresholds.track_score)
        return detections(_placed(raw[:4].T[anchor], self._manifest), score, class_id, box, self._manifest)


class Yolov5Head:
    """One output (N, A, 5 + C): box, objectness, a sigmoid score per class (YOLOv5, v6, v7, and YOLOX decoded)."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        raw = output_of(outputs, self._manifest)
        return [self._decode_one(raw[row], box) for row, box in enumerate(letterboxes)]

    def scores(self, outputs: Mapping[str, Array]) -> Float32:
        """(N, A, 1 + C): objectness, and each class without it."""
        return output_of(outputs, self._manifest)[..., 4 : 5 + len(self._manifest.classes)].astype(np.float32)

    def _decode_one(self, raw: Float32, box: Letterbox) -> Prediction:
        classes = raw[:, 5 : 5 + len(self._manifest.classes)]
        anchor, class_id, score = best_class(classes, self._manifest.thresholds.track_score, raw[:, 4])
        return detections(_placed(raw[anchor], self._manifest), score, class_id, box, self._manifest)


def _placed(values: Array, manifest: Manifest) -> Float32:
    """(K, 4) corners in model pixels of (K, 4 or more) numbers."""
    return boxes_of(values, manifest.reading.columns or USUAL, manifest, manifest.reading.unit or "pixels")
