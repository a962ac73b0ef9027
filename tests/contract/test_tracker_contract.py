"""What every tracker promises, whatever its name."""

from __future__ import annotations

import numpy as np
import pytest

from edge.interfaces import Tracker
from edge.trackers.choose import NAMES, open_tracker
from edge.types import Detections, Tracks

FRAME_NS = 40_000_000


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tracker(name: str) -> Tracker:
    return open_tracker(name)


def boxes(*xyxy: tuple[float, float, float, float], score: float = 0.9, class_id: int = 0) -> Detections:
    return Detections(
        np.array(xyxy, np.float32).reshape(-1, 4),
        np.full(len(xyxy), score, np.float32),
        np.full(len(xyxy), class_id, np.int32),
    )


def walk(tracker: Tracker, num_frames: int, start_frame: int = 0) -> list[Tracks]:
    """Two objects that walk to the right, far from each other."""
    frames = range(start_frame, start_frame + num_frames)
    return [
        tracker.update(boxes((x := 100 + 2 * k, 100, x + 40, 200), (x, 500, x + 50, 620)), k * FRAME_NS) for k in frames
    ]


def check_arrays(tracks: Tracks, num_detections: int) -> None:
    n = len(tracks)
    assert tracks.track_id.shape == (n,) and tracks.track_id.dtype == np.int64
    assert tracks.xyxy.shape == (n, 4) and tracks.xyxy.dtype == np.float32
    assert tracks.score.shape == (n,) and tracks.score.dtype == np.float32
    assert tracks.class_id.shape == (n,) and tracks.class_id.dtype == np.int32
    assert tracks.age.shape == (n,) and tracks.age.dtype == np.float32
    assert tracks.velocity.shape == (n, 2) and tracks.velocity.dtype == np.float32
    assert tracks.detection.shape == (n,) and tracks.detection.dtype == np.int32
    assert ((tracks.detection >= -1) & (tracks.detection < num_detections)).all()
    assert len(set(tracks.track_id.tolist())) == n
    assert np.isfinite(tracks.xyxy).all() and np.isfinite(tracks.velocity).all()


def test_every_frame_gives_arrays_of_the_declared_types(tracker: Tracker) -> None:
    for tracks in walk(tracker, 5):
        check_arrays(tracks, 2)


def test_an_object_keeps_its_id_and_its_own_detection(tracker: Tracker) -> None:
    seen = walk(tracker, 30)
    for tracks in seen[5:]:
        assert tracks.track_id.tolist() == seen[-1].track_id.tolist()
        assert tracks.detection.tolist() == [0, 1]


def test_a_frame_without_boxes_gives_no_tracks(tracker: Tracker) -> None:
    assert len(tracker.update(Detections.empty(), 0)) == 0
    walk(tracker, 5, start_frame=1)
    assert len(tracker.update(Detections.empty(), 6 * FRAME_NS)) == 0


def test_the_box_of_a_track_is_the_detected_one(tracker: Tracker) -> None:
    walk(tracker, 5)
    seen = boxes((110, 100, 150, 200), (110, 500, 160, 620))
    tracks = tracker.update(seen, 5 * FRAME_NS)
    np.testing.assert_array_equal(tracks.xyxy, seen.xyxy[tracks.detection])


def test_speed_is_in_pixels_per_second(tracker: Tracker) -> None:
    tracks = walk(tracker, 60)[-1]
    np.testing.assert_allclose(tracks.velocity, [[50, 0], [50, 0]], atol=2.0)


def test_age_is_in_seconds(tracker: Tracker) -> None:
    tracks = walk(tracker, 51)[-1]
    np.testing.assert_allclose(tracks.age, [2.0, 2.0], atol=1e-3)


def test_ids_of_two_cameras_do_not_depend_on_each_other(tracker: Tracker, name: str) -> None:
    alone = [t.track_id.tolist() for t in walk(tracker, 10)]
    first, second = open_tracker(name), open_tracker(name)
    both = [(a.track_id.tolist(), b.track_id.tolist()) for a, b in zip(walk(first, 10), walk(second, 10), strict=True)]
    assert both == [(ids, ids) for ids in alone]


def test_an_id_is_never_used_again(tracker: Tracker) -> None:
    seen: set[int] = set()
    for visit in range(20):
        # visits are a minute apart, so that each is a new object
        start = visit * 1500
        now = {i for tracks in walk(tracker, 6, start) for i in tracks.track_id.tolist()}
        assert now and not (now & seen)
        seen |= now


def test_the_same_frames_give_the_same_tracks(tracker: Tracker, name: str) -> None:
    rng = np.random.default_rng(3)
    frames = [boxes(*(np.r_[c, c + 60] for c in rng.uniform(0, 400, (30, 2)))) for _ in range(40)]
    other = open_tracker(name)
    for k, frame in enumerate(frames):
        a, b = tracker.update(frame, k * FRAME_NS), other.update(frame, k * FRAME_NS)
        np.testing.assert_array_equal(a.track_id, b.track_id)
        np.testing.assert_array_equal(a.xyxy, b.xyxy)


