"""Recall and precision from a stratified sample, with an interval that needs no model of the errors.

Shape letters: S strata, n units that were looked at.

The estimate is design-based: each unit counts for as many as it was drawn from (Horvitz and Thompson 1952; combined
ratio estimator and its linearised variance: Cochran, Sampling Techniques, 3rd edition 1977, 6.11; Lohr, Sampling, 2nd
edition 2010, 4.5). Its interval is that of Korn and Graubard (1998, Survey Methodology 24, 193-201): Clopper and
Pearson's, with the effective number of objects in place of the number and a correction for the few degrees of freedom,
which keeps its word near 0 and 1 where the normal interval does not (Franco et al. 2019, Journal of Survey Statistics
and Methodology 7, 334-364).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge.types import Float64, Int64

CONFIDENCE = 0.95
ROUNDING = 1e-9


class Outcome(NamedTuple):
    """What came of one unit: objects that are there and were seen, seen and not there, there and not seen."""

    true: int
    false: int
    missed: int


@dataclass(frozen=True, slots=True)
class Share:
    """An estimated share and its interval. ``value`` is None where nothing was there to be found."""

    value: float | None
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Rounded, as JSON values."""
        return {
            "value": None if self.value is None else round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
        }


NOTHING = Share(None, 0.0, 1.0)


def recall_of(outcomes: Sequence[Outcome], strata: Sequence[int], sizes: Sequence[int]) -> Share:
    """Of what was there, the share that was seen. Args: as ``ratio``; ``sizes`` (S,) units in each stratum."""
    table = _table(outcomes)
    return ratio(table[:, 0], table[:, 0] + table[:, 2], np.asarray(strata), np.asarray(sizes))


def precision_of(outcomes: Sequence[Outcome], strata: Sequence[int], sizes: Sequence[int]) -> Share:
    """Of what was seen, the share that was there. Args: as ``recall_of``."""
    table = _table(outcomes)
    return ratio(table[:, 0], table[:, 0] + table[:, 1], np.asarray(strata), np.asarray(sizes))


def ratio(hits: Float64, total: Float64, strata: Int64, sizes: Int64) -> Share:
    """Estimate sum(hits) / sum(total) over a population.

    Args:
        hits, total: (n,) of each unit that was looked at, hits at most total.
        strata: (n,) which stratum each was drawn from, at random and with equal chances.
        sizes: (S,) units of each stratum in the population.

    Returns:
        The share; its interval covers the truth at about 95 % of all draws.
    """
    counts = np.bincount(strata, minlength=len(sizes))
    weights = np.asarray(sizes, float)[strata] / counts[strata]
    whole = float(weights @ total)
    if whole <= 0:
        return NOTHING
    # what is equal to the last bit in truth need not be in sums
    value = min(1.0, float(weights @ hits) / whole)
    variance = _variance((hits - value * total) / whole, strata, sizes, counts)
    seen = float(total.sum())
    effective = _effective(value, variance, seen)
    # as many independent comparisons as there are units beyond one of each stratum
    freedom = max(1, int((counts > 0).sum() * -1 + len(hits)))
    shrunk = effective * (_student(max(1.0, seen - 1)) / _student(freedom)) ** 2
    low, high = clopper_pearson(value * shrunk, shrunk)
    return Share(value, low, 1.0 if value > 1 - ROUNDING else high)


def clopper_pearson(hits: float, trials: float) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934), of numbers that need not be whole."""
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits <= 0 else float(betaincinv(hits, trials - hits + 1, tail))
    high = 1.0 if hits >= trials else float(betaincinv(hits + 1, trials - hits, 1 - tail))
    return low, high


def _student(freedom: float) -> float:
    """The 97.5th percentile of Student's t."""
    # SciPy takes a quarter of a second to import, which no daemon's start shall wait for
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def _variance(residual: Float64, strata: Int64, sizes: Int64, counts: Int64) -> float:
    """Of a total of residuals, stratum by stratum; the finite population is taken off where all of it was looked at."""
    total = 0.0
    for stratum in np.flatnonzero(counts):
        rows = residual[strata == stratum]
        size, count = float(sizes[stratum]), len(rows)
        # one unit alone says nothing of its spread: its distance from 0 stands for it
        spread = float(rows.var(ddof=1)) if count > 1 else float(rows[0] ** 2)
        total += size**2 * (1 - count / size) * spread / count
    return total


def _effective(value: float, variance: float, seen: float) -> float:
    """As how many independent objects the sample counts: never more than were looked at."""
    if variance <= 0 or value * (1 - value) < ROUNDING:
        # all alike: no spread was seen, which is no proof that there is none
        return seen
    return min(seen, value * (1 - value) / variance)


def _table(outcomes: Sequence[Outcome]) -> Float64:
    return np.array(outcomes, float).reshape(-1, 3)


def domain(outcomes: Sequence[Outcome], strata: Sequence[int], sizes: Sequence[int], inside: Sequence[bool]) -> Share:
    """Recall of a part of the population, such as an hour of the day; all units are given, and which lie inside."""
    table = _table(outcomes) * np.asarray(inside, float)[:, None]
    return ratio(table[:, 0], table[:, 0] + table[:, 2], np.asarray(strata), np.asarray(sizes))


def shares_of(outcomes: Sequence[Outcome], strata: Sequence[int], sizes: Sequence[int]) -> tuple[Share, Share]:
    """Recall and precision."""
    return recall_of(outcomes, strata, sizes), precision_of(outcomes, strata, sizes)
