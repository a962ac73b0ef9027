"""Detectors with boxes in one output and a value per class in another. N batch, A anchors or queries, C classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge.heads.candidates import activated, best_class, boxes_of, detections, every_class
from edge.models.manifest import Activation, Manifest
from edge.types import Array, Float32, Letterbox, Prediction


@dataclass(frozen=True, slots=True)
class Pair:
    """How a family writes boxes and values, unless the manifest says otherwise."""

    columns: str
    unit: str
    activation: Activation


FAMILIES: dict[str, Pair] = {
    # SSD-like face detectors: softmax is in the graph, the background is the first class
    "ssd": Pair("x1 y1 x2 y2", "share", "none"),
    # RT-DETR, D-FINE, RF-DETR: one sigmoid per class; DETR and YOLOS: softmax, and "no object" is the last class
    "detr": Pair("cx cy w h", "share", "sigmoid"),
    # YOLO-NAS, and PP-YOLOE without NMS: decoded in the graph
    "yolonas": Pair("x1 y1 x2 y2", "pixels", "none"),
}


class PairHead:
    """Boxes (N, A, 4) and values (N, A, C), or (N, C, A) as PP-YOLOE has them; of RF-DETR also masks (N, A, h, w)."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        family = FAMILIES[manifest.head]
        self._columns = manifest.reading.columns or family.columns
        self._unit = manifest.reading.unit or family.unit
        self._activation = manifest.reading.activation or family.activation
        background = manifest.reading.background
        self._first = 1 if manifest.has_background or background == "first" else 0
        self._last = -1 if background == "last" else None

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        boxes, _ = self._split(outputs)
        scores = self.scores(outputs)
        maps = outputs.get(self._manifest.reading.names.get("masks", ""))
        return [
            self._decode_one(boxes[row], scores[row], box, None if maps is None else maps[row])
            for row, box in enumerate(letterboxes)
        ]

    def scores(self, outputs: Mapping[str, Array]) -> Float32:
        """(N, A, C) of the classes that are listed."""
        _, values = self._split(outputs)
        return activated(values, self._activation)[..., self._first : self._last]

    def _decode_one(self, boxes: Float32, scores: Float32, box: Letterbox, maps: Array | None) -> Prediction:
        floor = self._manifest.thresholds.track_score
        if self._manifest.head == "detr" and self._activation == "sigmoid":
            # as their authors read them: as many objects as queries, and a query may stand for two classes
            anchor, class_id, score = every_class(scores, floor, most=len(scores))
        else:
            anchor, class_id, score = best_class(scores, floor)
        xyxy = boxes_of(boxes[anchor], self._columns, self._manifest, self._unit)
        own = None if maps is None else maps[anchor]
        return detections(xyxy, score, class_id, box, self._manifest, own)

    def _split(self, outputs: Mapping[str, Array]) -> tuple[Array, Array]:
        names = self._manifest.reading.names
        if {"boxes", "scores"} <= set(names):
            boxes, values = outputs[names["boxes"]], outputs[names["scores"]]
        else:
            boxes, values = _boxes_and_scores(outputs)
        is_turned = values.shape[1] != boxes.shape[1] and values.shape[2] == boxes.shape[1]
        return boxes, values.transpose(0, 2, 1) if is_turned else values


def _boxes_and_scores(outputs: Mapping[str, Array]) -> tuple[Array, Array]:
    first, second = outputs.values()
    named_box = ["box" in name.lower() for name in outputs]
    if named_box == [False, True] or (named_box != [True, False] and second.shape[-1] == 4):
        return second, first
    return first, second
