from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.boxes import area, best_pairs, iou, nms, nms_per_class

EMPTY = np.empty((0, 4), np.float32)
pytestmark = pytest.mark.usefixtures("both_ways")


def slow_nms(xyxy: np.ndarray, score: np.ndarray, threshold: float) -> list[int]:
    """Greedy suppression as the textbook says it, one pair at a time."""
    kept: list[int] = []
    for index in sorted((i for i in range(len(score)) if score[i] == score[i]), key=lambda i: (-score[i], i)):
        if all(iou(xyxy[[index]], xyxy[[other]])[0, 0] <= threshold for other in kept):
            kept.append(index)
    return kept


def test_empty_inputs_are_ordinary() -> None:
    assert iou(EMPTY, EMPTY).shape == (0, 0)
    assert area(EMPTY).shape == (0,)
    assert nms(EMPTY, np.empty(0, np.float32), 0.5).tolist() == []
    assert nms_per_class(EMPTY, np.empty(0, np.float32), np.empty(0, np.int32), 0.5).tolist() == []


def test_overlap_of_known_boxes() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10], [10, 10, 0, 0]], np.float32)
    assert iou(a, b)[0] == pytest.approx([1 / 3, 0.0, 1.0, 0.0])


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 30), st.just(4)), elements=st.integers(0, 20).map(float)),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
)
def test_nms_is_the_textbooks_with_ties_and_nan(corners: np.ndarray, seed: int, threshold: float) -> None:
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    score = np.random.default_rng(seed).choice(np.array([0.1, 0.5, 0.5, 0.9, np.nan], np.float32), len(boxes))
    assert nms(boxes, score, threshold).tolist() == slow_nms(boxes, score, threshold)


@given(st.integers(0, 200), st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_nms_of_boxes_in_heaps_is_the_textbooks(num: int, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    corner = np.repeat(rng.uniform(0, 900, (-(-num // 5), 2)), 5, axis=0)[:num] + rng.normal(0, 4, (num, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 60, (num, 2))], axis=1).astype(np.float32)
    score = rng.uniform(0, 1, num).astype(np.float32)
    assert nms(boxes, score, threshold).tolist() == slow_nms(boxes, score, threshold)


@pytest.mark.parametrize(
    "odd", [(3, 3, 3, 9), (9, 9, 1, 1), (np.nan, 0, 10, 10), (0, 0, np.inf, 10), (np.inf, 0, np.inf, 9)]
)
def test_what_is_empty_or_no_number_overlaps_with_nothing(odd: tuple[float, ...]) -> None:
    boxes = np.array([odd, (0, 0, 10, 10), odd, (1, 0, 10, 10)], np.float32)
    assert nms(boxes, np.array([0.9, 0.8, 0.7, 0.6], np.float32), 0.5).tolist() == [0, 1, 2]


def test_an_overlap_that_is_equal_to_the_threshold_is_not_above_it() -> None:
    # 9 of 20 parts are shared
    boxes = np.array([[0, 0, 20, 1], [0, 0, 9, 1]], np.float32)
    assert nms(boxes, np.array([0.9, 0.8], np.float32), 0.45).tolist() == [0, 1]


def test_boxes_of_different_classes_do_not_compete() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [1, 0, 10, 10]], np.float32)
    kept = nms_per_class(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 0], np.int32), 0.5)
    assert kept.tolist() == [0, 1]


def test_pairs_are_made_by_overlap_and_nothing_is_paired_twice() -> None:
    overlap = np.array([[0.6, 0.9, 0.0], [0.8, 0.85, 0.4]], np.float32)
    assert best_pairs(overlap, 0.5) == [(0, 1), (1, 0)]
    assert best_pairs(overlap, 0.85) == [(0, 1)]
    assert best_pairs(np.empty((0, 3), np.float32), 0.5) == []
    assert best_pairs(np.full((1, 1), np.nan, np.float32), 0.5) == []
