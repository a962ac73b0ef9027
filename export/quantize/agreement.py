"""How alike a float model and its smaller forms see the same pictures, which can be asked where nothing is labelled.

A share as a model swap measures it (``edge.pipeline.swap.agreement``): of objects F1, of class maps the cells, of
whole pictures those with the same first class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from calib.frames import FrameSet
from edge.errors import DataError
from edge.pipeline.swap.agreement import Comparison
from edge.types import Detections, Prediction, UInt8
from export.data.sample import Sample
from export.evaluate.evaluate import Predict

BATCH = 8
NUM_REMEMBERED = 200
NUM_PAIRS = 4


@dataclass(slots=True)
class Reference:
    """What the float model finds in the first pictures of an evaluation; pass it as ``on_sample``."""

    score: float
    seen: list[Prediction] = field(default_factory=list)

    def __call__(self, sample: Sample, prediction: Prediction) -> None:
        if len(self.seen) < NUM_REMEMBERED:
            shown = prediction[prediction.score >= self.score] if isinstance(prediction, Detections) else prediction
            self.seen.append(shown)

    def repeat(self) -> Repeat:
        """An ``on_sample`` for another model's evaluation on the same pictures."""
        return Repeat(iter(self.seen), Comparison(self.score))


@dataclass(slots=True)
class Repeat:
    """Compares an evaluation with an earlier one, picture by picture. Attributes: ``found``, its result."""

    _earlier: Iterator[Prediction]
    found: Comparison

    def __call__(self, sample: Sample, prediction: Prediction) -> None:
        if (earlier := next(self._earlier, None)) is not None:
            self.found.add(earlier, prediction)


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
        found, rows = Comparison(self._score), []
        for number, view in enumerate(self._views(predict)):
            rows.append((found.add(self._float[number], view), number, view))
        rows.sort(key=lambda row: row[:2])
        pairs = tuple((self._frames.picture(at), self._float[at], view) for _, at, view in rows[:NUM_PAIRS])
        return Compared(found.share, pairs)

    def _views(self, predict: Predict) -> Iterator[Prediction]:
        for start in range(0, len(self._frames), BATCH):
            numbers = range(start, min(start + BATCH, len(self._frames)))
            yield from predict([self._frames.picture(number) for number in numbers])
