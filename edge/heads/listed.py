"""Detectors that list their objects: which boxes there are was chosen in the graph. N batch, K objects.

Our own, and every export with NMS or top-K inside: YOLO26 and YOLOv10, ``nms=True`` of Ultralytics, the official files
of RT-DETR, D-FINE and DEIM, EfficientNMS of TensorRT, TensorFlow's object detection API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge.heads.candidates import boxes_of, detections, listed, output_of
from edge.models.manifest import Manifest
from edge.types import Array, Float32, Letterbox, Prediction

MAX_ROWS = 1 << 30
ROW = "x1 y1 x2 y2 score class"


class TripleHead:
    """Reads ``boxes (N, K, 4)``, ``scores (N, K)`` and ``labels (N, K)``, and the number of true ones where given.

    Scores may stand next to the boxes instead: (N, K, 5), as MMDetection's do. Some give more for each object: a mask
    over the whole input, (N, K, h, w) shares that a pixel belongs to it, or P key points (N, K, P, 2 or 3).
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._columns = manifest.reading.columns or "x1 y1 x2 y2"
        self._unit = manifest.reading.unit or "pixels"
        self._names = manifest.reading.names
        place = self._columns.split()
        self._score = place.index("score") if "score" in place else None
        self._has_labels = "labels" in self._names or "keypoints" not in self._names
        # nothing but boxes, scores and labels, as our own models give them
        self._is_plain = (self._columns, self._unit) == ("x1 y1 x2 y2", "pixels") and not (
            {"masks", "keypoints"} & set(self._names)
        )

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        found: list[Prediction] = []
        boxes, scores, labels = self._batched(outputs)
        for row, box in enumerate(letterboxes):
            if self._is_plain:
                num = self._num_true(outputs, row)
                plain = listed(boxes[row][:num], scores[row][:num], labels[row][:num], box, self._manifest)
                if plain is not None:
                    found.append(plain)
                    continue
            score = scores[row].astype(np.float32, copy=False)
            # a mask, not indices: rows of another number than the scores are an error
            kept = score >= self._manifest.thresholds.track_score
            kept[self._num_true(outputs, row) :] = False
            label = np.rint(labels[row][kept]).astype(np.int32) - self._manifest.reading.first_class
            xyxy = boxes_of(boxes[row][kept], self._columns, self._manifest, self._unit)
            maps, points = (self._of_objects(outputs, role, row, kept) for role in ("masks", "keypoints"))
            # a map is above zero where its object is
            maps = None if maps is None else maps.astype(np.float32) - np.float32(0.5)
            found.append(detections(xyxy, score[kept], label, box, self._manifest, maps, points))
        return found

    def _of_objects(self, outputs: Mapping[str, Array], role: str, row: int, kept: Array) -> Array | None:
        """Of the kept objects their (K, h, w) maps or (K, P, 2 or 3) points, None where the model gives none."""
        if role not in self._names:
            return None
        values = outputs[self._names[role]]
        if self._has_no_batch(outputs):
            # torchvision's maps have an axis of their own instead
            values = (values[:, 0] if values.ndim == 4 else values)[None]
        chosen: Array = values[row][kept]
        return chosen

    def scores(self, outputs: Mapping[str, Array]) -> Float32:
        """All scores, padding included."""
        return self._batched(outputs)[1]

    def labels(self, outputs: Mapping[str, Array]) -> Array:
        """All class numbers as the model gives them."""
        return self._batched(outputs)[2]

    def _batched(self, outputs: Mapping[str, Array]) -> list[Array]:
        boxes = output_of(outputs, self._manifest, "boxes")
        scores = output_of(outputs, self._manifest, "scores") if self._score is None else boxes[..., self._score]
        # RTMO knows one class and says so nowhere
        labels = output_of(outputs, self._manifest, "labels") if self._has_labels else np.zeros_like(scores)
        found = [boxes, scores, labels]
        return [value[None] for value in found] if self._has_no_batch(outputs) else found

    def _has_no_batch(self, outputs: Mapping[str, Array]) -> bool:
        """As torchvision's."""
        return output_of(outputs, self._manifest, "boxes").ndim == 2

    def _num_true(self, outputs: Mapping[str, Array], row: int) -> int:
        count = self._names.get("count")
        return MAX_ROWS if count is None else int(outputs[count].reshape(-1)[row])


class EndToEndHead:
    """One output (N, K, M): a row per object, in the order of the manifest's ``columns``; or (K, M) of all frames.

    (1, 1, K, M) is that too.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._columns = manifest.reading.columns or ROW
        self._unit = manifest.reading.unit or "pixels"
        place = self._columns.split()
        self._score, self._class = place.index("score"), place.index("class")
        self._batch = place.index("batch") if "batch" in place else None

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        raw = output_of(outputs, self._manifest)
        raw = raw[0, 0] if raw.ndim == 4 else raw
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
