"""A part of a detection data set's classes. N objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge.errors import DataError
from edge.types import Int32
from export.data.entries import Entry, Reading

# of the pictures kept, at most so many show none of the classes: they teach what is background
EMPTY_SHARE = 0.1


def only(reading: Reading, names: Sequence[str]) -> Reading:
    """The same data set with these classes only, in this order.

    Pictures without any of them are kept, spread evenly, until they are a tenth of all.

    Raises:
        DataError: it is no detection data set, or has no such class.
    """
    if reading.task != "detect":
        raise DataError(f"{reading.name}: ?only= chooses classes of boxes, and these are labels to {reading.task}")
    unknown = [name for name in names if name not in reading.classes]
    if unknown or not names:
        raise DataError(
            f"{reading.name}: ?only= names no class {', '.join(unknown) or 'at all'}; "
            f"expected some of {', '.join(reading.classes)}"
        )
    table = np.full(len(reading.classes), -1, np.int32)
    table[[reading.classes.index(name) for name in names]] = np.arange(len(names))
    chosen = [_chosen(entry, table) for entry in reading.entries]
    is_shown = [len(entry.labels) > 0 for entry in chosen]
    num_shown = sum(is_shown)
    most = int(num_shown * EMPTY_SHARE / (1 - EMPTY_SHARE))
    empty = np.flatnonzero(~np.array(is_shown, bool))
    kept = set(empty[:: max(1, -(-len(empty) // max(most, 1)))][:most].tolist())
    entries = [entry for number, entry in enumerate(chosen) if is_shown[number] or number in kept]
    return replace(reading, classes=tuple(names), entries=entries)


def _chosen(entry: Entry, table: Int32) -> Entry:
    """The entry with the labels that have a new number in ``table``; those out of range stay faulty."""
    known = (entry.labels >= 0) & (entry.labels < len(table))
    labels = np.where(known, table[np.where(known, entry.labels, 0)], len(table))
    keep = labels >= 0
    return replace(
        entry,
        boxes=entry.boxes[keep],
        labels=labels[keep].astype(np.int32),
        ignore=entry.ignore[keep],
        weight=entry.weight[keep],
        outlines=None if entry.outlines is None else entry.outlines[keep],
    )
