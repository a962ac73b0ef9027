"""Lines and zones that follow a key point or the foot of a mask instead of a point of the box."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge.analytics.analytics import StreamAnalytics
from edge.config.analytics import AnalyticsSettings, LineSettings
from edge.config.load import parse_config
from edge.errors import ConfigError
from edge.masks import masks_from_whole
from edge.pipeline.analysis import StreamAnalysis
from edge.types import Detections, Event, Frame, Tracks

ANCHORS = ("keypoint:nose", "keypoint:left_ankle", "mask-foot")
STEP_NS = 100_000_000


def settings_of(anchor: str) -> AnalyticsSettings:
    return AnalyticsSettings.model_validate(
        {
            "lines": [{"name": "gate", "points_px": [(40, 150), (280, 150)], "anchor": anchor}],
            "zones": [{"name": "yard", "points_px": [(40, 160), (280, 160), (280, 230), (40, 230)], "anchor": anchor}],
        }
    )


def analytics_of(anchor: str, state: Any = None) -> StreamAnalytics:
    chosen = settings_of(anchor)
    return StreamAnalytics(
        chosen, stream="door", classes=("person",), width=320, height=240, model_anchors=ANCHORS, state=state
    )


def still_box(nose_y: float, ankle_y: float, foot_y: float) -> Tracks:
    """A box that stands still above the line while what is in it moves."""
    points = np.array([[[160, nose_y, 0.9], [160, ankle_y, 0.9]]], np.float32)
    one = np.ones(1, np.float32)
    return Tracks(
        np.array([3], np.int64),
        np.array([[140, 20, 180, 100]], np.float32),
        one,
        np.zeros(1, np.int32),
        one,
        np.zeros((1, 2), np.float32),
        np.zeros(1, np.int32),
        keypoints=points,
        feet=np.array([[160, foot_y]], np.float32),
    )


@pytest.mark.parametrize(
    ("anchor", "count"),
    [("bottom-centre", 0), ("keypoint:nose", 0), ("keypoint:left_ankle", 1), ("mask-foot", 1)],
)
def test_a_line_and_a_zone_follow_the_point_that_is_named(anchor: str, count: int) -> None:
    analytics, events = analytics_of(anchor), list[Event]()
    for number in range(12):
        y = 90.0 + 10 * number
        events += analytics.update(still_box(30, y, y), number * STEP_NS)
    counts = analytics.counts()
    assert counts["lines"]["gate"]["in"] + counts["lines"]["gate"]["out"] == count
    assert counts["zones"]["yard"]["entered"] == count
    crossed = [event for event in events if event.kind == "line_crossed"]
    # where the point is, not where the box is
    assert all(event.data["position_px"][1] > 150 for event in crossed) and len(crossed) == count


def test_the_last_place_of_a_point_outlives_a_restart() -> None:
    before = analytics_of("keypoint:left_ankle")
    for number in range(3):
        before.update(still_box(30, 120, 0), number * STEP_NS)
    after = analytics_of("keypoint:left_ankle", before.state())
    for number in range(3, 8):
        after.update(still_box(30, 190, 0), number * STEP_NS)
    counts = after.counts()["lines"]["gate"]
    assert counts["in"] + counts["out"] == 1


def test_a_model_without_the_point_is_refused_with_what_it_has() -> None:
    with pytest.raises(ConfigError, match=r"anchor = 'keypoint:tail': .* it gives: keypoint:nose"):
        analytics_of("keypoint:tail")
    with pytest.raises(ConfigError, match="none of its own"):
        StreamAnalysis("door", ("person",), tracker=None, settings=settings_of("mask-foot"))


def test_an_anchor_that_is_none_is_refused_with_the_choices() -> None:
    line = {"name": "gate", "points_px": [[0, 5], [9, 5]], "anchor": "left-ankle"}
    stream = {"name": "door", "source": "synthetic:", "analytics": {"lines": [line]}}
    raw = {"version": 1, "model": {"path": "m.onnx"}, "streams": [stream]}
    with pytest.raises(ConfigError, match=r"anchor = 'left-ankle': expected one of bottom-centre, .*keypoint:NAME"):
        parse_config(raw, where="edge.toml")


def test_boxes_keep_their_state_as_it_was() -> None:
    line = LineSettings(name="gate", points_px=((40, 150), (280, 150)))
    plain = StreamAnalytics(AnalyticsSettings(lines=(line,)), stream="d", classes=(), width=320, height=240)
    plain.update(replace(still_box(1, 2, 3), keypoints=None, feet=None), 0)
    assert "line_at" not in plain.state()["tracks"]


class OneTrack:
    """Takes the only detection for the only track."""

    def update(self, detections: Detections, time_ns: int, motion: Any = None, look: Any = None) -> Tracks:
        tracks = still_box(1, 2, 3)
        return replace(tracks, xyxy=detections.xyxy, keypoints=None, feet=None)


def test_the_foot_of_a_mask_is_looked_for_where_a_line_asks() -> None:
    whole = np.zeros((1, 240, 320), np.bool_)
    whole[0, 30:90, 150:170] = True
    found = Detections(
        np.array([[140, 20, 180, 100]], np.float32),
        np.ones(1, np.float32),
        np.zeros(1, np.int32),
        masks_from_whole(whole, np.array([[140, 20, 180, 100]], np.float32)),
    )
    frame = Frame("door", 0, 1, 1, None, np.zeros((240, 320, 3), np.uint8))
    for settings, feet in ((settings_of("mask-foot"), [[160.0, 90.0]]), (settings_of("centre"), None)):
        analysis = StreamAnalysis(
            "door", ("person",), tracker=OneTrack(), settings=settings, model_anchors=("mask-foot",)
        )
        tracks = analysis.update(frame, found, {}).tracks
        assert tracks is not None
        assert (None if tracks.feet is None else tracks.feet.tolist()) == feet
