"""Detectors that list their objects: which boxes there are was chosen in the graph. N batch, K objects.

Our own, and every export with NMS or top-K inside: YOLO26 and YOLOv10, ``nms=True`` of Ultralytics, the official files
of RT-DETR, D-FINE and DEIM, EfficientNMS of TensorRT, TensorFlow's object detection API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge.heads.candidates import boxes_of, detections, output_of
from edge.models.manifest import Manifest
from edge.types import Array, Float32, Letterbox, Prediction

MAX_ROWS = 1 << 30
ROW = "x1 y1 x2 y2 score class"


class TripleHead:
    """Reads ``boxes (N, K, 4)``, ``scores (N, K)`` and ``labels (N, K)``, and the number of true ones where given.

    Scores may stand next to the boxes instead: (N, K, 5), as MMDetection's do.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._columns = manifest.reading.columns or "x1 y1 x2 y2"
        self._unit = manifest.reading.unit or "pixels"
        self._count = manifest.reading.names.get("count")
        place = self._columns.split()
        self._score = place.index("score") if "score" in place else None

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        found: list[Prediction] = []
        boxes, scores, labels = self._batched(outputs)
        for row, box in enumerate(letterboxes):
            score = scores[row].astype(np.float32, copy=False)
            # a mask, not indices: rows of another number than the scores are an error
            kept = score >= self._manifest.thresholds.track_score
            kept[self._num_true(outputs, row) :] = False
            label = np.rint(labels[row][kept]).astype(np.int32) - self._manifest.reading.first_class
            xyxy = boxes_of(boxes[row][kept], self._columns, self._manifest, self._unit)
            found.append(detections(xyxy, score[kept], label, box, self._manifest))
        return found

    def scores(self, outputs: Mapping[str, Array]) -> Float32:
        """All scores, padding included."""
        return self._batched(outputs)[1]

    def labels(self, outputs: Mapping[str, Array]) -> Array:
        """All class numbers as the model gives them."""
        return self._batched(outputs)[2]

    def _batched(self, outputs: Mapping[str, Array]) -> list[Array]:
        boxes, labels = (output_of(outputs, self._manifest, role) for role in ("boxes", "labels"))
        scores = output_of(outputs, self._manifest, "scores") if self._score is None else boxes[..., self._score]
        found = [boxes, scores, labels]
        # torchvision's have no batch
        return [value[None] for value in found] if found[0].ndim == 2 else found

    def _num_true(self, outputs: Mapping[str, Array], row: int) -> int:
        return MAX_ROWS if self._count is None else int(outputs[self._count].reshape(-1)[row])


class EndToEndHead:
    """One output (N, K, M): a row per object, in the order of the manifest's ``columns``; or (K, M) of all frames."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._columns = manifest.reading.columns or ROW
        self._unit = manifest.reading.unit or "pixels"
        place = self._columns.split()
        self._score, self._class = place.index("score"), place.index("class")
        self._batch = place.index("batch") if "batch" in place else None

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        raw = output_of(outputs, self._manifest)
        return [self._decode_one(self._rows(raw, row), box) for row, box in enumerate(letterboxes)]

    def scores(self, outputs: Mapping[str, Array]) -> Float32:
        """All scores, padding included."""
        return output_of(outputs, self._manifest)[..., self._score].astype(np.float32)

    def labels(self, outputs: Mapping[str, Array]) -> Array:
        """All class numbers."""
        return output_of(outputs, self._manifest)[..., self._class]

    def _rows(self, raw: Array, row: int) -> Array:
        if raw.ndim == 3:
            frame: Array = raw[row]
            return frame
        if self._batch is None:
            return raw
        mine: Array = raw[np.rint(raw[:, self._batch]) == row]
        return mine

    def _decode_one(self, rows: Array, box: Letterbox) -> Prediction:
        manifest = self._manifest
        rows = rows[rows[:, self._score] >= manifest.thresholds.track_score]
        score = rows[:, self._score].astype(np.float32)
        label = np.rint(rows[:, self._class]).astype(np.int32) - manifest.reading.first_class
        return detections(boxes_of(rows, self._columns, manifest, self._unit), score, label, box, manifest)
