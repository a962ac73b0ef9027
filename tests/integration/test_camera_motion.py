"""Camera motion on real footage: a camera that stands still, and one that is turned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.trackers import camera_motion
from edge.types import UInt8

NO_BOXES = np.empty((0, 4), np.float32)
CLIPS = Path(__file__).parents[2].parent / "shared" / "data" / "videos"


@pytest.mark.shared
@pytest.mark.skipif(not CLIPS.is_dir(), reason="the data next to the project is not here")
@pytest.mark.parametrize(
    "name", ["people-walking-720p", "highway-cars-720p", "vtest-pets09-480x360", "intel-car-detection"]
)
def test_real_cameras_that_stand_still_are_never_moved(name: str) -> None:
    camera = camera_motion.CameraMotion()
    for frame in clip(name, 240):
        assert camera.update(frame, NO_BOXES) is None


@pytest.mark.shared
@pytest.mark.skipif(not CLIPS.is_dir(), reason="the data next to the project is not here")
@pytest.mark.parametrize("name", ["people-walking-720p", "highway-cars-720p", "vtest-pets09-480x360"])
def test_a_real_street_seen_by_a_camera_that_is_turned(name: str) -> None:
    frames = list(clip(name, 60))
    height, width = frames[0].shape[:2]
    camera, place, errors_px = camera_motion.CameraMotion(), np.eye(3), []
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64)
    for k, frame in enumerate(frames):
        true = cv2.getRotationMatrix2D((width / 2, height / 2), 0.3 * np.sin(k / 9), 1 + 0.003 * np.sin(k / 7))
        true[:, 2] += np.array([6 + 8 * np.sin(k / 15), 3 * np.cos(k / 11)]) * width / 1280
        place = np.vstack((true, [0, 0, 1])) @ place
        seen = cv2.warpAffine(frame, place[:2], (width, height), borderMode=cv2.BORDER_REFLECT_101)
        found = camera.update(np.asarray(seen), NO_BOXES)
        if k >= 2:
            assert found is not None
            errors_px.append(float(np.abs(corners @ found.T - corners @ true.T).mean()))
    assert np.median(errors_px) < 0.001 * width, "a thousandth of the picture"


def clip(name: str, num: int) -> Iterator[UInt8]:
    reader = cv2.VideoCapture(str(CLIPS / f"{name}.mp4"))
    for _ in range(num):
        is_read, frame = reader.read()
        assert is_read
        yield np.asarray(frame)
