"""How alike two models see pictures: the same is 1, what users do not see does not count, half an overlap is enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.frames import Candidate, FrameSet, choose_frames
from edge.errors import DataError
from edge.models.manifest import InputSpec
from edge.pipeline.swap.agreement import Comparison
from edge.types import Classification, Detections, Letterbox, Prediction, Segmentation, UInt8
from export.quantize.agreement import Footage

SPEC = InputSpec(name="frames", width=32, height=32, layout="nhwc", dtype="uint8", colour="bgr")


def objects(*rows: tuple[float, float, float, int]) -> Detections:
    """Boxes of 10x10 pixels: left, top, score, class."""
    boxes = [(x, y, x + 10, y + 10) for x, y, _, _ in rows]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([score for _, _, score, _ in rows], np.float32),
        np.array([label for _, _, _, label in rows], np.int32),
    )


def share(first: Prediction, second: Prediction) -> float:
    return Comparison(0.3).add(first, second)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (objects((0, 0, 0.9, 0), (50, 50, 0.5, 1)), 1.0),
        (objects((3, 0, 0.4, 0), (50, 50, 0.5, 1)), 1.0),
        (objects((4, 0, 0.9, 0), (50, 50, 0.5, 1)), 0.5),
        (objects((0, 0, 0.9, 1), (50, 50, 0.5, 1)), 0.5),
        (objects((0, 0, 0.2, 0), (50, 50, 0.5, 1)), 2 / 3),
        (objects((0, 0, 0.9, 0), (1, 0, 0.8, 0), (50, 50, 0.5, 1)), 0.8),
        (objects(), 0.0),
    ],
)
def test_objects_pair_by_class_and_overlap_and_only_shown_ones_count(other: Detections, expected: float) -> None:
    seen = objects((0, 0, 0.9, 0), (50, 50, 0.5, 1), (80, 80, 0.1, 1))
    assert share(seen, other) == pytest.approx(expected)
    assert share(other, seen) == pytest.approx(expected)


rows = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60), st.floats(0, 1, width=32), st.integers(0, 2)), max_size=12
)


@settings(max_examples=examples(100), deadline=None)
@given(first=rows, second=rows)
def test_agreement_is_symmetric_between_0_and_1_and_whole_with_itself(first: Any, second: Any) -> None:
    a, b = objects(*first), objects(*second)
    assert share(a, a) == 1.0
    assert 0.0 <= share(a, b) <= 1.0
    assert share(a, b) == pytest.approx(share(b, a))


def test_class_maps_agree_by_cells_and_whole_pictures_by_their_first_class() -> None:
    place = Letterbox(1, 1, 0, 0, 4, 4, 4, 4)
    first, second = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    second[0] = 1
    assert share(Segmentation(first, place), Segmentation(second, place)) == 0.75
    both = Comparison(0.3)
    both.add(Classification(np.array([0.6, 0.4], np.float32)), Classification(np.array([0.5, 0.4], np.float32)))
    both.add(Classification(np.array([0.6, 0.4], np.float32)), Classification(np.array([0.3, 0.4], np.float32)))
    assert both.share == 0.5


def footage(count: int) -> FrameSet:
    rng = np.random.default_rng(0)
    pictures = [Candidate(str(n), rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)) for n in range(count)]
    return choose_frames(pictures, SPEC, count, origin="yard.mp4")


def test_the_pictures_that_differ_most_come_first() -> None:
    def sees(numbers: Sequence[int]) -> Any:
        calls = iter(numbers)
        return lambda images: [objects(*[(20.0 * n, 0, 0.9, 0) for n in range(next(calls))]) for _ in images]

    seen = Footage(footage(10), 0.3, sees([2] * 10))
    found = seen.compare(sees([2, 2, 2, 0, 2, 1, 2, 2, 2, 2]))
    assert found.share == pytest.approx(2 * 17 / (20 + 17))
    assert [len(after) for _, _, after in found.pairs] == [0, 1, 2, 2]  # type: ignore[arg-type]


def test_footage_in_which_nothing_is_found_is_refused() -> None:
    def nothing(images: Sequence[UInt8]) -> list[Prediction]:
        return [objects((0, 0, 0.29, 0)) for _ in images]

    with pytest.raises(DataError, match=r"yard\.mp4: the float model finds nothing in 10 frames"):
        Footage(footage(10), 0.3, nothing)
