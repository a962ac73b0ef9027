"""Accuracy of what a detector says next to its boxes: masks and key points as COCO judges them, oriented boxes.

N objects, K key points, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.boxes import oriented_iou
from edge.masks import encode_rle, mask_of
from edge.models.keypoints import sigmas_of
from edge.types import Bool, Detections, Float32, Float64, Int32
from export.data.sample import Sample
from export.evaluate.coco_eval import known, run_coco, xywh
from export.evaluate.names import ClassMatch

# COCO looks at so many detections of a picture, and at so many with key points
MAX_FOUND, MAX_FIGURES = 100, 20
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


@dataclass
class _Pair:
    """Rows of truth and detections. ``is_whole``: whether no picture with objects lacked this kind of label."""

    truth: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    is_whole: bool = True

    @property
    def is_complete(self) -> bool:
        return self.is_whole and bool(self.truth) and bool(self.found)

    def add_truth(self, rows: list[dict[str, Any]] | None) -> None:
        if rows is None:
            self.is_whole = False
            return
        self.truth += [{**row, "id": len(self.truth) + number} for number, row in enumerate(rows, start=1)]


@dataclass
class InstanceJudge:
    """Gathers masks, key points and corners picture by picture; ``finish`` computes the figures.

    A kind is judged where the model gives it and the labels of every picture with objects have it.
    """

    match: ClassMatch
    images: list[dict[str, Any]] = field(default_factory=list)
    masks: _Pair = field(default_factory=_Pair)
    points: _Pair = field(default_factory=_Pair)
    num_points: int = 0
    names: tuple[str, ...] = ()
    oriented: list[_Oriented] = field(default_factory=list)
    is_oriented: bool = True

    def add(self, sample: Sample, is_judged: Bool, found: Detections, labels: Int32) -> None:
        """Take one picture: the truth that is judged, the detections of known classes, and the data set's labels."""
        height, width = sample.image.shape[:2]
        number = len(self.images) + 1
        self.images.append({"id": number, "width": width, "height": height})
        truth = _Truth(sample, is_judged, number)
        self.names = self.names or (sample.outlines.names if sample.outlines is not None else ())
        best = np.argsort(-found.score, kind="stable")[:MAX_FOUND]
        found, labels = found[best], labels[best]
        self.masks.add_truth(truth.masks())
        self.points.add_truth(truth.points())
        if found.masks is not None:
            self.masks.found += list(_found_masks(found, labels, number))
        if found.keypoints is not None:
            self.points.found += list(_found_points(found, labels, number))
            self.num_points = found.keypoints.shape[1]
        self._add_oriented(truth, found, labels)

    def _add_oriented(self, truth: _Truth, found: Detections, labels: Int32) -> None:
        corners = truth.corners()
        if corners is None:
            self.is_oriented = False
        elif self.is_oriented and (found.corners is not None or len(found) == 0):
            mine = np.empty((0, 4, 2), np.float32) if found.corners is None else found.corners
            row = _Oriented(corners, truth.labels, truth.ignore, mine, labels, found.score)
            self.oriented.append(row)
        else:
            self.is_oriented = False

    def finish(self) -> dict[str, float]:
        """``mask_map``, ``mask_map50``, ``mask_map75``, and the same with ``keypoint_`` and ``oriented_``."""
        metrics: dict[str, float] = {}
        if self.masks.is_complete:
            judged = run_coco("segm", self.masks.truth, self.masks.found, self.images, self.match.judged)
            metrics |= _named("mask", judged.stats[:3])
        if self.points.is_complete:
            names = self.names if len(self.names) == self.num_points else ()
            sigmas = np.array(sigmas_of(self.num_points, names))
            rows = (self.points.truth, self.points.found, self.images, self.match.judged)
            metrics |= _named("keypoint", run_coco("keypoints", *rows, sigmas).stats[:3])
        if self.is_oriented and any(len(row.found) for row in self.oriented):
            table = np.array([average_precision(self.oriented, label) for label in self.match.judged])
            shown = table[~np.isnan(table[:, 0])]
            if len(shown):
                metrics |= _named("oriented", [shown.mean(), shown[:, 0].mean(), shown[:, 5].mean()])
        return metrics


class _Truth:
    """The labels of one picture that are judged."""

    def __init__(self, sample: Sample, is_judged: Bool, image_id: int) -> None:
        self.labels, self.ignore = sample.labels[is_judged], sample.ignore[is_judged]
        self._boxes = sample.boxes[is_judged]
        self._outlines = None if sample.outlines is None else sample.outlines[is_judged]
        self._image_id = image_id
        self._size = sample.image.shape[:2]

    def masks(self) -> list[dict[str, Any]] | None:
        """COCO's annotations, None where an object that counts has no mask."""
        shapes = () if self._outlines is None else self._outlines.segmentations
        if len(shapes) != len(self.labels) or any(
            shape is None and not is_ignored for shape, is_ignored in zip(shapes, self.ignore.tolist(), strict=True)
        ):
            return None if len(self.labels) else []
        return [
            {**self._row(number), "segmentation": rle, "area": _area(rle)}
            for number, rle in enumerate(_run_lengths(shape, self._size) for shape in shapes)
        ]

    def points(self) -> list[dict[str, Any]] | None:
        """COCO's annotations, None where the objects have no key points."""
        if self._outlines is None or self._outlines.keypoints is None:
            return None if len(self.labels) else []
        return [
            {
                **self._row(number),
                "keypoints": points.ravel().tolist(),
                "num_keypoints": int((points[:, 2] > 0).sum()),
            }
            for number, points in enumerate(self._outlines.keypoints)
        ]

    def corners(self) -> Float32 | None:
        """(N, 4, 2) outlines of four corners, None where an object has another."""
        shapes = () if self._outlines is None else self._outlines.segmentations
        if len(shapes) != len(self.labels) or not all(
            isinstance(shape, list) and len(shape) == 1 and len(shape[0]) == 8 for shape in shapes
        ):
            return None if len(self.labels) else np.empty((0, 4, 2), np.float32)
        return np.array(shapes, np.float32).reshape(-1, 4, 2)

    def _row(self, number: int) -> dict[str, Any]:
        x, y, width, height = xywh(self._boxes[number])
        return {
            "image_id": self._image_id,
            "category_id": int(self.labels[number]),
            "bbox": [x, y, width, height],
            "area": width * height,
            "iscrowd": int(self.ignore[number]),
        }


