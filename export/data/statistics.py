"""What a data set contains, in figures. N objects, C classes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edge.boxes import area
from edge.types import Float64
from export.data.sample import IGNORE_LABEL, Dataset, Sample

_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass
class Statistics:
    """Figures of one data set.

    Attributes:
        name, task, fingerprint: of the data set.
        num_images: pictures.
        num_empty: pictures without any label.
        num_ignored: boxes that are neither learned nor counted.
        widths, heights: quantiles 0, 0.05, 0.5, 0.95, 1 over the pictures, pixels.
        box_sides: the same over the boxes: square root of the area, pixels.
        per_class: class name → objects, pixels or pictures, and the pictures that show it.
    """

    name: str
    task: str
    fingerprint: str
    num_images: int
    num_empty: int = 0
    num_ignored: int = 0
    widths: list[float] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    box_sides: list[float] = field(default_factory=list)
    per_class: dict[str, dict[str, int]] = field(default_factory=dict)


def measure(dataset: Dataset) -> Statistics:
    """Read every sample and count.

    Raises:
        DataError: a picture cannot be decoded.
    """
    counts = np.zeros((len(dataset.classes), 2), np.int64)
    sizes, sides = [], []
    found = Statistics(dataset.name, dataset.task, dataset.fingerprint, len(dataset))
    for index in range(len(dataset)):
        sample = dataset[index]
        sizes.append(sample.image.shape[:2])
        sides.append(np.sqrt(area(sample.boxes)))
        found.num_ignored += int(sample.ignore.sum())
        present = _per_class(sample, len(dataset.classes))
        counts[:, 0] += present
        counts[:, 1] += present > 0
        found.num_empty += not present.any()
    heights, widths = np.array(sizes, np.float64).reshape(-1, 2).T
    found.widths, found.heights = _quantiles(widths), _quantiles(heights)
    found.box_sides = _quantiles(np.concatenate(sides).astype(np.float64) if sides else np.empty(0))
    unit = {"detect": "objects", "segment": "pixels", "classify": "pictures"}[dataset.task]
    found.per_class = {
        name: {unit: int(count), "images": int(shown)}
        for name, (count, shown) in zip(dataset.classes, counts, strict=True)
    }
    return found


def _per_class(sample: Sample, num_classes: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(C,) labels of one picture."""
    if sample.mask is not None:
        labels = sample.mask[sample.mask != IGNORE_LABEL]
    elif sample.label is not None:
        labels = np.array([sample.label])
    else:
        labels = sample.labels[~sample.ignore]
    return np.bincount(labels.ravel(), minlength=num_classes)[:num_classes].astype(np.int64)


def _quantiles(values: Float64) -> list[float]:
    return [round(float(value), 1) for value in np.quantile(values, _QUANTILES)] if len(values) else []
