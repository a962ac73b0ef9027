"""How good a model is: on sealed sets with the field's figures, on the site's frames beside another one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.boxes import best_pairs, iou
from edge.model import open_model
from edge.night.choose import SURE
from edge.types import Detections, Prediction
from export.data.sample import Dataset, Sample
from export.evaluate.evaluate import EVAL_SCORE, OnSample, Report, evaluate
from export.night.label import BATCH, read

SAME_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Sight:
    """How two sets of boxes in the same frames meet, whatever their classes, and how often these are the same then.

    Attributes:
        num_seen: boxes of the first. num_met: those that the second has too. num_right: those of the same class.
    """

    num_seen: int = 0
    num_met: int = 0
    num_right: int = 0

    @property
    def met(self) -> float:
        return self.num_met / self.num_seen if self.num_seen else 1.0

    @property
    def right(self) -> float:
        return self.num_right / self.num_met if self.num_met else 1.0

    @property
    def same(self) -> float:
        """Share of the first's boxes that the second has with the same class."""
        return self.num_right / self.num_seen if self.num_seen else 1.0

    def __add__(self, other: Sight) -> Sight:
        return Sight(self.num_seen + other.num_seen, self.num_met + other.num_met, self.num_right + other.num_right)


def compared(first: Detections, second: Detections) -> Sight:
    """What the second says of the boxes of the first; each box has one partner, the same class before the overlap."""
    overlap = iou(first.xyxy, second.xyxy)
    is_same = first.class_id[:, None] == second.class_id[None, :]
    pairs = best_pairs(np.where((overlap >= SAME_IOU) & is_same, overlap + 1, overlap), SAME_IOU)
    return Sight(len(first), len(pairs), sum(bool(is_same[pair]) for pair in pairs))


@dataclass(frozen=True, slots=True)
class Skill:
    """What a model can do on a labelled set.

    Attributes:
        ap50: mean over the classes. right: share of the objects that it found and gave the right class.
        recall: share of all objects found with the right class, at a score of 0.3.
    """

    ap50: float
    right: float
    recall: float

    @classmethod
    def of(cls, report: Report) -> Skill:
        inner = report.confusion[:-1, :-1]
        found, truth = int(inner.sum()), int(report.confusion[:-1].sum())
        hits = int(np.trace(inner))
        return cls(
            round(report.metrics.get("map50", 0.0), 4), hits / found if found else 0.0, hits / truth if truth else 0.0
        )


def skill(path: Path, dataset: Dataset, threads: int, on_sample: OnSample | None = None) -> Skill:
    """Judge a model file on a labelled set. Raises: ModelError, DataError."""
    with closing(open_model(path, engine="ort", threads=threads, score=EVAL_SCORE, max_batch=BATCH)) as model:
        classes = model.manifest.classes
        report = evaluate(model.predict, dataset, classes=classes, batch_size=BATCH, on_sample=on_sample)
    return Skill.of(report)


@dataclass
class Recalls:
    """Counts by camera and class what is found of the truth from a score on; pass it as ``on_sample``.

    Attributes:
        taken: what was found in each picture, surely.
    """

    score: float
    classes: Sequence[str]
    counts: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    taken: dict[str, Detections] = field(default_factory=dict)

    def __call__(self, sample: Sample, prediction: Prediction) -> None:
        assert isinstance(prediction, Detections)
        found = prediction[prediction.score >= self.score]
        self.taken[sample.image_id] = found
        is_counted = ~sample.ignore
        labels = sample.labels[is_counted]
        truth = Detections(sample.boxes[is_counted], np.ones(len(labels), np.float32), labels)
        overlap = iou(truth.xyxy, found.xyxy)
        overlap[truth.class_id[:, None] != found.class_id[None, :]] = 0
        hits = {row for row, _ in best_pairs(overlap, SAME_IOU)}
        camera = sample.image_id.split("/")[-2] if "/" in sample.image_id else ""
        for row, label in enumerate(labels.tolist()):
            count = self.counts[camera, self.classes[label]]
            count[0] += 1
            count[1] += row in hits

    def of(self, camera: str, name: str) -> float:
        truth, hits = self.counts[camera, name]
        return round(hits / truth, 4) if truth else 0.0


def seen(path: Path, frames: Iterable[Path], threads: int, score: float = SURE) -> dict[Path, Detections]:
    """What a model sees from this score on."""
    found: dict[Path, Detections] = {}
    with closing(open_model(path, engine="ort", threads=threads, max_batch=BATCH)) as model:
        for frame in frames:
            prediction = model.predict([read(frame)])[0]
            assert isinstance(prediction, Detections)
            found[frame] = prediction[prediction.score >= score]
    return found


def keeps_sight(before: Mapping[Path, Detections], candidate: Path, threads: int, score: float) -> Sight:
    """What a new model still sees, from its own score on, of what the one that runs sees surely."""
    now = seen(candidate, before, threads, score)
    return sum((compared(found, now[frame]) for frame, found in before.items()), Sight())


def as_json(skills: Mapping[str, Skill]) -> dict[str, Any]:
    """By address of the set."""
    return {
        uri: {"ap50": one.ap50, "right_class": round(one.right, 4), "recall": round(one.recall, 4)}
        for uri, one in skills.items()
    }