def _run_lengths(shape: Any, size: tuple[int, ...]) -> dict[str, Any]:
    """A segmentation of COCO's as compressed run lengths; of None, of nothing."""
    from pycocotools import mask as coco

    height, width = size
    if isinstance(shape, dict):
        rle: dict[str, Any] = coco.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
        return rle
    if not shape:
        return {
            "size": [height, width],
            "counts": encode_rle(np.zeros((0, 0), np.uint8), (0, 0, 0, 0), (width, height)),
        }
    merged: dict[str, Any] = coco.merge(coco.frPyObjects(shape, height, width))
    return merged


def _area(rle: dict[str, Any]) -> float:
    from pycocotools import mask as coco

    return float(coco.area(rle))


def _found_masks(found: Detections, labels: Int32, image_id: int) -> Iterator[dict[str, Any]]:
    assert found.masks is not None
    for row, (label, score) in enumerate(zip(labels.tolist(), found.score.tolist(), strict=True)):
        mask, place = mask_of(found.masks, row)
        rle = {"size": found.masks.size[::-1], "counts": encode_rle(mask, place, found.masks.size)}
        yield {
            "image_id": image_id,
            "category_id": label,
            "bbox": xywh(found.xyxy[row]),
            "segmentation": rle,
            "area": float(mask.sum()),
            "score": score,
        }


def _found_points(found: Detections, labels: Int32, image_id: int) -> Iterator[dict[str, Any]]:
    assert found.keypoints is not None
    for row, (label, score) in enumerate(zip(labels.tolist(), found.score.tolist(), strict=True)):
        x, y, width, height = xywh(found.xyxy[row])
        if row == MAX_FIGURES:
            return
        yield {
            "image_id": image_id,
            "category_id": label,
            "bbox": [x, y, width, height],
            "keypoints": found.keypoints[row].ravel().tolist(),
            "area": width * height,
            "score": score,
        }


@dataclass(frozen=True, slots=True)
class _Oriented:
    """One picture: corners (N, 4, 2), labels and ``ignore`` of the truth; the same, with scores, of what was found."""

    truth: Float32
    labels: Int32
    ignore: Bool
    found: Float32
    found_labels: Int32
    score: Float32


def average_precision(pictures: list[_Oriented], label: int) -> Float64:
    """(10,) average precision of a class at the overlaps 0.5, 0.55 … 0.95, as COCO computes it; NaN without truth."""
    scores: list[Float32] = []
    # (D, 10): 1 right, 0 wrong, -1 neither
    verdicts: list[Float64] = []
    num_truth = 0
    for picture in pictures:
        mine, true = picture.found_labels == label, picture.labels == label
        num_truth += int((true & ~picture.ignore).sum())
        overlap = oriented_iou(picture.found[mine], picture.truth[true])
        scores.append(picture.score[mine])
        verdicts.append(np.stack([_verdicts(overlap, picture.ignore[true], t) for t in IOU_THRESHOLDS], axis=1))
    if num_truth == 0:
        return np.full(len(IOU_THRESHOLDS), np.nan)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    ranked = np.concatenate(verdicts)[order]
    return np.array([_precision(ranked[:, column], num_truth) for column in range(len(IOU_THRESHOLDS))])


def _verdicts(overlap: Float32, ignore: Bool, threshold: float) -> Float64:
    """(D,) of detections that come best first: each takes the truth it covers best that none took before."""
    verdicts = np.zeros(len(overlap))
    free = np.ones(overlap.shape[1], np.bool_)
    for row, shares in enumerate(overlap):
        # what is ignored is taken only where nothing else fits, and by any number
        for choice, verdict in ((free & ~ignore, 1.0), (ignore, -1.0)):
            fits = np.where(choice, shares, -1)
            if len(fits) and fits.max() >= threshold:
                free[fits.argmax()] &= verdict < 0
                verdicts[row] = verdict
                break
    return verdicts


def _precision(verdicts: Float64, num_truth: int) -> float:
    """Mean over 101 recalls of the best precision at that recall or a higher one."""
    counted = verdicts[verdicts >= 0]
    right = np.cumsum(counted)
    if len(right) == 0:
        return 0.0
    precision = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
    place = np.searchsorted(right / num_truth, RECALLS, side="left")
    return float(np.where(place < len(precision), precision[np.minimum(place, len(precision) - 1)], 0).mean())


def _named(kind: str, values: Any) -> dict[str, float]:
    return {f"{kind}_{name}": known(value) for name, value in zip(("map", "map50", "map75"), values, strict=True)}
