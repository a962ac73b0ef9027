"""Detectors with a value of everything in each cell of a feature map: FastestDet, CenterNet. h w cells, C classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from edge.heads.candidates import activated, best_class, corners, detections, output_of
from edge.models.manifest import Manifest
from edge.types import Array, Float32, Letterbox, Prediction

MAX_PEAKS = 100


class FastestDetHead:
    """One output (N, 5 + C, h, w): objectness, x y w h, classes (dog-qiuqiu/FastestDet).

    The centre is tanh from the cell's corner in cells, the size a sigmoid in shares of the picture, and the score
    objectness^0.6 times class^0.4.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        raw = output_of(outputs, self._manifest)
        scores = self.scores(outputs)
        return [self._decode_one(raw[row], scores[row], box) for row, box in enumerate(letterboxes)]

    def scores(self, outputs: Mapping[str, Array]) -> Float32:
        """(N, h w, C)."""
        raw = output_of(outputs, self._manifest).astype(np.float32)
        raw = raw.reshape(*raw.shape[:2], -1).transpose(0, 2, 1)
        # powers of what is outside 0..1 would hide it
        objectness, classes = raw[..., :1], raw[..., 5:]
        is_share = (raw[..., :1] >= 0) & (classes >= 0)
        scores: Float32 = np.where(
            is_share, np.maximum(objectness, 0) ** np.float32(0.6) * np.maximum(classes, 0) ** np.float32(0.4), -1
        )
        return scores

    def _decode_one(self, raw: Array, scores: Float32, box: Letterbox) -> Prediction:
        spec = self._manifest.input
        _, rows, columns = raw.shape
        cell, class_id, score = best_class(scores, self._manifest.thresholds.track_score)
        values = raw.reshape(len(raw), -1)[1:5, cell].T.astype(np.float32)
        corner = np.stack([cell % columns, cell // columns], 1).astype(np.float32)
        centre = (corner + np.tanh(values[:, :2])) * np.array([spec.width / columns, spec.height / rows], np.float32)
        size = activated(values[:, 2:], "sigmoid") * np.array([spec.width, spec.height], np.float32)
        xyxy = corners(np.concatenate([centre, size], 1).astype(np.float32))
        return detections(xyxy, score, class_id, box, self._manifest)


class CenterNetHead:
    """Heat map (N, C, h, w), sizes and offsets (N, 2, h, w) in cells (Zhou et al. 2019, arXiv 1904.07850)."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._activation = manifest.reading.activation or "sigmoid"

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        heat, size, offset = (self._map(outputs, role) for role in ("scores", "boxes", "offsets"))
        heat = activated(heat, self._activation)
        return [self._decode_one(heat[row], size[row], offset[row], box) for row, box in enumerate(letterboxes)]

    def scores(self, outputs: Mapping[str, Array]) -> Float32:
        """The heat map (N, C, h, w)."""
        return activated(self._map(outputs, "scores"), self._activation)

    def _map(self, outputs: Mapping[str, Array], role: str) -> Array:
        return outputs[self._manifest.reading.names[role]]

    def _decode_one(self, heat: Float32, size: Array, offset: Array, box: Letterbox) -> Prediction:
        spec = self._manifest.input
        _, rows, columns = heat.shape
        peaks = np.stack([cv2.dilate(plane, np.ones((3, 3), np.uint8)) == plane for plane in heat])
        score = np.where(peaks, heat, 0).ravel()
        best = np.argsort(-score, kind="stable")[:MAX_PEAKS]
        best = best[score[best] >= max(self._manifest.thresholds.track_score, 1e-9)]
        class_id, y, x = np.unravel_index(best, heat.shape)
        stride = np.array([spec.width / columns, spec.height / rows], np.float32)
        centre = (np.stack([x, y], 1) + offset[:, y, x].T) * stride
        values = np.concatenate([centre, size[:, y, x].T * stride], 1).astype(np.float32)
        return detections(corners(values), score[best], class_id.astype(np.int32), box, self._manifest)
