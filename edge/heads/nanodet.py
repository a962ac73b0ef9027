"""NanoDet (RangiLyu): sides as distributions over distances (GFL, arXiv 2006.04388), and a score per class.

A anchors, C classes, 4 x R bins of the sides left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge.heads.candidates import detections, every_class, grid_centres
from edge.models.manifest import Manifest
from edge.types import Array, Float32, Int64, Letterbox, Prediction

STRIDES: dict[str, tuple[int, ...]] = {
    "nanodet": (8, 16, 32),
    "nanodetplus": (8, 16, 32, 64),
    "picodet": (8, 16, 32, 64),
}
# where an anchor lies in its cell: NanoDet-Plus counts from the corner, NanoDet-m and PicoDet from the middle
MIDDLE: dict[str, float] = {"nanodet": 0.5, "nanodetplus": 0.0, "picodet": 0.5}


class NanodetHead:
    """Reads one class and one distance output per stride (NanoDet, PicoDet), or all in one."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        size = manifest.input.width, manifest.input.height
        self._cells, self._strides = grid_centres(*size, manifest.reading.strides or STRIDES[manifest.head])
        self._cells += np.float32(MIDDLE[manifest.head])

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        scores, bins = self._split(outputs)
        return [self._decode_one(scores[row], bins[row], box) for row, box in enumerate(letterboxes)]

    def scores(self, outputs: Mapping[str, Array]) -> Float32:
        """(N, A, C)."""
        return self._split(outputs)[0]

    def _split(self, outputs: Mapping[str, Array]) -> tuple[Float32, Float32]:
        num_classes = len(self._manifest.classes)
        if len(outputs) == 1:
            raw = next(iter(outputs.values()))
            return raw[..., :num_classes], raw[..., num_classes:]
        # the finer the stride, the more anchors
        by_stride = sorted(outputs, key=lambda name: -outputs[name].shape[1])
        is_score = {name: _is_score(outputs[name], name, num_classes) for name in by_stride}
        scores = [outputs[name] for name in by_stride if is_score[name]]
        bins = [outputs[name] for name in by_stride if not is_score[name]]
        return np.concatenate(scores, 1), np.concatenate(bins, 1)

    def _decode_one(self, scores: Float32, bins: Float32, box: Letterbox) -> Prediction:
        anchor, class_id, score = every_class(scores, self._manifest.thresholds.track_score)
        boxes = _boxes(bins, anchor, self._cells, self._strides)
        return detections(boxes, score, class_id, box, self._manifest)


def _is_score(values: Array, name: str, num_classes: int) -> bool:
    """Of 32 classes the width does not tell; the name does."""
    return values.shape[-1] == num_classes and not name.startswith(("dis", "reg", "bbox"))


def _boxes(bins: Float32, anchor: Int64, cells: Float32, strides: Float32) -> Float32:
    """(K, 4) boxes: the expected distance of each side, in strides, from the anchor."""
    num_bins = bins.shape[-1] // 4
    logits = bins[anchor].reshape(len(anchor), 4, num_bins)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    steps = np.arange(num_bins, dtype=np.float32)
    distance = (weights @ steps) / weights.sum(-1) * strides[anchor, None]
    centre = cells[anchor] * strides[anchor, None]
    return np.concatenate([centre - distance[:, :2], centre + distance[:, 2:]], 1)
