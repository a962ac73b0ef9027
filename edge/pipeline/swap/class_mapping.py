"""A model whose classes stand in another order, or have other names, made to speak as the one before it.

Shape letters: N objects, h w cells, C classes of the new model, D classes of the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import ModelError
from edge.types import Array, Classification, Detections, Int32, Letterbox, Prediction, Segmentation

if TYPE_CHECKING:
    from edge.interfaces import Head
    from edge.models.manifest import Manifest


class MappedHead:
    """Gives the predictions of another head with the class numbers of the old model."""

    def __init__(self, head: Head, table: Int32, num_classes: int) -> None:
        """Args: the head, (C,) old class of each new one (-1: not shown), number of old classes D."""
        self._head = head
        self._table = table
        self._num_classes = num_classes

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        return [self._mapped(prediction) for prediction in self._head.decode(outputs, letterboxes)]

    def _mapped(self, prediction: Prediction) -> Prediction:
        match prediction:
            case Detections():
                renamed = replace(prediction, class_id=self._table[prediction.class_id])
                return renamed[renamed.class_id >= 0]
            case Segmentation():
                return replace(prediction, class_map=np.maximum(self._table, 0).astype(np.uint8)[prediction.class_map])
            case Classification():
                score = np.zeros(self._num_classes, np.float32)
                shown = self._table >= 0
                np.add.at(score, self._table[shown], prediction.score[shown])
                return Classification(score)
        return prediction


def check_points(old: Manifest, new: Manifest) -> None:
    """See that a new model gives the masks and key points of the one that runs: lines and zones may follow them.

    Raises:
        ModelError: it lacks masks, or has other key points.
    """
    if old.keypoint_names and old.keypoint_names != new.keypoint_names:
        raise ModelError(
            f"the model that runs has the key points {', '.join(old.keypoint_names)[:200]}; the new one has "
            f"{', '.join(new.keypoint_names)[:200] or 'none'}, expected the same in the same order"
        )
    if old.has_masks and not new.has_masks:
        raise ModelError("the model that runs has masks, the new one has none; expected a model with masks")


def mapping_table(old: Sequence[str], new: Sequence[str], renamed: Mapping[str, str]) -> Int32 | None:
    """(C,) old class number of each new class, -1 where it is not shown; None where both have the same classes.

    Args:
        old: class names of the model that runs.
        new: class names of the one that shall take over.
        renamed: new name → old name; an empty old name leaves the class out.

    Raises:
        ModelError: a new class has no place among the old ones, or an old one would never be seen again.
    """
    if not renamed and tuple(old) == tuple(new):
        return None
    places = {name: number for number, name in enumerate(old)}
    wanted = [renamed.get(name, name) for name in new]
    strangers = [name for name, place in zip(new, wanted, strict=True) if place and place not in places]
    if strangers:
        raise ModelError(
            f"class {strangers[0]!r} is not among those of the model that runs ({', '.join(old)[:200]}); "
            f"say which one it is: --class {strangers[0]}=NAME, or --class {strangers[0]}= to leave it out"
        )
    lost = [name for name in old if name not in wanted]
    if lost:
        raise ModelError(f"class {lost[0]!r} of the model that runs would never be seen again: the new one lacks it")
    return np.array([places[place] if place else -1 for place in wanted], np.int32)
