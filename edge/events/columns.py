"""The facts of many events as columns in memory, in the order of their times: every filter is a pass over arrays.

Shape letters: N events. What is a word (stream, kind, class, …) is kept as its code, 0 where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FIELDS = ("stream", "kind", "class", "zone", "line", "label")
_TYPES: Mapping[str, type] = {
    "time_ns": np.int64,
    "number": np.int64,
    **dict.fromkeys(FIELDS, np.int32),
    "seen": np.bool_,
}
COLUMNS = tuple(_TYPES)
MIN_CAPACITY = 1024
MAX_NS = 2**62
Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are wanted.

    Attributes:
        codes: field → the codes of which it must have one; a field that is not named may be anything.
        start_ns, end_ns: wall clock; the end is not within.
        seen: None: whether they were seen or not.
    """

    codes: Mapping[str, frozenset[int]] = field(default_factory=dict)
    start_ns: int = 0
    end_ns: int = MAX_NS
    seen: bool | None = None


class EventColumns:
    """N events, ordered by time and then by number. Used under its owner's lock."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {name: np.zeros(MIN_CAPACITY, kind) for name, kind in _TYPES.items()}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Take rows of ``COLUMNS``; what comes late finds its place."""
        if not rows:
            return
        table = np.array(rows, np.int64).T
        at = int(np.searchsorted(self["time_ns"], table[0].min(), "right"))
        self._reserve(self._size + len(rows))
        tails = [
            np.concatenate((self[name][at:], column.astype(_TYPES[name])))
            for name, column in zip(COLUMNS, table, strict=True)
        ]
        order = np.lexsort((tails[1], tails[0]))
        for name, tail in zip(COLUMNS, tails, strict=True):
            self._arrays[name][at : at + len(tail)] = tail[order]
        self._size += len(rows)

    def drop_first(self, count: int) -> None:
        """Forget the oldest."""
        for name in COLUMNS:
            kept = self[name][count:].copy()
            self._arrays[name][: len(kept)] = kept
        self._size -= count

    def find(self, wanted: Filter) -> Array:
        """(N,) places of the events that are wanted, ascending."""
        start, mask = self._mask(wanted)
        return np.flatnonzero(mask) + start

    def counts(self, wanted: Filter, name: str) -> dict[int, int]:
        """Code → how many events have it in this field, whatever the filter says about that field."""
        others = {key: codes for key, codes in wanted.codes.items() if key != name}
        start, mask = self._mask(Filter(others, wanted.start_ns, wanted.end_ns, wanted.seen))
        numbers = np.bincount(self[name][start : start + len(mask)][mask])
        return {int(code): int(numbers[code]) for code in np.flatnonzero(numbers)}

    def density(self, places: Array, start_ns: int, end_ns: int, num_buckets: int) -> Array:
        """(num_buckets,) int64: how many of these events lie in each equal part of that time."""
        # in microseconds, so that a product with the number of buckets stays far below 2**63
        offsets = (self["time_ns"][places] - start_ns) // 1000
        span = max(1, (end_ns - start_ns) // 1000)
        buckets = np.clip(offsets * num_buckets // span, 0, num_buckets - 1)
        return np.bincount(buckets, minlength=num_buckets)

    def place_before(self, time_ns: int, number: int) -> int:
        """Where an event of this time and number stands, or would."""
        first = int(np.searchsorted(self["time_ns"], time_ns, "left"))
        last = int(np.searchsorted(self["time_ns"], time_ns, "right"))
        return first + int(np.searchsorted(self["number"][first:last], number, "left"))

    def __getitem__(self, name: str) -> Array:
        """(N,) of one column; a view."""
        return self._arrays[name][: self._size]

    def _mask(self, wanted: Filter) -> tuple[int, Array]:
        """Where the wanted time begins, and (M,) bool of the events within it."""
        start, end = (int(np.searchsorted(self["time_ns"], at)) for at in (wanted.start_ns, wanted.end_ns))
        mask = np.ones(max(0, end - start), np.bool_)
        for name, codes in wanted.codes.items():
            mask &= _is_one_of(self[name][start:end], codes)
        if wanted.seen is not None:
            mask &= self["seen"][start:end] == wanted.seen
        return start, mask

    def _reserve(self, size: int) -> None:
        for name, array in self._arrays.items():
            if size > len(array):
                self._arrays[name] = np.concatenate((array, np.zeros(max(size, len(array)), array.dtype)))


def _is_one_of(column: Array, codes: frozenset[int]) -> Array:
    """(M,) bool; a table of all codes is looked up, which costs the same however many are wanted."""
    table = np.zeros(int(column.max(initial=0)) + 1, np.bool_)
    table[[code for code in codes if 0 <= code < len(table)]] = True
    return table[column]
