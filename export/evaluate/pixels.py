"""Figures of segmenters and classifiers from one confusion matrix each. C classes, H W picture, h w grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.errors import DataError
from edge.types import Classification, Int64, Segmentation, UInt8
from export.data.sample import Sample
from export.evaluate.bootstrap import Redrawn, redrawn_counts, redrawn_hits
from export.evaluate.names import ClassMatch
from export.evaluate.report import finite, share

Figures = tuple[dict[str, float], dict[str, dict[str, float]]]


@dataclass
class SegmentJudge:
    """Counts pixels of truth by prediction, on the grid of the truth's mask.

    The last column counts pixels that the model gave to a class that the data set does not have.
    """

    classes: Sequence[str]
    match: ClassMatch
    counts: Int64 = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.classes), len(self.classes) + 1), np.int64)
        self._each: list[Int64] = []

    @property
    def redrawn(self) -> Redrawn | None:
        """Of the pictures seen."""
        return redrawn_counts(self._each, self.match.judged) if self._each else None

    @property
    def num_drawn(self) -> int:
        """Pictures that can be drawn again."""
        return len(self._each)

    def add(self, sample: Sample, found: Segmentation) -> None:
        """Take one picture; pixels that are unlabelled, or of a class that the model does not have, do not count."""
        assert sample.mask is not None
        width = len(self.classes) + 1
        table = np.full(256, width - 1, np.int64)
        table[: len(self.match.to_data)] = np.where(self.match.to_data < 0, width - 1, self.match.to_data)
        predicted = table[on_picture(found, sample.mask.shape)]
        counted = np.zeros(256, np.bool_)
        counted[list(self.match.judged)] = True
        inside = counted[sample.mask]
        pairs = sample.mask[inside].astype(np.int64) * width + predicted[inside]
        self._each.append(np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape))
        self.counts += self._each[-1]

    def finish(self) -> Figures:
        """``miou`` over the classes that occur in truth or prediction, and ``pixel_accuracy``."""
        square = self.counts[:, :-1]
        hit, truth, guessed = square.diagonal(), self.counts.sum(axis=1), square.sum(axis=0)
        overlap = share(hit, truth + guessed - hit)
        accuracy = share(hit, truth)
        judged = list(self.match.judged)
        per_class = {
            self.classes[row]: finite(
                {"iou": float(overlap[row]), "accuracy": float(accuracy[row]), "num_pixels": float(truth[row])}
            )
            for row in judged
        }
        present = overlap[judged][np.isfinite(overlap[judged])]
        total = max(1, int(truth.sum()))
        mean = float(present.mean()) if len(present) else 0.0
        return {"miou": mean, "pixel_accuracy": float(hit.sum() / total)}, per_class

    @property
    def confusion(self) -> Int64:
        """(K, K) over the judged classes."""
        judged = list(self.match.judged)
        return self.counts[np.ix_(judged, judged)]


def on_picture(found: Segmentation, shape: tuple[int, ...]) -> UInt8:
    """(H, W) class of each picture pixel: the cell of the class map in which its centre lies."""
    box, (height, width) = found.letterbox, found.class_map.shape
    rows = (np.arange(shape[0]) + 0.5) * (box.frame_height / shape[0]) * box.scale_y + box.pad_y
    columns = (np.arange(shape[1]) + 0.5) * (box.frame_width / shape[1]) * box.scale_x + box.pad_x
    row = np.clip(np.floor(rows), 0, height - 1).astype(np.intp)
    column = np.clip(np.floor(columns), 0, width - 1).astype(np.intp)
    picture: UInt8 = found.class_map[row[:, None], column[None, :]]
    return picture


@dataclass
class ClassifyJudge:
    """Counts pictures of truth by best class; pictures of classes that the model does not have do not count."""

    classes: Sequence[str]
    match: ClassMatch
    counts: Int64 = field(init=False)
    num_judged: int = 0
    num_top5: int = 0

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.classes), len(self.classes)), np.int64)
        self._hits: list[tuple[bool, bool]] = []

    @property
    def redrawn(self) -> Redrawn | None:
        """Of the pictures judged."""
        return redrawn_hits(self._hits) if self._hits else None

    @property
    def num_drawn(self) -> int:
        """Pictures that can be drawn again."""
        return len(self._hits)

    def add(self, sample: Sample, found: Classification) -> None:
        """Take one picture. Only classes that the data set has compete.

        Raises:
            DataError: the model gives fewer scores than it has class names.
        """
        if sample.label not in self.match.judged:
            return
        if len(found.score) < len(self.match.to_data):
            raise DataError(
                f"the model gives {len(found.score)} scores, its manifest names {len(self.match.to_data)} classes"
            )
        competing = np.flatnonzero(self.match.to_data >= 0)
        order = competing[np.argsort(-found.score[competing], kind="stable")]
        best = self.match.to_data[order[:5]]
        self.num_judged += 1
        self.num_top5 += int(sample.label in best)
        self._hits.append((sample.label == int(best[0]), sample.label in best))
        self.counts[sample.label, best[0]] += 1

    def finish(self) -> Figures:
        """``top1`` and ``top5``."""
        total = max(1, self.num_judged)
        recall = share(self.counts.diagonal(), self.counts.sum(axis=1))
        precision = share(self.counts.diagonal(), self.counts.sum(axis=0))
        per_class = {
            self.classes[row]: finite(
                {
                    "top1": float(recall[row]),
                    "precision": float(precision[row]),
                    "num_images": float(self.counts[row].sum()),
                }
            )
            for row in self.match.judged
        }
        return {"top1": float(self.counts.trace() / total), "top5": self.num_top5 / total}, per_class

    @property
    def confusion(self) -> Int64:
        """(K, K) over the judged classes."""
        judged = list(self.match.judged)
        return self.counts[np.ix_(judged, judged)]
