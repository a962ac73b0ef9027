"""How alike two models see the same pictures. It needs no labels, so it can be asked where accuracy cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from calib.frames import FrameSet
from edge.boxes import iou
from edge.errors import DataError
from edge.types import Classification, Detections, Prediction, Segmentation, UInt8
from export.data.sample import Sample
from export.evaluate import Predict

SAME_IOU = 0.5
BATCH = 8
NUM_REMEMBERED = 200
NUM_PAIRS = 4


@dataclass(slots=True)
class Agreement:
    """What two models see alike, added up over pictures.

    Objects: F1, twice the pairs of one class that overlap by half, over the objects of both. Class maps: the share of
    cells. Whole pictures: the share with the same first class.

    Args:
        score: objects below it are not shown to users, and not counted.
    """

    score: float
    same: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """0 to 1; 1 where neither sees anything."""
        return self.same / self.total if self.total else 1.0

    def add(self, first: Prediction, second: Prediction) -> float:
        """Count one picture as two models see it; gives its own share back."""
        same, total = self._counts(first, second)
        self.same, self.total = self.same + same, self.total + total
        return same / total if total else 1.0

    def _counts(self, first: Prediction, second: Prediction) -> tuple[int, int]:
        match first, second:
            case Detections(), Detections():
                first, second = first[first.score >= self.score], second[second.score >= self.score]
                return 2 * num_pairs(first, second), len(first) + len(second)
            case Segmentation(), Segmentation():
                return int((first.class_map == second.class_map).sum()), first.class_map.size
            case Classification(), Classification():
                return int(first.score.argmax() == second.score.argmax()), 1
        raise TypeError(f"{type(first).__name__} and {type(second).__name__} cannot be compared")


def num_pairs(first: Detections, second: Detections) -> int:
    """How many objects of one are in the other: one class, overlap of at least a half, the best pairs first."""
    found = 0
    for label in np.intersect1d(first.class_id, second.class_id):
        overlap = iou(first.xyxy[first.class_id == label], second.xyxy[second.class_id == label])
        while overlap.size and overlap.max() >= SAME_IOU:
            row, column = np.unravel_index(overlap.argmax(), overlap.shape)
            overlap[row], overlap[:, column] = 0, 0
            found += 1
    return found


@dataclass(slots=True)
class Reference:
    """What the float model finds in the first pictures of an evaluation; pass it as ``on_sample``."""

    score: float
    seen: list[Prediction] = field(default_factory=list)

    def __call__(self, sample: Sample, prediction: Prediction) -> None:
        if len(self.seen) < NUM_REMEMBERED:
            shown = prediction[prediction.score >= self.score] if isinstance(prediction, Detections) else prediction
            self.seen.append(shown)

    def comparison(self) -> Comparison:
        """An ``on_sample`` for another model's evaluation on the same pictures."""
        return Comparison(iter(self.seen), Agreement(self.score))


@dataclass(slots=True)
class Comparison:
    """Compares an evaluation with an earlier one, picture by picture. Attributes: ``agreement``, its result."""

    _earlier: Iterator[Prediction]
    agreement: Agreement

    def __call__(self, sample: Sample, prediction: Prediction) -> None:
        if (earlier := next(self._earlier, None)) is not None:
            self.agreement.add(earlier, prediction)


@dataclass(frozen=True, slots=True)
class Compared:
    """Footage seen by two models.

    Attributes:
        share: how alike.
        pairs: the pictures in which they differ most, worst first: picture, the float model's view, the other's.
    """

    share: float
    pairs: tuple[tuple[UInt8, Prediction, Prediction], ...]


class Footage:
    """Unlabelled pictures of the place where a model will run, and what the float model finds in them.

    Args:
        frames: the pictures.
        score: from which on objects are shown.
        predict: the float model.

    Raises:
        DataError: it finds no object in any of them, so there is nothing to compare.
    """

    def __init__(self, frames: FrameSet, score: float, predict: Predict) -> None:
        self._frames = frames
        self._score = score
        self._float = list(self._views(predict))
        is_empty = all(isinstance(view, Detections) and not (view.score >= score).any() for view in self._float)
        if is_empty:
            raise DataError(
                f"{frames.origin}: the float model finds nothing in {len(frames)} frames of this footage, so there is "
                f"nothing to compare INT8 with; give footage of what it is to find (score {score:g} and more counts)"
            )

    def compare(self, predict: Predict) -> Compared:
        """How alike another model sees the footage."""
        agreement, rows = Agreement(self._score), []
        for number, view in enumerate(self._views(predict)):
            rows.append((agreement.add(self._float[number], view), number, view))
        rows.sort(key=lambda row: row[:2])
        pairs = tuple((self._frames.picture(at), self._float[at], view) for _, at, view in rows[:NUM_PAIRS])
        return Compared(agreement.share, pairs)

    def _views(self, predict: Predict) -> Iterator[Prediction]:
        for start in range(0, len(self._frames), BATCH):
            numbers = range(start, min(start + BATCH, len(self._frames)))
            yield from predict([self._frames.picture(number) for number in numbers])
