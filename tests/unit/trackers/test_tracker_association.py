"""Pairs, similarities and the assignment, each against the plain definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.boxes import iou
from edge.trackers import association
from edge.types import Float64

numbers = st.floats(0, 100, allow_nan=False, width=32)

# its import must not count as the first example's time
association.solver()


def boxes_of(corners: list[tuple[float, float, float, float]]) -> Float64:
    array = np.array(corners, np.float64).reshape(-1, 4)
    return np.concatenate((array[:, :2], array[:, :2] + 1 + array[:, 2:]), axis=1)


box_lists = st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=8).map(boxes_of)


@given(box_lists, box_lists)
def test_meeting_pairs_are_those_that_overlap(a: Float64, b: Float64) -> None:
    row, col = association.meeting_pairs(a, b)
    table = np.zeros((len(a), len(b)))
    table[row, col] = association.overlap(a[row], b[col])
    np.testing.assert_allclose(table, iou(a, b), atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (50, 0, 60, 10), 1.0),
        ((0, 0, 10, 10), (0, 5, 10, 15), 5 / 15),
        ((0, 0, 10, 10), (0, 20, 10, 30), 0.0),
    ],
    ids=["same", "beside", "half-lower", "below"],
)
def test_height_overlap(a: tuple[float, ...], b: tuple[float, ...], expected: float) -> None:
    assert association.height_overlap(np.array([a]), np.array([b]))[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("target", "expected"),
    [((20, 0), 0.5), ((10, 10), 0.25), ((0, 10), 0.0), ((-10, 0), -0.5), ((0, 0), 0.0)],
    ids=["ahead", "diagonal", "sideways", "back", "nowhere"],
)
def test_direction_agreement(target: tuple[float, float], expected: float) -> None:
    past, last = np.array([[0.0, 0.0]]), np.array([[10.0, 0.0]])
    assert association.direction_agreement(past, last, np.array([target], np.float64))[0] == pytest.approx(expected)


def best_sum(table: Float64) -> float:
    """By trying all ways."""
    if table.shape[0] > table.shape[1]:
        table = table.T
    columns = itertools.permutations(range(table.shape[1]), table.shape[0])
    return max(sum(max(0.0, table[r, c]) for r, c in enumerate(choice)) for choice in columns)


@given(st.integers(1, 4), st.integers(1, 5), st.data())
def test_assignment_is_the_best_there_is(num_rows: int, num_cols: int, data: st.DataObject) -> None:
    values = st.floats(-1, 1, allow_nan=False)
    table = np.array([[data.draw(values) for _ in range(num_cols)] for _ in range(num_rows)])
    row, col = np.nonzero(np.ones_like(table))
    won, by = association.assign(row, col, table[row, col], table.shape)
    assert len(set(won.tolist())) == len(won) and len(set(by.tolist())) == len(by)
    assert (table[won, by] > 0).all()
    assert table[won, by].sum() == pytest.approx(best_sum(table), abs=1e-9)


def test_assignment_of_nothing_is_nothing() -> None:
    none = np.empty(0, np.int64)
    won, by = association.assign(none, none, np.empty(0), (3, 0))
    assert len(won) == 0 and len(by) == 0


def test_a_price_decides_between_rivals_and_forbids_nothing() -> None:
    gain = np.array([0.5, 0.11, 0.01, 0.0, -0.3])
    assert association.priced(gain, 0.1) == pytest.approx([0.4, 0.01, 0.0005, 0, -0.3])
    hidden, seen = association.priced(np.array([0.5]), 0.1)[0], 0.45
    alone, _ = association.assign(np.array([0]), np.array([0]), np.array([hidden]), (2, 1))
    both, _ = association.assign(np.array([0, 1]), np.array([0, 0]), np.array([hidden, seen]), (2, 1))
    assert alone.tolist() == [0] and both.tolist() == [1]


@given(st.floats(0, 1))
def test_powers_by_roots_are_powers(value: float) -> None:
    for power in (0.5, 0.75, 1.0, 0.3):
        assert association.power_of(np.array([value]), power)[0] == pytest.approx(value**power)


def test_mutual_best_pairs_are_best_for_both() -> None:
    row, col = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
    value = np.array([0.9, 0.5, 0.4, 0.1])
    assert association.mutual_best(row, col, value, (3, 3)).tolist() == [True, False, False, True]
