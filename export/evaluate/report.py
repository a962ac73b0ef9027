"""What judging a model gave: the same report for detectors, segmenters and classifiers. C classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.types import Float64, Int64
from export.evaluate.bootstrap import Redrawn, intervals

# the metric that a task is judged by
MAIN_METRIC = {"detect": "map", "segment": "miou", "classify": "top1"}
# what a model is for that gives more than boxes
BESIDE_BOXES = ("mask_map", "keypoint_map", "oriented_map")


@dataclass(frozen=True, slots=True)
class Report:
    """Accuracy of one model on one data set.

    Attributes:
        dataset: its name.
        dataset_sha256: its fingerprint.
        task: ``detect``, ``segment`` or ``classify``.
        metrics: ``map``, ``map50``, ``map75``, ``map_small`` …; with masks ``mask_map`` …, with key points
            ``keypoint_map`` …, with oriented boxes ``oriented_map`` …; ``miou``, ``pixel_accuracy``; ``top1`` ….
        per_class: class name → metric → value. NaN never occurs: what cannot be measured is left out.
        classes: names of the rows and columns of ``confusion``.
        confusion: (R, R) counts, truth by prediction; detection adds a last row and column for "nothing".
        curves: class name → (101,) precision at recall 0, 0.01 … 1, IoU 0.5; detection only.
        num_images: pictures judged.
        seconds: time spent in the model, its pre- and postprocessing included.
        only_model, only_data: class names that the other side does not have; they were not judged.
        redrawn: the main metrics with each of the ``num_drawn`` judged pictures counted so often; for intervals.
    """

    dataset: str
    dataset_sha256: str
    task: str
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    classes: tuple[str, ...]
    confusion: Int64
    num_images: int
    seconds: float
    curves: Mapping[str, Float64] = field(default_factory=dict)
    only_model: tuple[str, ...] = ()
    only_data: tuple[str, ...] = ()
    redrawn: Redrawn | None = None
    num_drawn: int = 0

    @property
    def main_metric(self) -> str:
        """The one figure by which models are compared: of what a model says next to its boxes, where it says that."""
        return next((name for name in BESIDE_BOXES if name in self.metrics), MAIN_METRIC[self.task])

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Main metrics → edges between which they lie with 95 % confidence, by drawing the pictures again."""
        return intervals(self.redrawn, self.num_drawn) if self.redrawn and self.num_drawn > 1 else {}

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; curves are left out."""
        return {
            "dataset": self.dataset,
            "dataset_sha256": self.dataset_sha256,
            "task": self.task,
            "num_images": self.num_images,
            "seconds": round(self.seconds, 3),
            "metrics": _rounded(self.metrics),
            "intervals95": {name: [round(edge, 6) for edge in edges] for name, edges in self.intervals().items()},
            "per_class": {name: _rounded(values) for name, values in self.per_class.items()},
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
            "only_model": list(self.only_model),
            "only_data": list(self.only_data),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"


def share(part: NDArray[Any], whole: NDArray[Any]) -> Float64:
    """``part / whole``, NaN where the whole is 0."""
    out = np.full(np.shape(part), np.nan)
    ratio: Float64 = np.divide(part, whole, out=out, where=np.asarray(whole) > 0)
    return ratio


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Only what could be measured."""
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}
