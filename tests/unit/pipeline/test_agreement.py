"""How far two models say the same where they say more than boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.masks import masks_from_whole
from edge.pipeline.swap.agreement import Comparison, same_outputs
from edge.types import Detections

BOX = np.array([[20, 20, 60, 60]], np.float32)


def found(**beside: object) -> Detections:
    return Detections(BOX, np.array([0.9], np.float32), np.zeros(1, np.int32), **beside)  # type: ignore[arg-type]


def masked(right: int) -> Detections:
    whole = np.zeros((1, 80, 80), np.bool_)
    whole[0, 20:60, 20:right] = True
    return found(masks=masks_from_whole(whole, BOX))


def figure(x: float, score: float = 0.9) -> Detections:
    return found(keypoints=np.array([[[x, 30, score], [40, 50, 0.9]]], np.float32))


def turned(step: float) -> Detections:
    corners = np.array([[[40, 20], [60, 40], [40, 60], [20, 40]]], np.float32)
    return found(corners=corners + np.float32(step))


def share(old: Detections, new: Detections) -> float:
    comparison = Comparison(0.5)
    comparison.add(old, new)
    return comparison.share


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (masked(60), masked(60), 1.0),
        (masked(60), masked(58), 1.0),
        # a half of the mask, of which four fifths would be enough
        (masked(60), masked(40), 0.5 / 0.8),
        (masked(60), found(), 1.0),
        (figure(30), figure(32), 1.0),
        (figure(30), figure(38), 0.5),
        (figure(30, 0.1), figure(38, 0.1), 1.0),
        (turned(0), turned(2), 1.0),
        # the boxes around them overlap by a half and more, they themselves by less
        (turned(0), turned(8), 0.0),
    ],
)
def test_a_pair_agrees_as_far_as_what_stands_beside_its_boxes(
    old: Detections, new: Detections, expected: float
) -> None:
    assert share(old, new) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (masked(60), masked(60), True),
        (masked(60), masked(50), False),
        (figure(30), figure(30.2), True),
        (figure(30), figure(33), False),
        (turned(0), turned(0.2), True),
        (turned(0), turned(1), False),
        (found(), replace(found(), xyxy=BOX + 3), False),
    ],
)
def test_two_runs_are_the_same_only_with_all_that_they_say(one: Detections, other: Detections, is_same: bool) -> None:
    assert same_outputs([one], [other]) == is_same
