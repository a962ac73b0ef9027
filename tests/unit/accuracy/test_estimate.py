"""The interval of ``edge accuracy`` holds what it says: on a day of the street, seen by the shipped detector."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from effort import examples

from edge.accuracy.estimate import NOTHING, Outcome, clopper_pearson, domain, precision_of, recall_of, shares_of
from edge.accuracy.sample import LEAST, draw, strata_of_pictures, strata_of_segments
from edge.types import Float64, Int64

# made by tests/bench/accuracy_population.py
STREET = json.loads((Path(__file__).parents[2] / "data" / "accuracy_street.json").read_text())
# an eighth where somebody waits: fewer say little of a share
DRAWS = max(125, examples(1000))
PROMISED = 0.93


def pictures() -> tuple[Int64, Float64, Int64]:
    """Strata and risk, and (N, 3) true, false and missed objects of every picture."""
    rows = np.array(STREET["pictures"])
    return (*strata_of_pictures(rows[:, 1], rows[:, 2]), rows[:, 3:6])


def segments() -> tuple[Int64, Float64, Int64]:
    """The same of every five seconds at the line."""
    rows = np.array(STREET["segments"])
    counted, true = rows[:, 1], rows[:, 3]
    right = np.minimum(counted, true)
    return (*strata_of_segments(counted, rows[:, 2]), np.stack([right, counted - right, true - right], axis=1))


def covered(
    population: Callable[[], tuple[Int64, Float64, Int64]], num_units: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of all draws: how often the interval of recall and of precision covers the truth, and their mean widths."""
    strata, risk, outcomes = population()
    true, false, missed = outcomes.sum(axis=0)
    truths = true / (true + missed), true / (true + false)
    rng = np.random.default_rng(1)
    hits, widths = np.zeros(2), np.zeros(2)
    for _ in range(DRAWS):
        drawn = draw(strata, risk, num_units, rng)
        rows = [Outcome(*row) for row in outcomes[drawn.units].tolist()]
        for index, share in enumerate(shares_of(rows, drawn.strata.tolist(), drawn.sizes.tolist())):
            hits[index] += share.low <= truths[index] <= share.high
            widths[index] += share.high - share.low
    hits, widths = hits / DRAWS, widths / DRAWS
    print(f"covered {hits[0]:.3f} {hits[1]:.3f}, width {widths[0]:.3f} {widths[1]:.3f}, of {num_units}")
    return (hits[0], hits[1]), (widths[0], widths[1])


def test_the_interval_of_60_pictures_covers_the_truth() -> None:
    found, widths = covered(pictures, 60)
    assert min(found) >= PROMISED
    # docs/accuracy.md states these
    assert widths[0] < 0.15
    assert widths[1] < 0.10


def test_the_interval_of_a_line_s_count_covers_the_truth() -> None:
    found, _ = covered(segments, 24)
    assert min(found) >= PROMISED


def test_the_estimate_is_where_the_truth_is() -> None:
    strata, risk, outcomes = pictures()
    true, _, missed = outcomes.sum(axis=0)
    rng = np.random.default_rng(2)
    values = []
    for _ in range(300):
        drawn = draw(strata, risk, 60, rng)
        rows = [Outcome(*row) for row in outcomes[drawn.units].tolist()]
        values.append(recall_of(rows, drawn.strata.tolist(), drawn.sizes.tolist()).value or 0.0)
    assert abs(float(np.mean(values)) - true / (true + missed)) < 0.01


def test_who_looks_at_all_of_it_knows_it() -> None:
    """With every unit looked at, only the rounding of the degrees of freedom is left."""
    _, _, outcomes = pictures()
    rows = [Outcome(*row) for row in outcomes.tolist()]
    share = recall_of(rows, [0] * len(rows), [len(rows)])
    true, _, missed = outcomes.sum(axis=0)
    assert share.value == pytest.approx(true / (true + missed))
    assert share.high - share.low < 0.05


def test_nothing_there_says_nothing() -> None:
    assert recall_of([Outcome(0, 2, 0)], [0], [5]) == NOTHING
    assert precision_of([Outcome(0, 0, 3)], [0], [5]) == NOTHING


def test_no_error_seen_is_no_proof_that_there_is_none() -> None:
    share = recall_of([Outcome(1, 0, 0)] * 20, [0] * 20, [1000])
    assert (share.value, share.high) == (1.0, 1.0)
    assert 0.75 < share.low < 0.85
    assert share.low <= clopper_pearson(20, 20)[0] + 1e-9


@pytest.mark.parametrize("size", [7, 126, 999])
def test_all_right_in_every_stratum_is_all_right(size: int) -> None:
    """Weights that no binary number holds sum up to what is just not 1."""
    outcomes = [Outcome(2, 0, 1)] * 3 + [Outcome(1, 0, 0)] * 6 + [Outcome(3, 0, 0)] * 7
    share = precision_of(outcomes, [0] * 3 + [1] * 6 + [2] * 7, [size, 96, 66])
    assert (share.value, share.high) == (pytest.approx(1.0), 1.0)
    assert 0.8 < share.low < 0.95


def test_each_unit_counts_for_as_many_as_it_stands_for() -> None:
    """A stratum of 90 with recall 1, looked at twice, and one of 10 with recall 0, looked at eight times."""
    outcomes = [Outcome(1, 0, 0)] * 2 + [Outcome(0, 0, 1)] * 8
    assert recall_of(outcomes, [0] * 2 + [1] * 8, [90, 10]).value == pytest.approx(0.9)


def test_an_hour_is_a_part_of_the_day() -> None:
    outcomes = [Outcome(1, 0, 0), Outcome(0, 0, 1), Outcome(1, 0, 0), Outcome(1, 0, 0)]
    assert domain(outcomes, [0] * 4, [40], [True, True, False, False]).value == pytest.approx(0.5)


def test_every_stratum_is_looked_at_and_the_doubtful_ones_more() -> None:
    rng = np.random.default_rng(0)
    strata, risk = strata_of_pictures([0] * 900 + [2] * 60 + [3] * 40, [0] * 960 + [3] * 40)
    drawn = draw(strata, risk, 60, rng)
    counts = np.bincount(drawn.strata, minlength=4)
    assert 55 <= len(drawn.units) <= 65
    assert len(set(drawn.units.tolist())) == len(drawn.units)
    assert min(counts[0], counts[1], counts[3]) >= LEAST
    assert counts[3] / 40 > counts[0] / 900