def test_input_arrays_are_left_as_they_were(tracker: Tracker) -> None:
    frame = boxes((10, 10, 50, 90), (np.nan, 0, 1, 1), (300, 10, 350, 90))
    frame.xyxy.flags.writeable = False
    for k in range(4):
        tracker.update(frame, k * FRAME_NS)


@pytest.mark.parametrize(
    "bad",
    [
        (np.nan, 0, 10, 10),
        (0, 0, np.inf, 10),
        (-np.inf, 0, 10, 10),
        (50, 50, 50, 90),
        (90, 50, 40, 80),
        (10, 90, 40, 20),
    ],
    ids=["nan", "infinite", "minus-infinite", "empty", "inverted-x", "inverted-y"],
)
def test_impossible_boxes_are_ignored(tracker: Tracker, bad: tuple[float, float, float, float]) -> None:
    for k in range(6):
        tracks = tracker.update(boxes(bad, (100, 100, 140, 200)), k * FRAME_NS)
        check_arrays(tracks, 2)
        assert 0 not in tracks.detection.tolist()
    assert tracks.detection.tolist() == [1]


def test_boxes_outside_the_frame_are_followed(tracker: Tracker) -> None:
    for k in range(6):
        tracks = tracker.update(boxes((-90 + k, -50, -30 + k, 60)), k * FRAME_NS)
    assert tracks.detection.tolist() == [0]


def test_scores_that_are_no_numbers_are_ignored(tracker: Tracker) -> None:
    for k in range(4):
        assert len(tracker.update(boxes((10, 10, 50, 90), score=float("nan")), k * FRAME_NS)) == 0


def test_time_that_stands_still_keeps_the_ids(tracker: Tracker) -> None:
    before = walk(tracker, 10)[-1]
    for _ in range(3):
        tracks = tracker.update(boxes((118, 100, 158, 200), (118, 500, 168, 620)), 9 * FRAME_NS)
        check_arrays(tracks, 2)
        assert tracks.track_id.tolist() == before.track_id.tolist()


def test_time_that_goes_back_keeps_the_ids_and_goes_on_from_there(tracker: Tracker) -> None:
    before = walk(tracker, 10)[-1]
    for k in range(10, 20):
        x = 100 + 2 * k
        tracks = tracker.update(boxes((x, 100, x + 40, 200), (x, 500, x + 50, 620)), (k - 10_000) * FRAME_NS)
        check_arrays(tracks, 2)
        assert tracks.track_id.tolist() == before.track_id.tolist()
    # nine intervals before the jump and nine after it; the jump itself took no time
    np.testing.assert_allclose(tracks.age, 18 * FRAME_NS / 1e9, atol=1e-3)


def test_ten_thousand_boxes_are_survived(tracker: Tracker) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 4000, (10_000, 2)).astype(np.float32)
    crowd = Detections(
        np.concatenate((corner, corner + 30), axis=1),
        rng.uniform(0.7, 1, 10_000).astype(np.float32),
        np.zeros(10_000, np.int32),
    )
    for k in range(3):
        tracks = tracker.update(crowd, k * FRAME_NS)
        check_arrays(tracks, 10_000)
    assert 0 < len(tracks) <= 2000


def test_the_same_box_many_times_gives_no_two_tracks_per_detection(tracker: Tracker) -> None:
    frame = boxes(*[(100, 100, 140, 200)] * 50)
    for k in range(10):
        tracks = tracker.update(frame, k * FRAME_NS)
        check_arrays(tracks, 50)
        assert len(set(tracks.detection.tolist())) == len(tracks)


def test_huge_coordinates_stay_finite(tracker: Tracker) -> None:
    for k in range(5):
        tracks = tracker.update(boxes((1e30, 1e30, 2e30, 2e30), (10, 10, 50, 90)), k * FRAME_NS)
        check_arrays(tracks, 2)
    assert 1 in tracks.detection.tolist()


def test_camera_motion_carries_the_tracks_along(tracker: Tracker) -> None:
    before = walk(tracker, 10)[-1]
    jump = np.array([[1, 0, 300], [0, 1, -40]], np.float64)
    tracks = tracker.update(boxes((420, 60, 460, 160), (420, 460, 470, 580)), 10 * FRAME_NS, jump)
    assert tracks.track_id.tolist() == before.track_id.tolist()


def test_camera_motion_of_a_wrong_shape_is_refused(tracker: Tracker) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        tracker.update(Detections.empty(), 0, np.eye(3))


def test_camera_motion_that_is_not_finite_is_ignored(tracker: Tracker) -> None:
    before = walk(tracker, 10)[-1]
    tracks = tracker.update(boxes((120, 100, 160, 200), (120, 500, 170, 620)), 10 * FRAME_NS, np.full((2, 3), np.nan))
    assert tracks.track_id.tolist() == before.track_id.tolist()
