"""COCO mean average precision of detectors, through pycocotools. N objects, C classes, K judged classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.boxes import area, best_pairs, iou
from edge.types import Detections, Float32, Float64, Int64
from export.data.sample import Sample
from export.evaluate.bootstrap import Redrawn, redrawn_detections
from export.evaluate.coco_eval import known, run_coco, xywh
from export.evaluate.instances import InstanceJudge
from export.evaluate.names import ClassMatch
from export.evaluate.report import finite

# the twelve figures of COCOeval.summarize, in its order
_COCO_STATS = (
    "map", "map50", "map75", "map_small", "map_medium", "map_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
_CONFUSION_SCORE = 0.3
_CONFUSION_IOU = 0.5


@dataclass
class DetectJudge:
    """Gathers truth and detections picture by picture; ``finish`` computes the figures.

    Boxes marked ``ignore`` are treated as COCO crowds: detections on them are neither right nor wrong.
    """

    classes: Sequence[str]
    match: ClassMatch
    truth: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    num_images: int = 0
    confusion: Int64 = field(init=False)
    beside: InstanceJudge = field(init=False)
    redrawn: Redrawn | None = None

    def __post_init__(self) -> None:
        self.beside = InstanceJudge(self.match)
        self.confusion = np.zeros((len(self.match.judged) + 1,) * 2, np.int64)

    def add(self, sample: Sample, found: Detections) -> None:
        """Take one picture."""
        self.num_images += 1
        is_judged = np.isin(sample.labels, self.match.judged)
        labels = self.match.labels(found.class_id)
        # COCOeval takes a box that is no number for a perfect match
        mine = (labels >= 0) & np.isfinite(found.xyxy).all(axis=1) & np.isfinite(found.score)
        self._add_truth(sample.boxes[is_judged], sample.labels[is_judged], sample.ignore[is_judged])
        self._add_found(found.xyxy[mine], labels[mine], found.score[mine])
        self.beside.add(sample, is_judged, found[mine], labels[mine])
        sure = mine & (found.score >= _CONFUSION_SCORE)
        # what is ignored stays among the truth, so that a detection of it is not called a false alarm
        self._count(
            sample.boxes[is_judged], sample.labels[is_judged], sample.ignore[is_judged], found.xyxy[sure], labels[sure]
        )

    def _add_truth(self, boxes: Float32, labels: Any, ignore: Any) -> None:
        for box, size, label, is_ignored in zip(boxes, area(boxes), labels, ignore, strict=True):
            self.truth.append(
                {
                    "id": len(self.truth) + 1,
                    "image_id": self.num_images,
                    "category_id": int(label),
                    "bbox": xywh(box),
                    "area": float(size),
                    "iscrowd": int(is_ignored),
                }
            )

    def _add_found(self, boxes: Float32, labels: Any, scores: Float32) -> None:
        for box, label, score in zip(boxes, labels, scores, strict=True):
            self.found.append(
                {
                    "image_id": self.num_images,
                    "category_id": int(label),
                    "bbox": xywh(box),
                    "score": float(score),
                }
            )

    def _count(self, truth: Float32, labels: Any, ignore: Any, found: Float32, found_labels: Any) -> None:
        """Pair each detection with the truth it covers best, whatever its class, and count the pairs."""
        row_of = {label: row for row, label in enumerate(self.match.judged)}
        nothing = len(self.match.judged)
        pairs = dict(best_pairs(iou(found, truth), _CONFUSION_IOU))
        for number, label in enumerate(found_labels):
            partner = pairs.get(number)
            if partner is None:
                self.confusion[nothing, row_of[int(label)]] += 1
            elif not ignore[partner]:
                self.confusion[row_of[int(labels[partner])], row_of[int(label)]] += 1
        missed = set(np.flatnonzero(~ignore).tolist()) - set(pairs.values())
        for number in missed:
            self.confusion[row_of[int(labels[number])], nothing] += 1

    def finish(self) -> tuple[dict[str, float], dict[str, dict[str, float]], dict[str, Float64]]:
        """Metrics, metrics per class, and precision-recall curves at IoU 0.5."""
        judged = _run_coco(self.truth, self.found, self.num_images, self.match.judged)
        metrics = finite({name: known(value) for name, value in zip(_COCO_STATS, judged.stats, strict=True)})
        metrics |= finite(self.beside.finish())
        self.redrawn = redrawn_detections(judged, self.num_images)
        # (IoU thresholds, recalls, K, area ranges, detection limits): all areas, 100 detections
        precision = judged.eval["precision"][:, :, :, 0, -1]
        recall = judged.eval["recall"][:, :, 0, -1]
        per_class, curves = {}, {}
        for column, label in enumerate(self.match.judged):
            name = self.classes[label]
            values = {"ap": _mean(precision[:, :, column]), "ap50": _mean(precision[0, :, column])}
            values |= {"recall50": known(recall[0, column]), "num_truth": float(self._num_truth(label))}
            per_class[name] = finite(values)
            if (precision[0, :, column] > -1).all():
                curves[name] = np.asarray(precision[0, :, column], np.float64)
        return metrics, per_class, curves

    @property
    def num_drawn(self) -> int:
        """Pictures that can be drawn again."""
        return self.num_images

    def _num_truth(self, label: int) -> int:
        return sum(row["category_id"] == label and not row["iscrowd"] for row in self.truth)


def _run_coco(truth: list[dict[str, Any]], found: list[dict[str, Any]], num_images: int, judged: Sequence[int]) -> Any:
    """A finished ``COCOeval`` of boxes."""
    images = [{"id": number + 1} for number in range(num_images)]
    rows = [{**row, "area": row["bbox"][2] * row["bbox"][3]} for row in found]
    return run_coco("bbox", truth, rows, images, judged)


def _mean(values: Any) -> float:
    present = values[values > -1]
    return float(present.mean()) if present.size else float("nan")
