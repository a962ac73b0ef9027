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
    """Match by name; case, spaces and punctuation do not count, and known synonyms are the same.

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
    """Data-set class of each model class, or -1: equal names first, then the first synonym of what is left."""
    exact = {_plain(name): number for number, name in enumerate(data)}
    partner = [exact.get(_plain(name), -1) for name in model]
    free = {_canonical(name): number for number, name in reversed(list(enumerate(data))) if number not in partner}
    return [free.pop(_canonical(name), -1) if index < 0 else index for name, index in zip(model, partner, strict=True)]


def _canonical(name: str) -> str:
    plain = _plain(name)
    return _CANONICAL.get(plain, plain)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
