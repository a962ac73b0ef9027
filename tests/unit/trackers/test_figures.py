"""Key points and corners that travel with their tracks: still points stay still, moving ones are not late."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.trackers.choose import open_tracker
from edge.trackers.figures import Figures
from edge.types import Detections, Float32, Tracks

STEP_NS = 33_333_333


def tracks_at(boxes: list[list[float]], ids: list[int], seen: list[int]) -> Tracks:
    num = len(ids)
    one = np.ones(num, np.float32)
    box = np.array(boxes, np.float32).reshape(-1, 4)
    return Tracks(
        np.array(ids, np.int64), box, one, np.zeros(num, np.int32), one, np.zeros((num, 2), np.float32),
        np.array(seen, np.int32),
    )  # fmt: skip


def found_at(boxes: list[list[float]], points: Float32) -> Detections:
    num = len(boxes)
    box = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(box, np.ones(num, np.float32), np.zeros(num, np.int32), keypoints=points)


def points_of(*places: tuple[float, float], score: float = 0.9) -> Float32:
    return np.array([[[x, y, score] for x, y in places]], np.float32)


BOX = [100.0, 100.0, 140.0, 200.0]


def test_the_noise_of_a_still_point_is_smoothed() -> None:
    rng, figures, spread, raw = np.random.default_rng(0), Figures(), [], []
    for number in range(200):
        place = (120 + rng.normal(0, 1.5), 190 + rng.normal(0, 1.5))
        tracks = figures.update(tracks_at([BOX], [1], [0]), found_at([BOX], points_of(place)), number * STEP_NS)
        assert tracks.keypoints is not None
        spread.append(tracks.keypoints[0, 0, :2])
        raw.append(place)
    assert np.std(spread[50:], axis=0).max() < 0.6 * np.std(raw[50:], axis=0).min()


def test_a_walking_figure_is_not_late() -> None:
    figures = Figures()
    for number in range(60):
        x = 5.0 * number
        box = [100 + x, 100, 140 + x, 200]
        tracks = figures.update(
            tracks_at([box], [1], [0]), found_at([box], points_of((120 + x, 190))), number * STEP_NS
        )
        assert tracks.keypoints is not None
        assert tracks.keypoints[0, 0, 0] == pytest.approx(120 + x, abs=0.1)


def test_a_kick_is_followed_within_three_frames() -> None:
    figures, tracks = Figures(), Tracks.empty()
    for number in range(33):
        x = 120.0 if number < 30 else 160.0
        tracks = figures.update(tracks_at([BOX], [1], [0]), found_at([BOX], points_of((x, 190))), number * STEP_NS)
    assert tracks.keypoints is not None and tracks.keypoints[0, 0, 0] > 152


def test_a_hidden_point_keeps_its_place_in_the_box() -> None:
    figures = Figures()
    figures.update(tracks_at([BOX], [1], [0]), found_at([BOX], points_of((120, 190))), 0)
    box = [200.0, 100.0, 240.0, 200.0]
    wild = points_of((17, 3), score=0.05)
    tracks = figures.update(tracks_at([box], [1], [0]), found_at([box], wild), STEP_NS)
    assert tracks.keypoints is not None
    assert tracks.keypoints[0, 0] == pytest.approx([220, 190, 0.05])
    gone = figures.update(tracks_at([[300, 100, 340, 200]], [1], [-1]), Detections.empty(), 2 * STEP_NS)
    assert gone.keypoints is not None
    assert gone.keypoints[0, 0] == pytest.approx([320, 190, 0])


def test_a_point_never_seen_well_is_where_the_model_guesses() -> None:
    figures = Figures()
    for number, x in enumerate((10.0, 90.0)):
        guess = points_of((x, 3), score=0.1)
        tracks = figures.update(tracks_at([BOX], [1], [0]), found_at([BOX], guess), number * STEP_NS)
        assert tracks.keypoints is not None and tracks.keypoints[0, 0, 0] == x


def test_a_point_that_is_no_number_spoils_no_later_frame() -> None:
    figures = Figures()
    figures.update(tracks_at([BOX], [1], [0]), found_at([BOX], points_of((120, 190))), 0)
    for number, x in enumerate((np.nan, 120.0), start=1):
        tracks = figures.update(tracks_at([BOX], [1], [0]), found_at([BOX], points_of((x, 190))), number * STEP_NS)
        assert tracks.keypoints is not None
        assert tracks.keypoints[0, 0, :2] == pytest.approx([120, 190])


def test_tracks_in_any_order_keep_their_own_points() -> None:
    figures = Figures()
    boxes, points = [BOX, [300.0, 100.0, 340.0, 200.0]], np.concatenate([points_of((110, 150)), points_of((310, 150))])
    figures.update(tracks_at(boxes, [5, 2], [0, 1]), found_at(boxes, points), 0)
    back = figures.update(tracks_at(boxes[::-1], [2, 5], [-1, -1]), Detections.empty(), STEP_NS)
    assert back.keypoints is not None
    assert back.keypoints[:, 0, 0].tolist() == [310, 110]


def test_what_was_gone_for_a_second_begins_anew() -> None:
    figures = Figures()
    figures.update(tracks_at([BOX], [1], [0]), found_at([BOX], points_of((120, 190))), 0)
    figures.update(tracks_at([], [], []), Detections.empty(), STEP_NS)
    back = figures.update(tracks_at([BOX], [1], [0]), found_at([BOX], points_of((139, 101))), 2_000_000_000)
    assert back.keypoints is not None and back.keypoints[0, 0, :2].tolist() == [139, 101]


def test_corners_are_those_seen_and_move_with_a_predicted_box() -> None:
    figures = Figures()
    corners = np.array([[[120, 100], [140, 150], [120, 200], [100, 150]]], np.float32)
    found = replace(found_at([BOX], points_of((0, 0))), keypoints=None, corners=corners)
    tracks = figures.update(tracks_at([BOX], [1], [0]), found, 0)
    assert tracks.corners is not None and (tracks.corners == corners).all() and tracks.keypoints is None
    later = figures.update(tracks_at([[150, 100, 190, 200]], [1], [-1]), Detections.empty(), STEP_NS)
    assert later.corners is not None and (later.corners - corners == (50, 0)).all()


def test_another_model_may_take_over() -> None:
    figures = Figures()
    figures.update(tracks_at([BOX], [1], [0]), found_at([BOX], points_of((1, 2))), 0)
    other = figures.update(tracks_at([BOX], [1], [0]), found_at([BOX], points_of((1, 2), (3, 4))), STEP_NS)
    assert other.keypoints is not None and other.keypoints.shape == (1, 2, 3)
    boxes_only = replace(found_at([BOX], points_of((1, 2))), keypoints=None)
    assert figures.update(tracks_at([BOX], [1], [0]), boxes_only, 2 * STEP_NS).keypoints is None


def test_boxes_alone_are_left_as_they_are() -> None:
    tracks = tracks_at([BOX], [1], [0])
    assert Figures().update(tracks, replace(found_at([BOX], points_of((1, 2))), keypoints=None), 0) is tracks


@pytest.mark.parametrize("method", ["edge", "bytetrack", "ocsort", "sort"])
def test_every_tracker_follows_an_oriented_box_by_the_box_around_it(method: str) -> None:
    tracker, figures, ids = open_tracker(method), Figures(), set()
    for number in range(12):
        x = 4.0 * number
        corners = np.array([[[120 + x, 100], [140 + x, 150], [120 + x, 200], [100 + x, 150]]], np.float32)
        found = Detections(
            np.array([[100 + x, 100, 140 + x, 200]], np.float32),
            np.full(1, 0.9, np.float32),
            np.zeros(1, np.int32),
            corners=corners,
        )
        tracks = figures.update(tracker.update(found, number * STEP_NS), found, number * STEP_NS)
        ids |= set(tracks.track_id.tolist())
        if len(tracks):
            assert tracks.corners is not None and (tracks.corners == corners).all()
    assert len(ids) == 1
