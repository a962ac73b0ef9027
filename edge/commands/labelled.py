"""Data sets with labels for the task of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge.errors import UsageError

if TYPE_CHECKING:
    from export.data.sample import Dataset


def labelled(model: Path, data: str, on_error: Literal["refuse", "skip"], limit: int = 0) -> Dataset:
    """The data set as a model of this task needs it; the first ``limit`` pictures, 0 for all.

    Raises:
        UsageError: no labelled pictures say how good such a model is.
    """
    from edge.model import find_manifest
    from export.data.open_data import first, open_dataset

    task = find_manifest(model).task
    if task == "embed":
        raise UsageError(f"{model}: an embedding model has no accuracy on labelled pictures; judge its tracker instead")
    dataset = open_dataset(data, task, on_error=on_error)
    return first(dataset, limit) if limit else dataset
