"""A head: one box in the frame, whose score is its brightness. It breaks on pictures of 13 grey levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge.models.manifest import Manifest
from edge.types import Detections, Letterbox, Prediction


class BlockHead:
    def __init__(self, manifest: Manifest) -> None:
        self._classes = manifest.classes

    def decode(self, outputs: Mapping[str, np.ndarray], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        found: list[Prediction] = []
        for mean, box in zip(outputs["mean"][:, 0], letterboxes, strict=False):
            if round(float(mean)) == 13:
                raise ArithmeticError("thirteen")
            width, height = box.frame_width, box.frame_height
            xyxy = np.array([[width / 4, height / 4, width / 2, height / 2]], np.float32)
            score = np.array([0.5 + mean / 512], np.float32)
            found.append(Detections(xyxy, score, np.zeros(1, np.int32)))
        return found
