"""The second stage: which crops are looked at, how often, and what is made of the answers."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.analytics import CropStageSettings
from edge.second_stage import crops as cascade
from edge.second_stage.crops import CropQueue, CropRequest, CropStage, sharpness, view_quality
from edge.types import Classification, Frame, Tracks, UInt8

S = 1_000_000_000
LABELS = ("red", "green", "blue")


def noise(seed: int = 0) -> UInt8:
    return np.random.default_rng(seed).integers(0, 255, (720, 1280, 3), np.uint8)


SHARP = noise()
BLURRED: UInt8 = cv2.GaussianBlur(SHARP, (0, 0), 25)


def frame(time_s: float, image: UInt8 = SHARP, stream: str = "door") -> Frame:
    return Frame(stream, 0, round(time_s * 25), round(time_s * S), None, image)


def tracks_of(*boxes: tuple[float, float, float, float], ids: Any = None, class_id: int = 0) -> Tracks:
    num = len(boxes)
    return Tracks(
        np.arange(1, num + 1, dtype=np.int64) if ids is None else np.asarray(ids, np.int64),
        np.asarray(boxes, np.float32).reshape(num, 4),
        np.ones(num, np.float32),
        np.full(num, class_id, np.int32),
        np.ones(num, np.float32),
        np.zeros((num, 2), np.float32),
        np.arange(num, dtype=np.int32),
    )


def stage(stream: str = "door", **chosen: Any) -> CropStage:
    return CropStage(CropStageSettings(**chosen), stream=stream, classes=("person", "car"), labels=LABELS)


def says(*scores: float) -> Classification:
    return Classification(np.array(scores, np.float32))


BOX = (300.0, 200.0, 400.0, 400.0)
LARGE = (300.0, 200.0, 600.0, 680.0)


def test_a_new_track_is_looked_at_once_and_then_rarely() -> None:
    crops = stage(interval_s=0.5, refresh_s=5)
    asked = [round(t, 2) for t in np.arange(0, 11, 0.04) if crops.choose(frame(t), tracks_of(BOX))]
    assert asked == [0, 5, 10]


def test_a_better_view_is_looked_at_after_the_interval() -> None:
    crops = stage(interval_s=0.5)
    assert crops.choose(frame(0), tracks_of(BOX))
    assert not crops.choose(frame(0.4), tracks_of(LARGE)), "within the interval"
    (request,) = crops.choose(frame(0.6), tracks_of(LARGE))
    assert request.image.shape[:2] == (528, 330), "the box and a margin of 5 % on every side"
    assert not crops.choose(frame(1.2), tracks_of(BOX)), "a poorer view"


def test_a_blurred_view_is_no_better_for_being_large() -> None:
    crops = stage(interval_s=0.5)
    assert crops.choose(frame(0), tracks_of(BOX))
    assert not crops.choose(frame(1, BLURRED), tracks_of(LARGE))


def test_blurred_views_are_cut_out_only_once_per_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[int] = []
    monkeypatch.setattr(cascade, "sharpness", lambda image: cut.append(1) or sharpness(image))
    crops = stage(interval_s=0.5, refresh_s=60)
    crops.choose(frame(0), tracks_of(BOX))
    for number in range(1, 51):
        assert not crops.choose(frame(number * 0.04, BLURRED), tracks_of(LARGE))
    assert len(cut) == 1 + 3, "two seconds"


@pytest.mark.parametrize(
    "poor",
    [(300, 200, 350, 300), (0, 200, 100, 400), (300, 620, 400, 720), (1200, 300, 1280, 500)],
    ids=["smaller", "cut off on the left", "cut off at the bottom", "cut off on the right"],
)
def test_smaller_and_cut_off_views_are_poorer(poor: tuple[float, ...]) -> None:
    quality = view_quality(np.array([BOX, poor], np.float32), 1280, 720, 24)
    assert quality[1] < quality[0]


def test_a_covered_object_is_a_poorer_view_than_the_one_in_front() -> None:
    behind, front = (300, 200, 400, 400), (320, 220, 420, 420)
    quality = view_quality(np.array([behind, front], np.float32), 1280, 720, 24)
    assert quality[0] < 0.5 * quality[1]


def test_sharpness_orders_focus() -> None:
    assert 0 < sharpness(BLURRED) < sharpness(cv2.GaussianBlur(SHARP, (0, 0), 3)) <= sharpness(SHARP) < 1
    assert sharpness(np.zeros((1, 1, 3), np.uint8)) > 0


@pytest.mark.parametrize(
    "tracks",
    [
        tracks_of((10, 10, 30, 60)),
        tracks_of(BOX, class_id=1),
        tracks_of(BOX, ids=[-1]),
        tracks_of((float("nan"), 0, 50, 50)),
        Tracks.empty(),
    ],
    ids=["too small", "another class", "unconfirmed", "NaN", "none"],
)
def test_what_is_not_looked_at(tracks: Tracks) -> None:
    assert stage(classes=("person",)).choose(frame(0), tracks) == []


def test_a_frame_asks_for_a_few_crops_only_and_everybody_has_a_turn() -> None:
    crops = stage(max_per_frame=3)
    many = tracks_of(*((x, 200, x + 60, 400) for x in range(20, 1220, 100)))
    asked: list[int] = []
    for number in range(4):
        requests = crops.choose(frame(number * 0.04), many)
        assert len(requests) == 3
        asked += [request.track_id for request in requests]
    assert sorted(asked) == list(range(1, 13))


def test_answers_are_averaged() -> None:
    crops = stage(new_share=0.4, min_score=0.1, refresh_s=1)
    requests = crops.choose(frame(0), tracks_of(BOX))
    assert crops.labels(1) == ()
    crops.accept(requests, [says(0.9, 0.1, 0)])
    assert [(label.name, pytest.approx(label.score)) for label in crops.labels(1)] == [("red", 0.9), ("green", 0.1)]
    crops.accept(crops.choose(frame(1), tracks_of(BOX)), [says(0, 1, 0)])
    assert [label.name for label in crops.labels(1)] == ["red", "green"], "one odd answer does not turn the label"
    for second in range(2, 6):
        crops.accept(crops.choose(frame(second), tracks_of(BOX)), [says(0, 1, 0)])
    assert crops.labels(1)[0].name == "green"


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=10))
def test_averages_stay_probabilities(answers: list[list[float]]) -> None:
    crops = stage(refresh_s=0.5, min_score=0)
    for number, answer in enumerate(answers):
        total = sum(answer)
        scores = [value / total for value in answer] if total > 0 else [1 / 3] * 3
        crops.accept(crops.choose(frame(number), tracks_of(BOX)), [says(*scores)])
    assert sum(label.score for label in crops.labels(1)) == pytest.approx(1, abs=1e-4)


def test_unlikely_labels_and_broken_answers_are_not_given() -> None:
    crops = stage(min_score=0.5)
    requests = crops.choose(frame(0), tracks_of(BOX))
    crops.accept(requests, [says(float("nan"), 0, 0)])
    assert crops.labels(1) == ()
    crops.accept(requests, [says(0.4, 0.3, 0.3)])
    assert crops.labels(1) == ()


def test_batches_cross_streams_and_answers_find_their_way_back() -> None:
    stages = {name: stage(name) for name in ("door", "yard")}
    queue = CropQueue()
    for name, crops in stages.items():
        queue.add(crops.choose(frame(0, stream=name), tracks_of(BOX, (700, 200, 800, 400))))
    batch = queue.take(3)
    assert [(request.stream, request.track_id) for request in batch] == [("door", 1), ("door", 2), ("yard", 1)]
    for crops in stages.values():
        crops.accept(batch, [says(1, 0, 0), says(0, 1, 0), says(0, 0, 1)])
    assert [stages["door"].labels(1)[0].name, stages["door"].labels(2)[0].name] == ["red", "green"]
    assert stages["yard"].labels(1)[0].name == "blue"
    assert stages["yard"].labels(2) == () and len(queue) == 1


def test_a_full_queue_drops_the_oldest_and_counts() -> None:
    queue = CropQueue(max_waiting=4)
    queue.add([CropRequest("door", number, 0, SHARP[:2, :2], 1.0) for number in range(6)])
    assert queue.num_dropped == 2
    queue.add([CropRequest("door", 5, 9, SHARP[:2, :2], 1.0)])
    assert queue.num_dropped == 3
    assert [(request.track_id, request.time_ns) for request in queue.take(10)] == [(2, 0), (3, 0), (4, 0), (5, 9)]


def test_tracks_that_never_come_back_are_forgotten() -> None:
    crops = stage(forget_s=10)
    for second in range(200):
        crops.choose(frame(second), tracks_of(BOX, (700, 200, 800, 400), ids=[2 * second, 2 * second + 1]))
    assert len(crops) <= 2 * 12
    crops.choose(frame(0), Tracks.empty())
    assert len(crops) == 0, "a clock that starts again"


def test_a_crop_at_the_border_stays_in_the_frame() -> None:
    (request,) = stage().choose(frame(0), tracks_of((1200, 600, 1300, 760)))
    assert request.image.shape == (128, 85, 3)
    assert not np.shares_memory(request.image, SHARP)
