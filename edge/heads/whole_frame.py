"""Heads that judge the whole frame: semantic segmentation, classification, embedding. h w grid, C classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge.errors import EngineError
from edge.heads.candidates import MAX_SCORE, activated, output_of
from edge.models.manifest import Manifest
from edge.types import Array, Classification, Embedding, Float32, Letterbox, Prediction, Segmentation, UInt8


class SemanticHead:
    """A class map (N, h, w) or (N, 1, h, w), or scores (N, C, h, w) or (N, h, w, C) of which the best class is taken.

    With an activation, one score per cell: whether it is the second of two classes.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._num_classes = len(manifest.classes)
        # the least value that is more likely than not
        self._half = {"sigmoid": 0.0, "none": 0.5}.get(manifest.reading.activation or "")

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        class_maps = self._class_maps(output_of(outputs, self._manifest))
        return [Segmentation(class_maps[row], _on_grid(box, class_maps[row])) for row, box in enumerate(letterboxes)]

    def _class_maps(self, raw: Array) -> UInt8:
        if raw.ndim == 4 and 1 in (raw.shape[1], raw.shape[3]):
            raw = raw.squeeze(1 if raw.shape[1] == 1 else 3)
        if raw.ndim == 3:
            return (raw if self._half is None else raw > self._half).astype(np.uint8)
        axis = 1 if raw.shape[1] == self._num_classes else 3
        maps: UInt8 = raw.argmax(axis).astype(np.uint8)
        return maps


class ClassifyHead:
    """Scores (N, C): of the manifest's activation, else probabilities or logits; integers are shares of their sum."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._skip = 1 if manifest.has_background else 0

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        raw = output_of(outputs, self._manifest)
        rows = raw.reshape(len(raw), -1)[: len(letterboxes)]
        return [Classification(self._scores(row)[self._skip :]) for row in rows]

    def _scores(self, row: Array) -> Float32:
        activation = self._manifest.reading.activation
        scores = _probabilities(row) if activation is None else activated(row, activation)
        least, most = float(scores.min()), float(scores.max())
        if not (least >= 1 - MAX_SCORE and most <= MAX_SCORE):
            raise EngineError(
                f"{self._manifest.name}: scores go from {least:.4g} to {most:.4g}, expected 0 to 1; its outputs are "
                "read wrongly; run: edge inspect MODEL --activation none, sigmoid or softmax"
            )
        return np.clip(scores, 0, 1)


class EmbeddingHead:
    """A vector (N, E), brought to length 1 so that the product of two is their cosine similarity."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        raw = output_of(outputs, self._manifest)
        rows = raw.reshape(len(raw), -1)[: len(letterboxes)].astype(np.float32)
        length = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return [Embedding(vector) for vector in rows / length]


def _probabilities(row: Array) -> Float32:
    if np.issubdtype(row.dtype, np.integer):
        shares: Float32 = row.astype(np.float32) / max(1.0, float(row.sum()))
        return shares
    values = row.astype(np.float32)
    if values.min() >= 0 and abs(float(values.sum()) - 1) < 0.02:
        return values
    weights = np.exp(values - values.max())
    softmax: Float32 = weights / weights.sum()
    return softmax


def _on_grid(box: Letterbox, class_map: UInt8) -> Letterbox:
    """The letterbox in cells of the class map instead of model pixels."""
    height, width = class_map.shape
    across, down = width / box.model_width, height / box.model_height
    return replace(
        box,
        scale_x=box.scale_x * across,
        scale_y=box.scale_y * down,
        pad_x=box.pad_x * across,
        pad_y=box.pad_y * down,
        model_width=width,
        model_height=height,
    )
