"""Intervals of figures, by drawing the judged pictures again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.types import Detections
from export.data.sample import Sample
from export.evaluate.bootstrap import draws, drop_between, intervals, redrawn_counts, redrawn_hits
from export.evaluate.detect import DetectJudge
from export.evaluate.names import match_classes
from export.evaluate.report import Report
from export.quantize.quantize import loss_of

CLASSES = ("a", "b")


def judged(misses: float, pictures: int = 60) -> DetectJudge:
    """A detector that misses this share of the objects, gets some places wrong and invents some."""
    rng = np.random.default_rng(5)
    judge = DetectJudge(CLASSES, match_classes(CLASSES, CLASSES))
    blank = np.zeros((4, 4, 3), np.uint8)
    for number in range(pictures):
        count = int(rng.integers(1, 5))
        corner = rng.uniform(0, 200, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, 60, (count, 2))], 1).astype(np.float32)
        labels = rng.integers(0, 2, count).astype(np.int32)
        seen = rng.random(count) >= misses
        moved = boxes + rng.normal(0, 3, boxes.shape).astype(np.float32)
        wrong = np.array([[0, 0, 30, 30]], np.float32)
        found = Detections(
            np.concatenate([moved[seen], wrong]),
            rng.random(int(seen.sum()) + 1).astype(np.float32),
            np.append(labels[seen], 0).astype(np.int32),
        )
        judge.add(Sample(blank, str(number), boxes, labels, np.zeros(count, bool), np.ones(count, np.float32)), found)
    return judge


def test_every_picture_once_gives_the_figure_of_pycocotools() -> None:
    judge = judged(0.3)
    metrics, _, _ = judge.finish()
    assert judge.redrawn is not None
    found = judge.redrawn(np.ones(60))
    assert found["map"] == pytest.approx(metrics["map"], abs=1e-9)
    assert found["map50"] == pytest.approx(metrics["map50"], abs=1e-9)


def test_a_picture_that_counts_twice_is_a_picture_that_is_there_twice() -> None:
    once, twice = judged(0.3, 20), judged(0.3, 20)
    once.finish()
    for row in [row for row in twice.truth if row["image_id"] == 1]:
        twice.truth.append({**row, "image_id": 21, "id": len(twice.truth) + 1})
    twice.found += [{**row, "image_id": 21} for row in twice.found if row["image_id"] == 1]
    twice.num_images = 21
    metrics, _, _ = twice.finish()
    weights = np.ones(20)
    weights[0] = 2
    assert once.redrawn is not None
    # pycocotools breaks the ties of equal scores by the order of pictures
    assert once.redrawn(weights)["map"] == pytest.approx(metrics["map"], abs=5e-3)


def test_the_interval_holds_the_figure_and_narrows_with_pictures() -> None:
    widths = []
    for pictures in (20, 120):
        judge = judged(0.3, pictures)
        metrics, _, _ = judge.finish()
        assert judge.redrawn is not None
        low, high = intervals(judge.redrawn, pictures)["map50"]
        assert low < metrics["map50"] < high
        widths.append(high - low)
    assert widths[1] < 0.6 * widths[0]


def test_the_drop_of_a_worse_model_on_the_same_pictures() -> None:
    better, worse = judged(0.1, 60), judged(0.3, 60)
    better.finish()
    worse.finish()
    assert better.redrawn is not None
    assert worse.redrawn is not None
    found = drop_between(better.redrawn, worse.redrawn, "map50", 60)
    assert 0 < found.low < found.value < found.edge < found.high
    same = drop_between(better.redrawn, better.redrawn, "map50", 60)
    assert same.value == same.edge == same.low == 0


def test_draws_are_the_same_for_the_same_seed() -> None:
    first, second = list(draws(9, 3)), list(draws(9, 3))
    np.testing.assert_array_equal(first, second)
    assert all(draw.sum() == 9 for draw in first)


def test_pixels_and_classes_have_intervals_too() -> None:
    counts = [np.array([[8, 2, 0], [1, 9, 0]]), np.array([[1, 9, 0], [9, 1, 0]])]
    assert redrawn_counts(counts, (0, 1))(np.array([1.0, 0.0]))["miou"] == pytest.approx((8 / 11 + 9 / 12) / 2)
    assert redrawn_hits([(True, True), (False, True)])(np.array([1.0, 3.0])) == {"top1": 0.25, "top5": 1.0}


def test_a_figure_that_cannot_be_drawn_again_has_no_interval() -> None:
    """Masks are the main figure of a model that has them, and only boxes are drawn again."""
    metrics = {"map": 0.9, "mask_map": 0.5}
    report = Report(
        "street", "", "detect", metrics, {}, ("a",), np.zeros((1, 1), np.int64), 4, 0.0,
        redrawn=lambda weights: {"map": float(weights.mean())}, num_drawn=4,
    )  # fmt: skip
    assert report.main_metric == "mask_map"
    assert loss_of(report, report, 0.95) is None
    boxes = replace(report, metrics={"map": 0.9})
    drop = loss_of(boxes, boxes, 0.95)
    assert drop is not None and drop.value == 0
