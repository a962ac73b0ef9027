"""What one stream remembers goes on whatever happens to its analytics, its size and its disk."""

from __future__ import annotations

import errno
import json
import logging
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.config.analytics import AnalyticsSettings
from edge.errors import ConfigError
from edge.pipeline.analysis import StreamAnalysis
from edge.types import Detections, Frame, Result, Tracks

CLASSES = ("person", "car")
SIZE, SMALL = (320, 240), (160, 120)
# fits in 320x240, lies outside 160x120
LINE = {"name": "gate", "points_px": [(40, 180), (280, 180)]}
# feet above the line, then below it
DOWN = (140, 150, 165, 210, 220, 225, 230)


class FeetTracker:
    """One object whose feet are where the test puts them."""

    def __init__(self) -> None:
        self.feet_y = 0.0

    def update(self, detections: Detections, time_ns: int, motion: Any = None, look: Any = None) -> Tracks:
        box = np.array([[90, self.feet_y - 60, 110, self.feet_y]], np.float32)
        one = np.ones(1, np.float32)
        return Tracks(
            np.array([1], np.int64),
            box,
            one,
            np.zeros(1, np.int32),
            one * 5,
            np.zeros((1, 2), np.float32),
            np.zeros(1, np.int32),
        )


class Camera:
    """A stream whose pictures change their size when the test says so."""

    def __init__(self, state_file: Path | None = None, **line: Any) -> None:
        self.tracker = FeetTracker()
        settings = AnalyticsSettings.model_validate({"lines": [{**LINE, **line}]})
        self.follower = StreamAnalysis("door", CLASSES, tracker=self.tracker, settings=settings, state_file=state_file)
        self.num_frames = 0

    def show(self, feet_y: float = 140, size: tuple[int, int] = SIZE) -> Result:
        self.tracker.feet_y = feet_y
        self.num_frames += 1
        image = np.zeros((size[1], size[0], 3), np.uint8)
        frame = Frame("door", 0, self.num_frames, self.num_frames * 200_000_000, None, image)
        return self.follower.update(frame, Detections.empty(), {})

    def count(self) -> int:
        for feet_y in DOWN:
            self.show(feet_y)
        lines = self.follower.counts()["lines"]["gate"]
        return int(lines["in"] + lines["out"])


def test_a_size_in_which_a_line_cannot_work_costs_its_counting_only(caplog: pytest.LogCaptureFixture) -> None:
    camera = Camera()
    counted = camera.count()
    assert counted == 1
    with caplog.at_level(logging.ERROR):
        results = [camera.show(size=SMALL) for _ in range(5)]
    assert all(len(result.tracks or ()) == 1 and result.events == () for result in results)
    assert camera.follower.shapes == ()
    assert "160x120" in camera.follower.fault
    assert [record.message for record in caplog.records if "160x120" in record.message] == caplog.messages
    assert len(caplog.messages) == 1
    # the counts are kept, and it counts again in its own size
    assert camera.follower.counts()["lines"]["gate"]["in"] + camera.follower.counts()["lines"]["gate"]["out"] == 1
    camera.show()
    assert camera.follower.fault == "" and len(camera.follower.shapes) == 1
    camera.show(size=SMALL)
    assert len(caplog.messages) == 1


def test_sizes_without_end_fill_neither_memory_nor_log(caplog: pytest.LogCaptureFixture) -> None:
    camera = Camera()
    with caplog.at_level(logging.ERROR):
        for width in range(20, 120):
            camera.show(size=(width, 20))
    assert len(caplog.messages) == 64


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"classes": ["persn"]}, "door: line 'gate': unknown class 'persn'; did you mean 'person'?"),
        (
            {"schedules": [{"start_at": "08:00", "end_at": "18:00", "time_zone": "Europe/Berlim"}]},
            "door: line 'gate': unknown time zone 'Europe/Berlim'",
        ),
    ],
)
def test_unknown_names_are_refused_before_the_first_frame(line: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected.replace("?", "\\?")):
        Camera(**line)


@pytest.mark.parametrize(
    "text", ["{cut", '{"schema": 1}', '{"schema": 1, "geometry": 0, "lines": {"gate": [1]}, "zones": {}}']
)
def test_a_damaged_state_is_set_aside_and_counting_begins_at_zero(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "door.analytics.json"
    path.write_text(text)
    camera = Camera(path)
    with caplog.at_level(logging.ERROR):
        assert camera.count() == 1
    assert camera.follower.fault == ""
    assert len(caplog.messages) == 1 and "it is kept as door.analytics.json.broken" in caplog.messages[0]
    assert (tmp_path / "door.analytics.json.broken").read_text() == text
    camera.follower.save()
    again = Camera(path)
    again.show()
    lines = again.follower.counts()["lines"]["gate"]
    assert lines["in"] + lines["out"] == 1


def test_counts_that_cannot_be_written_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, data: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    camera = Camera(tmp_path / "door.analytics.json")
    camera.show()
    monkeypatch.setattr("edge.pipeline.analysis.write_atomic", full)
    camera.follower.save()
    assert "No space left on device" in caplog.text


def test_counts_are_kept_in_a_folder_that_is_made_for_them(tmp_path: Path) -> None:
    path = tmp_path / "state" / "door.analytics.json"
    camera = Camera(path)
    assert camera.count() == 1
    camera.follower.save()
    assert json.loads(path.read_text())["schema"] == 1
    again = Camera(path)
    again.show()
    lines = again.follower.counts()["lines"]["gate"]
    assert lines["in"] + lines["out"] == 1


def test_schedules_follow_the_clock_that_the_follower_was_given() -> None:
    night = Camera(schedules=[{"start_at": "22:00", "end_at": "06:00", "time_zone": "UTC"}])
    night.follower.clock = lambda time_ns: datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
    assert night.count() == 0
    at_night = Camera(schedules=[{"start_at": "22:00", "end_at": "06:00", "time_zone": "UTC"}])
    at_night.follower.clock = lambda time_ns: datetime(2026, 11, 22, 23, tzinfo=timezone.utc)
    assert at_night.count() == 1


def test_nothing_is_counted_in_another_view_than_that_of_home() -> None:
    camera = Camera()
    assert camera.count() == 1
    camera.follower.is_away = True
    assert camera.count() == 1
    assert camera.show().tracks is not None, "objects are followed there too"
    camera.follower.is_away = False
    assert camera.count() > 1


def test_a_box_that_a_surer_one_covers_is_the_same_object_whatever_its_class() -> None:
    van = np.array([[10, 10, 110, 110], [11, 10, 110, 110], [200, 10, 260, 110]], np.float32)
    found = Detections(van, np.array([0.8, 0.9, 0.7], np.float32), np.array([0, 1, 1], np.int32))
    frame = Frame("door", 0, 0, 0, None, np.zeros((240, 320, 3), np.uint8))
    for duplicate_iou, classes in ((0.8, [1, 1]), (1.0, [0, 1, 1])):
        analysis = StreamAnalysis(
            "door", CLASSES, tracker=FeetTracker(), settings=AnalyticsSettings(), duplicate_iou=duplicate_iou
        )
        kept = analysis.update(frame, found, {}).prediction
        assert isinstance(kept, Detections)
        assert kept.class_id.tolist() == classes
