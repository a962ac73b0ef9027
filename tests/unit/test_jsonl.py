"""The JSONL line: exact text, order of objects, valid JSON for whatever the model says."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.masks import masks_from_whole, whole_masks
from edge.metrics.clock import WallClock
from edge.result_json import ResultEncoder, picture_part
from edge.types import (
    Classification,
    Detections,
    Embedding,
    Event,
    Frame,
    Letterbox,
    Prediction,
    Result,
    Segmentation,
    Tracks,
)

pytestmark = pytest.mark.usefixtures("both_ways")
# 2026-11-22T10:00:00.123Z
CAPTURED_WALL_NS = 1_795_341_600_123_000_000
CAPTURED_NS = 5_000_000_000


def clock(age_ms: float = 21.4) -> WallClock:
    return WallClock(CAPTURED_WALL_NS - CAPTURED_NS, lambda: CAPTURED_NS + int(age_ms * 1e6))


def result(prediction: Prediction, tracks: Tracks | None = None, events: tuple[Event, ...] = ()) -> Result:
    image = np.zeros((720, 1280, 3), np.uint8)
    return Result(Frame("door", 0, 41, CAPTURED_NS, None, image), prediction, tracks, events)


def detections(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(classes, np.int32)
    )


def tracks(ids: list[int], boxes: list[list[float]], matches: list[int]) -> Tracks:
    num = len(ids)
    return Tracks(
        np.array(ids, np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(num, 0.91, np.float32),
        np.zeros(num, np.int32),
        np.ones(num, np.float32),
        np.zeros((num, 2), np.float32),
        np.array(matches, np.int32),
    )


def test_the_line_is_the_documented_one() -> None:
    found = detections([[10, 20.5, 110.2, 300]], [0.9], [0])
    line = ResultEncoder(["person"], clock=clock()).encode(result(found, tracks([3], [[10, 20.5, 110.2, 300]], [0])))
    assert line == (
        b'{"stream":"door","epoch":0,"seq":41,"captured":"2026-11-22T10:00:00.123Z","age_ms":21.4,"width":1280,'
        b'"height":720,"objects":[{"track_id":3,"class":"person","score":0.910,"xyxy":[10.0,20.5,110.2,300.0]}],'
        b'"events":[]}'
    )


def test_tracks_come_first_then_detections_of_no_track_above_the_score() -> None:
    found = detections([[0, 0, 9, 9], [1, 1, 9, 9], [2, 2, 9, 9]], [0.9, 0.8, 0.1], [0, 1, 1])
    line = ResultEncoder(["person", "car"], score=0.3, clock=clock()).encode(
        result(found, tracks([7, 8], [[0, 0, 9, 9], [5, 5, 9, 9]], [0, -1]))
    )
    objects = json.loads(line)["objects"]
    assert [(o["track_id"], o["class"]) for o in objects] == [(7, "person"), (8, "person"), (None, "car")]


@pytest.mark.parametrize("tracked", [None, Tracks.empty()])
def test_without_tracks_all_detections_above_the_score_are_listed(tracked: Tracks | None) -> None:
    found = detections([[0, 0, 9, 9], [1, 1, 9, 9]], [0.9, 0.1], [0, 5])
    objects = json.loads(ResultEncoder(["person"], score=0.0, clock=clock()).encode(result(found, tracked)))["objects"]
    assert [(o["track_id"], o["class"]) for o in objects] == [(None, "person"), (None, "class 5")]


def test_encoding_changes_nothing_of_the_result() -> None:
    found = detections([[0, 0, 9, 9]], [0.9], [0])
    given_result = result(found, tracks([1], [[0, 0, 9, 9]], [0]))
    encoder = ResultEncoder(["person"], clock=clock())
    assert encoder.encode(given_result) == encoder.encode(given_result)


def test_segmentation_gives_shares_of_the_picture_without_padding() -> None:
    class_map = np.full((64, 64), 9, np.uint8)
    class_map[14:50] = 1
    class_map[14:23] = 0
    letterbox = Letterbox(0.05, 0.05, 0, 14, 1280, 720, 64, 64)
    line = json.loads(ResultEncoder(["sky", "road"], clock=clock()).encode(result(Segmentation(class_map, letterbox))))
    assert line["shares"] == {"road": 0.75, "sky": 0.25}
    assert "objects" not in line


def test_the_picture_part_follows_a_class_map_smaller_than_the_input() -> None:
    letterbox = Letterbox(0.05, 0.05, 0, 14, 1280, 720, 64, 64)
    assert picture_part(Segmentation(np.zeros((16, 16), np.uint8), letterbox)).shape[1] == 16
    assert picture_part(Segmentation(np.zeros((1, 1), np.uint8), letterbox)).size == 1


def test_classification_gives_the_five_best() -> None:
    score = np.array([0.05, 0.5, 0.2, 0.1, 0.08, 0.07], np.float32)
    line = json.loads(ResultEncoder(list("abcdef"), clock=clock()).encode(result(Classification(score))))
    assert [c["class"] for c in line["classes"]] == ["b", "c", "d", "e", "f"]
    assert line["classes"][0]["score"] == 0.5


def test_an_embedding_has_no_objects() -> None:
    line = json.loads(ResultEncoder([], clock=clock()).encode(result(Embedding(np.ones(4, np.float32)))))
    assert line["objects"] == []


def test_events_are_listed_with_their_facts() -> None:
    event = Event("line_crossed", "door", 7, 3, {"line": "Tür"})
    line = json.loads(ResultEncoder([], clock=clock()).encode(result(Detections.empty(), None, (event,))))
    assert line["events"] == [{"kind": "line_crossed", "time_ns": 7, "track_id": 3, "data": {"line": "Tür"}}]


def test_names_with_quotes_stay_valid_json() -> None:
    found = detections([[0, 0, 9, 9]], [0.9], [0])
    line = json.loads(ResultEncoder(['a "b" \\ é'], clock=clock()).encode(result(found)))
    assert line["objects"][0]["class"] == 'a "b" \\ é'


def test_the_age_is_never_negative() -> None:
    line = json.loads(ResultEncoder([], clock=clock(age_ms=-3)).encode(result(Detections.empty())))
    assert line["age_ms"] == 0.0


@pytest.mark.parametrize(
    ("wall_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999_999_999, "1970-01-01T00:00:00.999Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00.000Z"),
        (CAPTURED_WALL_NS, "2026-11-22T10:00:00.123Z"),
    ],
)
def test_capture_times_are_utc_with_milliseconds(wall_ns: int, text: str) -> None:
    assert WallClock(0).iso(wall_ns) == text


def test_the_default_clock_is_the_wall_clock() -> None:
    now = WallClock().iso(time.monotonic_ns())
    assert now[:13] == time.strftime("%Y-%m-%dT%H", time.gmtime())


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(FLOATS, FLOATS, FLOATS, FLOATS, FLOATS), max_size=8))
def test_every_line_is_json_without_nan(rows: list[tuple[float, float, float, float, float]]) -> None:
    found = detections([list(row[:4]) for row in rows], [row[4] for row in rows], [0] * len(rows))
    line = ResultEncoder(["person"], score=0.0, clock=clock()).encode(result(found))

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is no JSON")

    parsed = json.loads(line, parse_constant=refuse)
    assert len(parsed["objects"]) <= len(rows)


# of a mask in rows 100 to 200 and columns 50 to 70 of 1280x720, by pycocotools
COUNTS = b"TXS1T3\\c00000000000000000000000000000000000000lebj0"


def beside_boxes() -> Detections:
    whole = np.zeros((2, 720, 1280), np.bool_)
    whole[0, 100:200, 50:70] = True
    boxes = np.array([[50, 100, 70, 200], [5, 5, 9, 9]], np.float32)
    points = np.array([[[60, 110.04, 0.9], [61, 190, 0.123]], [[1, 2, 0.5], [np.nan, 4, 0.5]]], np.float32)
    corners = np.array([[[50, 100], [70, 100], [70, 200], [50, 200]]] * 2, np.float32)
    score, kind = np.array([0.9, 0.8], np.float32), np.zeros(2, np.int32)
    return Detections(boxes, score, kind, masks_from_whole(whole, boxes), points, corners)


def test_what_stands_beside_a_box_follows_it() -> None:
    line = ResultEncoder(["person"], clock=clock()).encode(result(beside_boxes()[:1]))
    # 50 columns and 100 rows of nothing, then 20 columns of 100 rows and 620 between them
    counts = COUNTS.replace(b"\\", b"\\\\")
    assert line.endswith(
        b'"objects":[{"track_id":null,"class":"person","score":0.900,"xyxy":[50.0,100.0,70.0,200.0],'
        b'"keypoints":[[60.0,110.0,0.90],[61.0,190.0,0.12]],"corners":[[50.0,100.0],[70.0,100.0],[70.0,200.0],'
        b'[50.0,200.0]],"mask":{"size":[720,1280],"counts":"' + counts + b'"}}],"events":[]}'
    )


def test_masks_are_those_that_pycocotools_reads() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    found = beside_boxes()
    first, second = json.loads(ResultEncoder(["person"], clock=clock()).encode(result(found)))["objects"]
    assert found.masks is not None
    assert (coco.decode(first["mask"]) == whole_masks(found.masks)[0]).all()
    assert coco.area(second["mask"]) == 0
    # a point that is no number
    assert second["keypoints"][1] == [0, 0, 0]


def test_tracks_have_their_own_points_and_the_mask_of_their_detection() -> None:
    found, followed = beside_boxes(), tracks([4, 5], [[0, 0, 9, 9], [50, 100, 70, 200]], [-1, 0])
    followed = replace(followed, keypoints=np.full((2, 2, 3), 7, np.float32))
    lost, seen, free = json.loads(ResultEncoder(["person"], clock=clock()).encode(result(found, followed)))["objects"]
    assert "mask" not in lost and lost["keypoints"] == seen["keypoints"] == [[7, 7, 7]] * 2
    assert seen["mask"]["size"] == [720, 1280] and free["track_id"] is None and "mask" in free


def test_masks_can_be_left_out() -> None:
    line = ResultEncoder(["person"], clock=clock(), has_masks=False).encode(result(beside_boxes()))
    assert b'"mask"' not in line and b'"corners"' in line
