"""Several data sets as one, their classes matched by name; and the first part of one. N objects."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge.errors import DataError
from edge.types import Int32
from export.data.sample import Dataset, DataTask, Sample


class JoinedDataset:
    """The samples of several data sets, one after the other, with the classes of the first.

    Objects of classes that the first one does not have are left out.

    Raises:
        DataError: their tasks differ, a picture's own class is unknown to the first one, or masks have other classes.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self._parts = parts
        self.task: DataTask = parts[0].task
        self.classes = parts[0].classes
        self.name = " + ".join(part.name for part in parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self._tables = [self._table(part) for part in parts]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("+".join(part.fingerprint for part in self._parts).encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        number = int(np.searchsorted(self._ends, index, side="right"))
        if number == len(self._parts):
            raise IndexError(index)
        part = self._parts[number]
        sample = part[index - int(self._ends[number]) + len(part)]
        # two parts may use the same file names
        image_id = f"{part.name}:{sample.image_id}"
        if sample.label is not None:
            return replace(sample, image_id=image_id, label=int(self._tables[number][sample.label]))
        labels = self._tables[number][sample.labels]
        keep = labels >= 0
        return replace(
            sample,
            image_id=image_id,
            boxes=sample.boxes[keep],
            labels=labels[keep],
            ignore=sample.ignore[keep],
            weight=sample.weight[keep],
            outlines=None if sample.outlines is None else sample.outlines[keep],
        )

    def _table(self, part: Dataset) -> Int32:
        """Class of the first part for each class of this one, -1 for none."""
        if part.task != self.task:
            raise DataError(f"{part.name} has labels for {part.task!r}, {self._parts[0].name} for {self.task!r}")
        unknown = [name for name in part.classes if name not in self.classes]
        if (unknown and part.task == "classify") or (part.task == "segment" and part.classes != self.classes):
            raise DataError(
                f"{part.name} cannot be joined to {self._parts[0].name}: "
                f"expected the classes {', '.join(self.classes)}, found {', '.join(part.classes)}"
            )
        place = {name: number for number, name in enumerate(self.classes)}
        return np.array([place.get(name, -1) for name in part.classes], np.int32)


def first(dataset: Dataset, count: int) -> Dataset:
    """The same data set cut to its first ``count`` samples."""
    return dataset if count >= len(dataset) else _First(dataset, count)


class _First:
    def __init__(self, dataset: Dataset, count: int) -> None:
        self._dataset = dataset
        self._count = count
        self.name = dataset.name
        self.task = dataset.task
        self.classes = dataset.classes
        self.fingerprint = f"{dataset.fingerprint}:{count}"

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        if index >= self._count:
            raise IndexError(index)
        return self._dataset[index]
