"""What calibration remembers of a tensor: a histogram of fixed size that grows by folding and can be merged exactly.

The bins cover [-2^k, 2^k], so two histograms differ by whole foldings; memory does not depend on the number of frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edge.types import Array, Float64, Int64

NUM_BINS = 4096
HALF = NUM_BINS // 2
SAMPLE_LIMIT = 1 << 17
MIN_EXPONENT = -40


@dataclass
class TensorObserver:
    """Statistics of one tensor over all frames seen. One owner; ``observe`` and ``merge`` change it.

    Attributes:
        exponent: the bins cover [-2^exponent, 2^exponent].
        bins: (4096,) counts; values are sampled where a frame has more than 131072 of them.
        zeros: sampled values that are exactly 0 (also counted in ``bins``).
        low, high: smallest and largest value of all, not only of the sample.
        low_sum, high_sum: sums over frames of the frame's smallest and largest value.
        frames: number of frames.
        not_finite: NaN and infinite values.
        shape: of one frame's tensor, batch first.
    """

    exponent: int = MIN_EXPONENT
    bins: Int64 = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))
    zeros: int = 0
    low: float = np.inf
    high: float = -np.inf
    low_sum: float = 0.0
    high_sum: float = 0.0
    frames: int = 0
    not_finite: int = 0
    shape: tuple[int, ...] = ()

    def observe(self, values: Array) -> None:
        """Add one frame's tensor, any shape, any float or integer type."""
        self.shape = tuple(values.shape)
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = np.isfinite(flat)
            self.not_finite += int(flat.size - finite.sum())
            flat = flat[finite]
            if flat.size == 0:
                return
            low, high = float(flat.min()), float(flat.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.low_sum, self.high_sum, self.frames = self.low_sum + low, self.high_sum + high, self.frames + 1
        self._count(flat, max(abs(low), abs(high)))

    def _count(self, flat: Array, peak: float) -> None:
        # an odd step does not lock onto the channel count of channels-last tensors
        step = -(-flat.size // SAMPLE_LIMIT) | 1
        sample = flat[::step] if flat.size > SAMPLE_LIMIT else flat
        self._fold_to(exponent_of(peak))
        width = 2.0 ** (self.exponent + 1) / NUM_BINS
        place = np.clip(np.floor(sample / width).astype(np.int64) + HALF, 0, NUM_BINS - 1)
        self.bins += np.bincount(place, minlength=NUM_BINS)
        self.zeros += int(np.count_nonzero(sample == 0))

    def _fold_to(self, exponent: int) -> None:
        """Widen the bins until they cover [-2^exponent, 2^exponent]."""
        if not self.bins.any():
            self.exponent = max(exponent, self.exponent)
            return
        while self.exponent < exponent:
            pairs = self.bins.reshape(HALF, 2).sum(axis=1)
            self.bins = np.zeros(NUM_BINS, np.int64)
            self.bins[HALF // 2 : HALF // 2 + HALF] = pairs
            self.exponent += 1

    def merge(self, other: TensorObserver) -> TensorObserver:
        """The statistics of both; neither is changed."""
        mine, theirs = self.copy(), other.copy()
        exponent = max(mine.exponent, theirs.exponent)
        mine._fold_to(exponent)
        theirs._fold_to(exponent)
        return TensorObserver(
            exponent=exponent,
            bins=mine.bins + theirs.bins,
            zeros=self.zeros + other.zeros,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            low_sum=self.low_sum + other.low_sum,
            high_sum=self.high_sum + other.high_sum,
            frames=self.frames + other.frames,
            not_finite=self.not_finite + other.not_finite,
            shape=self.shape or other.shape,
        )

    def copy(self) -> TensorObserver:
        return TensorObserver(
            self.exponent,
            self.bins.copy(),
            self.zeros,
            self.low,
            self.high,
            self.low_sum,
            self.high_sum,
            self.frames,
            self.not_finite,
            self.shape,
        )

    @property
    def centres(self) -> Float64:
        """(4096,) middle value of each bin."""
        width = 2.0 ** (self.exponent + 1) / NUM_BINS
        middles: Float64 = ((np.arange(NUM_BINS) - HALF + 0.5) * width).astype(np.float64)
        return middles

    @property
    def magnitudes(self) -> Int64:
        """(2048,) counts of |x|, from 0 to 2^exponent."""
        folded: Int64 = self.bins[HALF:] + self.bins[:HALF][::-1]
        return folded


def exponent_of(peak: float) -> int:
    """The smallest k with ``peak < 2^k`` (at least -40, so that a tensor of zeros has bins too)."""
    if peak <= 0:
        return MIN_EXPONENT
    return max(int(np.frexp(peak)[1]), MIN_EXPONENT)
