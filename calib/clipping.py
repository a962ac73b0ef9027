"""From a histogram to the range that INT8 keeps: five ways to choose what to clip."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np

from calib.observers import HALF, TensorObserver
from edge.types import Float64, Int64

Method: TypeAlias = Literal["minmax", "average", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
NUM_LEVELS = 128
PERCENTILE = 99.99
NUM_CANDIDATES = 100


def clip_range(observer: TensorObserver, method: Method, percentile: float = PERCENTILE) -> tuple[float, float]:
    """The (low, high) that quantization must cover; always contains 0.

    Args:
        observer: of one tensor, at least one frame.
        method: ``minmax`` all values; ``average`` the mean over frames of each frame's extremes (one odd frame moves
            it little); ``percentile`` all but the outermost values; ``entropy`` least Kullback-Leibler divergence
            (S. Migacz, 8-bit inference with TensorRT, GTC 2017); ``mse`` least squared error.
        percentile: share in percent that stays inside, ``percentile`` only.

    Raises:
        ValueError: nothing was observed.
    """
    if observer.frames == 0:
        raise ValueError("no values were observed")
    match method:
        case "minmax":
            low, high = observer.low, observer.high
        case "average":
            low, high = observer.low_sum / observer.frames, observer.high_sum / observer.frames
        case "percentile":
            low, high = _percentile_range(observer, percentile)
        case "entropy":
            low, high = _cut(observer, _entropy_threshold(observer.magnitudes) * 2.0**observer.exponent / HALF)
        case "mse":
            low, high = _cut(observer, _mse_threshold(observer))
    return min(low, 0.0), max(high, 0.0)


def _cut(observer: TensorObserver, threshold: float) -> tuple[float, float]:
    return max(observer.low, -threshold), min(observer.high, threshold)


def _percentile_range(observer: TensorObserver, percentile: float) -> tuple[float, float]:
    total = np.cumsum(observer.bins)
    outside = (1 - percentile / 100) * total[-1]
    width = 2.0 ** (observer.exponent + 1) / len(observer.bins)
    first = int(np.searchsorted(total, outside, side="right"))
    last = int(np.searchsorted(total, total[-1] - outside, side="left"))
    low, high = (first - HALF) * width, (last + 1 - HALF) * width
    return max(low, observer.low), min(high, observer.high)


def _mse_threshold(observer: TensorObserver) -> float:
    """The clip point with the least mean squared error of symmetric 8-bit rounding, over the bins' centres."""
    peak = max(abs(observer.low), abs(observer.high))
    if peak == 0:
        return 0.0
    used = observer.bins > 0
    values, counts = observer.centres[used], observer.bins[used].astype(np.float64)
    thresholds = peak * np.linspace(1.0, 0.1, NUM_CANDIDATES)
    steps = thresholds / (NUM_LEVELS - 1)
    errors = [_rounding_error(values, counts, step) for step in steps]
    return float(thresholds[int(np.argmin(errors))])


def _rounding_error(values: Float64, counts: Float64, step: float) -> float:
    codes = np.clip(np.round(values / step), -NUM_LEVELS, NUM_LEVELS - 1)
    return float(counts @ np.square(values - codes * step))


def _entropy_threshold(magnitudes: Int64) -> float:
    """How many of the (2048,) magnitude bins to keep, by least Kullback-Leibler divergence."""
    counts = magnitudes.astype(np.float64)
    # what is exactly or nearly 0 is representable at any scale; left in, ReLU's zeros would drown everything else
    counts[0] = counts[1]
    used = np.flatnonzero(counts)
    if used.size == 0:
        return float(len(counts))
    last = int(used[-1]) + 1
    if last <= NUM_LEVELS:
        return float(last)
    candidates = range(NUM_LEVELS, last + 1, 8)
    divergences = [_divergence(counts, size) for size in candidates]
    best = candidates[int(np.argmin(divergences))]
    return float(best if best + 8 <= last else last)


def _divergence(counts: Float64, size: int) -> float:
    """KL divergence between the clipped distribution of ``size`` bins and its 128-level version."""
    kept = counts[:size]
    clipped = kept.copy()
    clipped[-1] += counts[size:].sum()
    level = np.arange(size) * NUM_LEVELS // size
    filled = kept > 0
    mass = np.bincount(level, kept, NUM_LEVELS)
    members = np.bincount(level, filled, NUM_LEVELS)
    coarse = np.where(filled, (mass / np.maximum(members, 1))[level], 0.0)
    p, q = clipped / clipped.sum(), coarse / max(coarse.sum(), 1e-30)
    both = p > 0
    # a bin that only clipping fills has q = 0: a small floor keeps the penalty finite
    return float(np.sum(p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))))
