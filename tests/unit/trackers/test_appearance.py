"""Who is who by looks: objects that cross and hide each other keep their ids, and few crops are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import colour_embedder

from edge.model import open_model
from edge.trackers.appearance import MOST_DOUBTS, MOST_LEARNT, CropEmbedder, Gallery, in_doubt, is_clear
from edge.trackers.tracker import MotionTracker
from edge.types import Detections, Float32, Float64, Frame, Int64, Prediction, UInt8

S = 1_000_000_000
BLUE, RED = (230, 60, 40), (40, 60, 230)
WIDTH, HEIGHT = 60, 140


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> CropEmbedder:
    path = colour_embedder(tmp_path_factory.mktemp("models") / "colours.onnx")
    return CropEmbedder(open_model(path, threads=1).predict)


def box(x: float, y: float = 100) -> tuple[float, float, float, float]:
    return (x, y, x + WIDTH, y + HEIGHT)


def scene(number: int, people: list[tuple[float, tuple[int, int, int]]]) -> tuple[Frame, Detections]:
    """A frame with people at these x, each in one colour, the first in front."""
    image: UInt8 = np.full((360, 640, 3), 110, np.uint8)
    for x, colour in reversed(people):
        image[100 : 100 + HEIGHT, max(0, int(x)) : int(x) + WIDTH] = colour
    found = np.array([box(x) for x, _ in people], np.float32)
    detections = Detections(found, np.full(len(found), 0.9, np.float32), np.zeros(len(found), np.int32))
    return Frame("door", 0, number, number * S // 25, None, image), detections


HIDDEN_PX = 20


def meet_and_turn_back(embedder: CropEmbedder | None) -> tuple[list[int], list[int]]:
    """Two people meet and go back where they came from; the detector misses who is behind while they overlap most.

    Returns:
        Ids of blue and red before and after. By motion alone they seem to have walked past each other.
    """
    tracker = MotionTracker()
    ids = {}
    for number in range(80):
        step = min(number, 90 - number)
        blue, red = 100.0 + 4 * step, 464.0 - 4 * step
        people = [(blue, BLUE), (red, RED)][: 2 if red - blue > HIDDEN_PX else 1]
        frame, detections = scene(number, people)
        look = None if embedder is None else embedder.embedder_for(frame, detections.xyxy)
        tracks = tracker.update(detections, frame.time_ns, None, look)
        by_detection = dict(zip(tracks.detection.tolist(), tracks.track_id.tolist(), strict=True))
        ids[number] = [by_detection.get(row, 0) for row in range(len(people))]
    return ids[30], ids[79]


def test_two_who_meet_and_turn_back_keep_their_ids_by_their_looks(embedder: CropEmbedder) -> None:
    before, after = meet_and_turn_back(embedder)
    assert 0 not in before and before == after


def test_by_boxes_alone_the_same_two_change_their_ids() -> None:
    before, after = meet_and_turn_back(None)
    assert before != after, "the scene is too easy to show anything"


def test_objects_that_are_apart_are_looked_at_once_a_second(embedder: CropEmbedder) -> None:
    tracker = MotionTracker()
    num_crops = 0

    def counting(crops: Sequence[UInt8]) -> list[Prediction]:
        nonlocal num_crops
        num_crops += len(crops)
        return embedder._predict(crops)

    counted = CropEmbedder(counting)
    for number in range(76):
        frame, detections = scene(number, [(20.0 + number, BLUE), (400.0 + number, RED)])
        tracker.update(detections, frame.time_ns, None, counted.embedder_for(frame, detections.xyxy))
    assert num_crops == 2 * 3, "three seconds, two objects, no doubt"


def test_without_a_model_nothing_changes() -> None:
    """Looks that are all the same say nothing: the ids are those of boxes alone."""
    plain, alike = MotionTracker(), MotionTracker()
    for number in range(110):
        _, detections = scene(number, [(100.0 + 3 * number, BLUE), (430.0 - 3 * number, RED)])
        a = plain.update(detections, number * S // 25)
        b = alike.update(detections, number * S // 25, None, same_looks)
        assert a.track_id.tolist() == b.track_id.tolist()


def same_looks(numbers: Int64) -> Float32:
    return np.tile(np.array([1, 0], np.float32), (len(numbers), 1))


def test_crops_per_frame_are_bounded() -> None:
    asked: list[int] = []

    def look(numbers: Int64) -> Float32:
        asked.append(len(numbers))
        return np.tile(np.array([1, 0], np.float32), (len(numbers), 1))

    tracker = MotionTracker()
    rng = np.random.default_rng(0)
    corners = np.array([(x, y) for x in range(0, 4000, 45) for y in (0, 400)], np.float64)
    for number in range(40):
        at = (corners + rng.normal(0, 6, corners.shape)).astype(np.float32)
        found = np.concatenate((at, at + np.array([WIDTH, HEIGHT], np.float32)), axis=1)
        score = np.full(len(found), 0.9, np.float32)
        tracker.update(Detections(found, score, np.zeros(len(found), np.int32)), number * S // 25, None, look)
    assert max(asked, default=0) <= max(MOST_DOUBTS, MOST_LEARNT)


def test_what_ended_is_forgotten() -> None:
    tracker = MotionTracker()
    for number in range(200):
        _, detections = scene(number, [(7.0 * number % 500, BLUE)] if number % 20 < 15 else [(600.0, RED)])
        tracker.update(detections, number * S // 4, None, same_looks)
    assert len(tracker._gallery) <= len(tracker._tracks)


def test_looks_that_are_no_numbers_are_not_kept() -> None:
    gallery = Gallery(1.0)
    gallery.learn(lambda numbers: np.full((len(numbers), 2), np.nan, np.float32), np.array([1]), np.array([0]), 0.0)
    assert len(gallery) == 0


def test_a_box_outside_of_the_frame_can_be_looked_at(embedder: CropEmbedder) -> None:
    frame, _ = scene(0, [(100, BLUE)])
    outside = np.array([(-90, -90, -10, -10), (900, 900, 990, 990), (10, 10, 10.2, 10.2)], np.float32)
    assert embedder.embedder_for(frame, outside)(np.arange(3)).shape == (3, 12)


@pytest.mark.parametrize(
    ("tracks", "rows", "gain", "expected"),
    [
        ([1, 2], [0, 1], [0.5, 0.5], [False, False]),
        ([1, 2], [0, 0], [0.5, 0.1], [True, True]),
        ([1, 1], [0, 1], [0.5, 0.1], [True, True]),
        ([1, 2], [0, 0], [0.5, -0.1], [False, False]),
        ([], [], [], []),
    ],
    ids=["apart", "one box, two tracks", "one track, two boxes", "a rival that boxes rule out", "none"],
)
def test_what_is_in_doubt(tracks: list[int], rows: list[int], gain: list[float], expected: list[bool]) -> None:
    found = in_doubt(np.array(tracks, np.int64), np.array(rows, np.int64), np.array(gain, np.float64))
    assert found.tolist() == expected


def test_a_box_that_shows_two_objects_teaches_nothing() -> None:
    boxes: Float64 = np.array([box(0), box(30), box(300), (500, 0, 505, 100)], np.float64)
    assert is_clear(boxes).tolist() == [False, False, True, False]
    assert is_clear(boxes[:0]).tolist() == []


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 3), st.floats(-0.3, 0.8)), max_size=12, unique_by=lambda p: p[:2]
    ),
    st.integers(0, 99),
)
def test_looks_never_open_or_close_the_gate_of_the_boxes(pairs: list[tuple[int, int, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(4, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery = Gallery(1.0)
    gallery.learn(lambda numbers: vectors[numbers], np.arange(1, 5), np.arange(4), 0.0)
    tracks, rows = (np.array([pair[k] for pair in pairs], np.int64) for k in (0, 1))
    gain = np.array([pair[2] for pair in pairs], np.float64)
    after = gain + gallery.advantage(lambda numbers: vectors[numbers], (tracks, rows), gain, np.arange(4))
    np.testing.assert_array_equal(after > 0, gain > 0)
