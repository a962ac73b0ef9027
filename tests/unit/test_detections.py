"""Detections as a Python program meets them: counted, chosen, walked through, printed, converted."""

from __future__ import annotations

import numpy as np
import pytest

from edge.types import Detection, Detections


def found() -> Detections:
    boxes = np.array([[1, 2, 11, 22], [5, 5, 9, 9], [0, 0, 4, 8]], np.float32)
    return Detections(
        boxes, np.array([0.5, 0.75, 0.25], np.float32), np.array([0, 2, 0], np.int32), classes=("person", "car")
    )


def test_a_number_gives_one_object_and_a_mask_gives_several() -> None:
    objects = found()
    assert objects[0] == Detection("person", 0.5, (1.0, 2.0, 11.0, 22.0), 0)
    assert objects[-1].xyxy == (0.0, 0.0, 4.0, 8.0)
    assert [thing.name for thing in objects] == ["person", "class 2", "person"]
    assert [thing.name for thing in objects[objects.score > 0.4]] == ["person", "class 2"]
    assert len(objects[1:]) == 2 and list(Detections.empty()) == []
    with pytest.raises(IndexError):
        objects[3]


def test_it_prints_what_was_found() -> None:
    assert repr(found()) == "Detections(3: 2 person, 1 class 2)"
    assert repr(Detections.empty()) == "Detections(0)"
