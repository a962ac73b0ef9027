"""Model classes and data-set classes brought together by name. C classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.errors import DataError
from edge.types import Int32

# names of one thing in Pascal VOC, COCO, Open Images and CIFAR, after `_plain`
_SAME_THINGS = (
    ("aeroplane", "airplane"),
    ("motorbike", "motorcycle"),
    ("sofa", "couch"),
    ("tvmonitor", "tv", "television"),
    ("diningtable", "kitchendiningroomtable"),
    ("pottedplant", "houseplant"),
    ("car", "automobile"),
    ("person", "pedestrian", "human"),
    ("bicyclist", "rider", "cyclist"),
    ("cellphone", "mobilephone", "phone"),
    ("donut", "doughnut"),
    ("hairdrier", "hairdryer"),
)
_CANONICAL = {name: names[0] for names in _SAME_THINGS for name in names}


@dataclass(frozen=True, slots=True)
class ClassMatch:
    """Which class of the model is which of the data set.

    Attributes:
        to_data: (C,) int32 data-set class of each model class, -1 where it has none.
        judged: data-set classes that the model knows, in order.
        only_model, only_data: names without a partner.
    """

    to_data: Int32
    judged: tuple[int, ...]
    only_model: tuple[str, ...]
    only_data: tuple[str, ...]

    def labels(self, class_id: Int32) -> Int32:
        """(N,) data-set classes of (N,) model classes; -1 also for ids that the model has no name for."""
        known = (class_id >= 0) & (class_id < len(self.to_data))
        found: Int32 = np.where(known, self.to_data[np.where(known, class_id, 0)], -1).astype(np.int32)
        return found


def match_classes(model: Sequence[str], data: Sequence[str]) -> ClassMatch:
    """Match by name: equal lists one by one, then equal names, then those that are equal except for case, spaces and
    punctuation where that leaves no doubt, then known synonyms.

    Raises:
        DataError: they have no class in common.
    """
    partner = _partners(model, data)
    judged = tuple(sorted(set(partner) - {-1}))
    if not judged:
        raise DataError(
            f"the model and the data set have no class in common: the model knows {_some(model)}; "
            f"the data set has {_some(data)}"
        )
    return ClassMatch(
        to_data=np.array(partner, np.int32),
        judged=judged,
        only_model=tuple(name for name, index in zip(model, partner, strict=True) if index < 0),
        only_data=tuple(name for number, name in enumerate(data) if number not in judged),
    )


def _partners(model: Sequence[str], data: Sequence[str]) -> list[int]:
    """Data-set class of each model class, or -1."""
    if list(model) == list(data):
        return list(range(len(model)))
    exact = {name: number for number, name in reversed(list(enumerate(data)))}
    partner = [exact.get(name, -1) for name in model]
    _fill(partner, _distinct(model), _distinct(data))
    canonical = [[_CANONICAL.get(name, name) for name in _distinct(names)] for names in (model, data)]
    _fill(partner, canonical[0], canonical[1])
    return partner


def _fill(partner: list[int], model: list[str], data: list[str]) -> None:
    """Give each model class without a partner the first free data-set class of its name, in place; "" is no name."""
    free = {name: number for number, name in reversed(list(enumerate(data))) if name and number not in partner}
    for number, name in enumerate(model):
        if partner[number] < 0:
            partner[number] = free.pop(name, -1)


def _distinct(names: Sequence[str]) -> list[str]:
    """The names without case, spaces and punctuation; "" where that makes one of two."""
    plain = [_plain(name) for name in names]
    return [name if plain.count(name) == 1 else "" for name in plain]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
