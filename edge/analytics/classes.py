"""Class names and filters. N objects, C classes, K filters."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import ConfigError

if TYPE_CHECKING:
    from edge.types import Bool, Int32

UNKNOWN = "unknown"


def class_name(classes: Sequence[str], class_id: int) -> str:
    """The class's name, ``unknown`` for a number that the model does not name."""
    return classes[class_id] if 0 <= class_id < len(classes) else UNKNOWN


class ClassFilters:
    """Several filters, looked up for all objects at once. A filter without names lets everything pass."""

    def __init__(self, filters: Sequence[Sequence[str]], classes: Sequence[str]) -> None:
        self._num = len(classes)
        table = [[not names or name in names for names in filters] for name in classes]
        table.append([not names for names in filters])
        self._table: Bool = np.array(table, np.bool_).reshape(self._num + 1, len(filters))
        self._is_open = bool(self._table.all())

    def passes(self, class_id: Int32) -> Bool:
        """(N, K) whether each object passes each filter; numbers that have no name pass empty filters only."""
        if self._is_open:
            return np.ones((len(class_id), self._table.shape[1]), np.bool_)
        known = np.where((class_id >= 0) & (class_id < self._num), class_id, self._num)
        passed: Bool = self._table[known]
        return passed


def check_classes(names: Sequence[str], classes: Sequence[str], where: str) -> None:
    """See that a filter names classes that the model has.

    Raises:
        ConfigError: it does not.
    """
    for name in names:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"the model has: {', '.join(classes[:10]) or 'none'}"
            raise ConfigError(f"{where}: unknown class '{name}'; {hint}")
