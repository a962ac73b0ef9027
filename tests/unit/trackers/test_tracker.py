"""How our own tracker behaves: occlusion, weak detections, dropped frames, moving cameras, bounded memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import ConfigError
from edge.trackers.choose import open_tracker
from edge.trackers.settings import TrackerSettings
from edge.trackers.tracker import MotionTracker
from edge.types import Detections, Tracks

SECOND_NS = 1_000_000_000
FRAME_NS = SECOND_NS // 25


def boxes(*xyxy: tuple[float, ...], score: float | list[float] = 0.9, class_id: list[int] | None = None) -> Detections:
    return Detections(
        np.array(xyxy, np.float32).reshape(-1, 4),
        np.broadcast_to(np.array(score, np.float32), len(xyxy)).copy(),
        np.array(class_id or [0] * len(xyxy), np.int32),
    )


def person(x: float, y: float = 100) -> tuple[float, float, float, float]:
    return (x, y, x + 40, y + 100)


def follow(tracker: MotionTracker, frames: range, speed: float = 2, score: float = 0.9) -> list[Tracks]:
    """One person who walks ``speed`` pixels per frame."""
    return [tracker.update(boxes(person(100 + speed * k), score=score), k * FRAME_NS) for k in frames]


def test_objects_of_the_first_frame_are_confirmed_at_once() -> None:
    assert len(MotionTracker().update(boxes(person(0), person(300)), 0)) == 2


def test_later_objects_are_confirmed_by_a_second_detection() -> None:
    tracker = MotionTracker()
    tracker.update(Detections.empty(), 0)
    assert len(tracker.update(boxes(person(0)), FRAME_NS)) == 0
    assert len(tracker.update(boxes(person(1)), 2 * FRAME_NS)) == 1


def test_a_flicker_of_one_frame_is_never_reported() -> None:
    tracker = MotionTracker()
    follow(tracker, range(5))
    for k in range(5, 50):
        flicker = [person(900)] if k % 2 else []
        assert len(tracker.update(boxes(person(100 + 2 * k), *flicker), k * FRAME_NS)) == 1


def test_unconfirmed_tracks_have_no_shared_id() -> None:
    """A peer reports every unconfirmed object with id -1, and counts them as one."""
    tracker = MotionTracker()
    tracker.update(Detections.empty(), 0)
    for k in range(1, 10):
        tracks = tracker.update(boxes(*(person(200 * j + 100 * k, 150 * k) for j in range(4))), k * FRAME_NS)
        assert (tracks.track_id > 0).all()


def test_an_id_survives_an_occlusion() -> None:
    tracker = MotionTracker()
    before = follow(tracker, range(30))[-1]
    for k in range(30, 50):
        assert len(tracker.update(Detections.empty(), k * FRAME_NS)) == 0
    after = follow(tracker, range(50, 55))[-1]
    assert after.track_id.tolist() == before.track_id.tolist()


def test_a_track_is_forgotten_after_its_time_not_after_a_number_of_frames() -> None:
    life_s = TrackerSettings().lost_s
    for rate_hz in (2, 10, 100):
        for gap_s, is_same in ((0.6 * life_s, True), (1.5 * life_s, False)):
            tracker = MotionTracker()
            step_ns = SECOND_NS // rate_hz
            for k in range(10):
                before = tracker.update(boxes(person(100)), k * step_ns)
            start_ns = 9 * step_ns
            for j in range(1, int(gap_s * rate_hz)):
                tracker.update(Detections.empty(), start_ns + j * step_ns)
            for k in range(3):
                after = tracker.update(boxes(person(100)), start_ns + int(gap_s * SECOND_NS) + k * step_ns)
            assert (after.track_id.tolist() == before.track_id.tolist()) is is_same


def test_a_long_silence_ends_all_tracks() -> None:
    tracker = MotionTracker()
    follow(tracker, range(10))
    assert len(tracker.update(boxes(person(118)), 3600 * SECOND_NS)) == 0


@given(st.integers(0, 10_000), st.floats(0, 0.6))
@settings(max_examples=examples(8), deadline=None)
def test_lost_frames_do_not_change_the_id_of_a_steady_walker(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    kept = [k for k in range(100) if k < 5 or rng.random() >= share]
    tracker = MotionTracker()
    ids = {
        i
        for k in kept
        for i in tracker.update(boxes(person(100 + 2 * k + rng.normal(0, 1))), k * FRAME_NS).track_id.tolist()
    }
    assert len(ids) == 1


def test_weak_detections_continue_a_track_but_start_none() -> None:
    tracker = MotionTracker()
    before = follow(tracker, range(10))[-1]
    weak = follow(tracker, range(10, 20), score=0.2)[-1]
    assert weak.track_id.tolist() == before.track_id.tolist()
    alone = MotionTracker()
    assert all(len(tracks) == 0 for tracks in follow(alone, range(20), score=0.2))


@pytest.mark.parametrize("fps", [7, 10, 14, 25, 29.97, 30, 60])
def test_a_track_of_the_frame_before_is_that_at_any_frame_rate(fps: float) -> None:
    """Times in seconds do not add up evenly, so what was seen in the frame before must not be found by subtracting."""
    tracker = MotionTracker()
    for k in range(150):
        is_good = k < 3
        tracks = tracker.update(boxes(person(100 + k / 10), score=0.9 if is_good else 0.3), round(k * SECOND_NS / fps))
        assert tracks.track_id.tolist() == [1], f"frame {k}"


def test_coasting_tracks_are_returned_only_where_asked_for() -> None:
    tracker = MotionTracker(TrackerSettings(coast_s=0.2))
    follow(tracker, range(20), speed=4)
    tracks = tracker.update(Detections.empty(), 20 * FRAME_NS)
    assert tracks.detection.tolist() == [-1]
    np.testing.assert_allclose(tracks.xyxy, [person(180)], atol=3)
    assert len(tracker.update(Detections.empty(), 30 * FRAME_NS)) == 0


def test_classes_are_kept_apart_unless_told_otherwise() -> None:
    for per_class, num_ids in ((True, 2), (False, 1)):
        tracker = MotionTracker(TrackerSettings(per_class=per_class))
        ids = set()
        for k in range(20):
            tracks = tracker.update(boxes(person(100), class_id=[0 if k < 10 else 1]), k * FRAME_NS)
            ids |= set(tracks.track_id.tolist())
        assert len(ids) == num_ids
        assert tracks.class_id.tolist() == [1]


def test_two_who_cross_keep_their_ids() -> None:
    tracker = MotionTracker()
    for k in range(60):
        left, right = person(100 + 6 * k), person(460 - 6 * k, 130)
        tracks = tracker.update(boxes(left, right), k * FRAME_NS)
    assert dict(zip(tracks.detection.tolist(), tracks.track_id.tolist(), strict=True)) == {0: 1, 1: 2}


def test_a_jolt_of_the_camera_is_seen_in_the_boxes() -> None:
    """All boxes jump by most of their width at once: without the shared shift their ids would be lost."""
    places = [(150.0 * j, 120.0 * j) for j in range(6)]

    def ids_after(own_motion: bool) -> list[int]:
        tracker = MotionTracker(TrackerSettings(own_motion=own_motion))
        for k in range(20):
            jolt = 33 if k >= 15 else 0
            tracks = tracker.update(boxes(*(person(x + jolt, y) for x, y in places)), k * FRAME_NS)
            if k == 15:
                return tracks.track_id.tolist()
        return []

    assert ids_after(True) == [1, 2, 3, 4, 5, 6]
    assert ids_after(False) != [1, 2, 3, 4, 5, 6]


@given(st.integers(0, 1000), st.floats(0, 120))
@settings(max_examples=examples(20), deadline=None, derandomize=True)
def test_a_shaking_camera_changes_no_id_where_many_are_seen(seed: int, shake: float) -> None:
    """Boxes of 40 pixels jump by up to three widths from frame to frame, and no picture is given."""
    rng, tracker = np.random.default_rng(seed), MotionTracker()
    start = np.column_stack((np.arange(12) * 150 + rng.uniform(0, 60, 12), rng.uniform(0, 600, 12)))
    step, place = rng.normal(0, 1, (12, 2)), np.zeros(2)
    seen = []
    for k in range(30):
        place = place + rng.uniform(-shake, shake, 2)
        seen.append(tracker.update(boxes(*(person(x, y) for x, y in start + k * step + place)), k * FRAME_NS))
    assert {tuple(tracks.track_id) for tracks in seen} == {tuple(range(1, 13))}


def test_memory_does_not_grow_with_births_and_deaths() -> None:
    rng = np.random.default_rng(0)
    tracker = MotionTracker(TrackerSettings(lost_s=0.5))
    sizes = []
    for k in range(300):
        corner = rng.uniform(0, 3000, (20, 2))
        tracker.update(boxes(*(person(*c) for c in corner.tolist())), k * FRAME_NS)
        sizes.append(len(tracker._tracks))
    assert tracker._next_id > 2_000
    assert max(sizes[150:]) <= max(sizes[:150]) * 1.2
    assert tracker._state.shape[1] == tracker._seen_state.shape[1] == len(tracker._tracks)


def test_no_more_tracks_than_allowed() -> None:
    tracker = MotionTracker(TrackerSettings(max_objects=10))
    for k in range(5):
        crowd = boxes(*(person(60 * j, 110 * (k % 3)) for j in range(50)), score=[0.7 + 0.005 * j for j in range(50)])
        tracks = tracker.update(crowd, k * FRAME_NS)
        assert len(tracker._tracks) <= 10
    assert tracks.detection.min() >= 40  # the best scores win


def test_settings_must_make_sense() -> None:
    with pytest.raises(ValueError, match="lost_s must not be negative"):
        TrackerSettings(lost_s=-1)
    with pytest.raises(ValueError, match="confirm_hits"):
        TrackerSettings(confirm_hits=0)
    with pytest.raises(ValueError, match="match_high"):
        replace(TrackerSettings(), match_high=float("nan"))


def test_an_unknown_tracker_is_named() -> None:
    with pytest.raises(ConfigError, match="'deepsort' is unknown; expected one of edge, bytetrack, ocsort, sort"):
        open_tracker("deepsort")


def test_published_algorithms_take_no_settings() -> None:
    with pytest.raises(ConfigError, match="'sort' is a published algorithm"):
        open_tracker("sort", TrackerSettings())
