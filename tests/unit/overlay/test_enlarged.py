"""A result in a larger picture of the same view."""

from __future__ import annotations

import numpy as np
import pytest

from edge.overlay.enlarged import enlarged, enlarged_shapes
from edge.types import Classification, Detections, Frame, Result, Shape, Tracks

SMALL, LARGE = np.zeros((180, 320, 3), np.uint8), np.zeros((720, 1280, 3), np.uint8)


def frame(image: np.ndarray) -> Frame:
    return Frame("door", 0, 7, 5, None, image)


def test_boxes_points_and_tracks_keep_their_place_as_shares_of_the_picture() -> None:
    box = np.array([[32, 18, 64, 90]], np.float32)
    found = Detections(
        box,
        np.ones(1, np.float32),
        np.zeros(1, np.int32),
        keypoints=np.array([[[40, 20, 0.5]]], np.float32),
        corners=np.array([[[32, 18], [64, 18], [64, 90], [32, 90]]], np.float32),
    )
    tracks = Tracks(
        np.array([3], np.int64),
        box,
        np.ones(1, np.float32),
        np.zeros(1, np.int32),
        np.ones(1, np.float32),
        np.array([[2, 1]], np.float32),
        np.zeros(1, np.int32),
    )
    result = enlarged(Result(frame(SMALL), found, tracks), frame(LARGE), (4.0, 4.0))
    assert result.frame.width == 1280
    for things in (result.detections, result.tracks):
        assert things is not None
        assert things.xyxy.tolist() == [[128, 72, 256, 360]]
    assert result.detections.keypoints is not None and result.detections.corners is not None
    assert result.detections.keypoints.tolist() == [[[160, 80, 0.5]]]
    assert result.detections.corners[0, 2].tolist() == [256, 360]
    assert result.tracks is not None and result.tracks.velocity.tolist() == [[8, 4]]
    # what it was made of stays as it is
    assert found.xyxy.tolist() == [[32, 18, 64, 90]]


def test_a_small_picture_that_is_squeezed_fits_too() -> None:
    shape = Shape("line", "gate", np.array([[10, 10], [20, 30]], np.float32), "1 in")
    (found,) = enlarged_shapes([shape], (2.0, 3.0))
    assert (found.name, found.text, found.points.tolist()) == ("gate", "1 in", [[20, 30], [40, 90]])


@pytest.mark.parametrize("prediction", [Detections.empty(), Classification(np.ones(2, np.float32))])
def test_nothing_found_is_nothing_there(prediction: Detections | Classification) -> None:
    assert len(enlarged(Result(frame(SMALL), prediction), frame(LARGE), (4.0, 4.0)).detections) == 0
