"""Our own detectors: decode and top-K are in the graph. N batch, K objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge.heads.candidates import detections

if TYPE_CHECKING:
    from edge.models.manifest import Manifest
    from edge.types import Array, Letterbox, Prediction


class EdgenetHead:
    """Reads ``boxes (N, K, 4)`` model pixels, ``scores (N, K)`` and ``labels (N, K)``."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        found: list[Prediction] = []
        for row, box in enumerate(letterboxes):
            score = outputs["scores"][row]
            keep = score >= self._manifest.thresholds.track_score
            label = outputs["labels"][row][keep].astype(np.int32)
            boxes = outputs["boxes"][row][keep].astype(np.float32)
            found.append(detections(boxes, score[keep].astype(np.float32), label, box, self._manifest))
        return found
