"""Rare classes: how often each occurs, and how much more it should count. C classes, I images."""

from __future__ import annotations

import numpy as np

from edge.types import Float32, Float64
from export.data.sample import IGNORE_LABEL, Dataset

# a class in fewer images than this share is drawn more often (LVIS, Gupta et al. 2019, uses 0.001 for 1203 classes)
RARE_SHARE = 0.3
COUNTED_MASKS = 500


def class_counts(dataset: Dataset) -> Float32:
    """(C,) pixels per class of a segmentation set (of its first 500 masks), or pictures per class."""
    counts = np.zeros(len(dataset.classes), np.float64)
    for index in range(min(len(dataset), COUNTED_MASKS) if dataset.task == "segment" else len(dataset)):
        sample = dataset[index]
        if sample.mask is not None:
            labels = sample.mask[sample.mask != IGNORE_LABEL]
            counts += np.bincount(labels.ravel(), minlength=len(counts))[: len(counts)]
        elif sample.label is not None:
            counts[sample.label] += 1
    return counts.astype(np.float32)


def draw_weights(dataset: Dataset) -> Float64:
    """(I,) how often each picture of a detection set is drawn: repeat factors of LVIS (Gupta et al. 2019).

    A class in a share f of all pictures asks for a factor ``max(1, sqrt(t / f))``; a picture gets its classes' largest.
    """
    present = np.zeros((len(dataset), len(dataset.classes)), np.bool_)
    for index in range(len(dataset)):
        sample = dataset[index]
        present[index, sample.labels[~sample.ignore]] = True
    share = np.maximum(present.mean(0), 1.0 / max(1, len(dataset)))
    factor = np.maximum(1.0, np.sqrt(RARE_SHARE / share))
    weights: Float64 = np.where(present, factor, 1.0).max(1)
    return weights
