"""Which of the stored pictures a person looks at: more of those in which something may be wrong, by a known rule.

Shape letters: N units of the population, S strata, n units to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.types import Float64, Int64

# of each stratum at least so many, where it has them: its spread must be known
LEAST = 6


@dataclass(frozen=True, slots=True)
class Drawn:
    """A stratified sample.

    Attributes:
        units: (n,) indices into the population.
        strata: (n,) stratum of each.
        sizes: (S,) units of each stratum.
    """

    units: Int64
    strata: Int64
    sizes: Int64


def strata_of_pictures(seen: Sequence[int] | Int64, doubts: Sequence[int] | Int64) -> tuple[Int64, Float64]:
    """(N,) strata of pictures, and (4,) how much may go wrong in one of each.

    Args:
        seen: objects that the detector sees.
        doubts: objects on which it is unsure, or of another opinion than the teacher.
    """
    have, doubtful = np.asarray(seen), np.asarray(doubts)
    strata = np.where(doubtful >= 2, 3, np.where(doubtful == 1, 2, np.where(have > 0, 1, 0)))
    risk = np.array([0.3, 0.3, 1.0, 1.5])
    for stratum in range(1, 4):
        members = have[strata == stratum]
        risk[stratum] += 0.1 * float(members.mean()) if len(members) else 0.0
    return strata, risk


def strata_of_segments(counted: Sequence[int] | Int64, near: Sequence[int] | Int64) -> tuple[Int64, Float64]:
    """(N,) strata of segments of time at a line, and (3,) how much may go wrong in one of each.

    Args:
        counted: crossings that were reported.
        near: objects that were seen near the line.
    """
    have, close = np.asarray(counted), np.asarray(near)
    return np.where(have > 0, 2, np.where(close > 0, 1, 0)), np.array([0.1, 0.6, 1.0])


def draw(strata: Int64, risk: Float64, num_units: int, rng: np.random.Generator) -> Drawn:
    """Draw about so many units: from each stratum at random, the more the more may go wrong there."""
    sizes = np.bincount(strata, minlength=len(risk))
    units, chosen = [], []
    for stratum, count in enumerate(_allocated(sizes, risk, num_units)):
        members = np.flatnonzero(strata == stratum)
        units.append(np.sort(rng.choice(members, count, replace=False)))
        chosen.append(np.full(count, stratum))
    return Drawn(np.concatenate(units), np.concatenate(chosen), sizes)


def _allocated(sizes: Int64, risk: Float64, num_units: int) -> list[int]:
    """How many of each stratum: in proportion to what may go wrong in it (Neyman 1934), no fewer than ``LEAST``."""
    least = np.minimum(sizes, LEAST)
    left = max(0, num_units - int(least.sum()))
    wanted = sizes * risk
    share = wanted / wanted.sum() if wanted.sum() > 0 else wanted
    return [int(count) for count in np.minimum(sizes, least + np.floor(share * left + 0.5).astype(int))]
