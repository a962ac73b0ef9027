"""The annotated picture: what is drawn, where, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.masks import masks_from_whole
from edge.overlay import Overlay, StreamState, Theme
from edge.overlay.palette import SAFE, ink_on
from edge.overlay.shapes import draw_box
from edge.overlay.text import PlateStyle, blend, make_plate
from edge.types import (
    Classification,
    Detections,
    Event,
    Frame,
    Letterbox,
    Prediction,
    Result,
    Segmentation,
    Shape,
    Tracks,
)

GREY = 90
NO_STATUS = Theme(has_status=False)


def frame(width: int = 640, height: int = 360, seq: int = 0, time_ns: int | None = None) -> Frame:
    image = np.full((height, width, 3), GREY, np.uint8)
    image.setflags(write=False)
    return Frame("door", 0, seq, 0, seq * 40_000_000 if time_ns is None else time_ns, image)


def detections(*boxes: tuple[float, float, float, float], score: float = 0.9) -> Detections:
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(xyxy, np.full(len(xyxy), score, np.float32), np.zeros(len(xyxy), np.int32))


def tracks_of(found: Detections, first_id: int = 1) -> Tracks:
    num = len(found)
    return Tracks(
        np.arange(first_id, first_id + num, dtype=np.int64),
        found.xyxy,
        found.score,
        found.class_id,
        np.ones(num, np.float32),
        np.zeros((num, 2), np.float32),
        np.arange(num, dtype=np.int32),
    )


def changed(picture: np.ndarray) -> np.ndarray:
    return (picture != GREY).any(axis=2)


def test_a_box_is_drawn_where_the_detection_is_and_the_frame_stays_as_it_was() -> None:
    given_frame = frame()
    picture = Overlay(["person"], NO_STATUS).draw(Result(given_frame, detections((100, 100, 200, 300))), StreamState())
    assert (picture[200, 100] == SAFE[0]).all()
    assert (picture[200, 199] == SAFE[0]).all()
    assert (picture[299, 150] == SAFE[0]).all()
    assert (given_frame.image == GREY).all()
    assert not changed(picture)[150:280, 110:190].any()


def test_nothing_to_show_changes_nothing() -> None:
    picture = Overlay(["person"], NO_STATUS).draw(Result(frame(), Detections.empty(), Tracks.empty()), StreamState())
    assert not changed(picture).any()


def test_detections_below_the_threshold_are_not_drawn_and_those_of_tracks_only_once() -> None:
    found = detections((100, 100, 200, 300))
    weak = Result(frame(), detections((100, 100, 200, 300), score=0.2))
    assert not changed(Overlay(["person"], NO_STATUS).draw(weak, StreamState())).any()
    once = Overlay(["person"], NO_STATUS).draw(Result(frame(), found, tracks_of(found)), StreamState())
    only_track = Result(frame(), Detections.empty(), tracks_of(found)[np.array([True])])
    alone = Overlay(["person"], NO_STATUS).draw(
        Result(frame(), Detections.empty(), _predicted(only_track.tracks)), StreamState()
    )
    assert np.array_equal(once, alone)


def _predicted(tracks: Tracks | None) -> Tracks:
    assert tracks is not None
    return Tracks(
        tracks.track_id,
        tracks.xyxy,
        tracks.score,
        tracks.class_id,
        tracks.age,
        tracks.velocity,
        tracks.detection * 0 - 1,
    )


def test_a_trail_follows_a_moving_track_and_ends_with_its_time() -> None:
    overlay = Overlay(["person"], Theme(has_status=False, trail_s=1.0))
    for seq in range(10):
        found = detections((10 + 20 * seq, 100, 60 + 20 * seq, 200))
        picture = overlay.draw(Result(frame(seq=seq), found, tracks_of(found)), StreamState())
    assert changed(picture)[199:202, 60:180].any(axis=0).all()
    later = overlay.draw(Result(frame(seq=100), found, tracks_of(found)), StreamState())
    assert not changed(later)[199:202, 60:180].any()


def test_trails_are_forgotten_and_bounded() -> None:
    overlay = Overlay(["person"], Theme(has_status=False, trail_s=1.0))
    for seq in range(200):
        found = detections((seq % 500, 100, seq % 500 + 40, 200))
        overlay.draw(Result(frame(seq=seq), found, tracks_of(found, first_id=seq)), StreamState())
    assert len(overlay._trails.points) <= 27
    found = detections((0, 100, 40, 200))
    for seq in range(200, 400):
        overlay.draw(Result(frame(seq=seq), found, tracks_of(found)), StreamState())
    assert all(len(path) <= 96 for path in overlay._trails.points.values())


def test_time_that_steps_back_starts_the_trails_anew() -> None:
    overlay = Overlay(["person"], NO_STATUS)
    for seq in (50, 51, 52):
        found = detections((10 * seq, 100, 10 * seq + 40, 200))
        overlay.draw(Result(frame(seq=seq), found, tracks_of(found)), StreamState())
    overlay.draw(Result(frame(seq=0), found, tracks_of(found)), StreamState())
    assert [len(path) for path in overlay._trails.points.values()] == [1]


@pytest.mark.parametrize("size", [(64, 48), (854, 480), (1280, 720), (3840, 2160)])
def test_every_size_is_drawn_with_lines_that_grow_with_it(size: tuple[int, int]) -> None:
    width, height = size
    box = (width * 0.3, height * 0.4, width * 0.6, height * 0.9)
    picture = Overlay(["person"], NO_STATUS).draw(Result(frame(width, height), detections(box)), StreamState())
    row = (picture[round(height * 0.7)] == SAFE[0]).all(axis=1)
    assert row.sum() == 2 * max(round(2 * height / 720), 1)


@pytest.mark.parametrize("state", ["frozen", "offline", "connecting"])
def test_a_stream_that_is_not_live_is_stamped_and_dimmed(state: str) -> None:
    live = Overlay(["person"]).draw(Result(frame(), Detections.empty()), StreamState("live"))
    stamped = Overlay(["person"]).draw(Result(frame(), Detections.empty()), StreamState(state, note="for 12 s"))
    assert (live[-5:, -5:] == GREY).all()
    assert (stamped[-5:, -5:] == GREY // 2).all()
    assert (stamped[180, 250:390] != GREY // 2).any()


def test_masks_tint_only_their_pixels() -> None:
    found = detections((100, 100, 200, 300))
    mask = np.zeros((1, 360, 640), np.bool_)
    mask[0, 150:250, 120:180] = True
    masked = Detections(found.xyxy, found.score, found.class_id, masks_from_whole(mask, found.xyxy))
    difference = changed(Overlay(["person"], NO_STATUS).draw(Result(frame(), masked), StreamState()))
    assert difference[160:240, 125:175].all()
    assert not difference[260:290, 110:190].any()


def letterbox(size: int) -> Letterbox:
    return Letterbox(size / 640, size / 640, 0, (size - 360 * size / 640) / 2, 640, 360, size, size)


def test_a_class_map_tints_the_picture_without_its_padding_and_background() -> None:
    class_map = np.full((64, 64), 2, np.uint8)
    class_map[14:32] = 1
    class_map[32:50] = 0
    prediction = Segmentation(class_map, letterbox(64))
    picture = Overlay(["background", "sky", "road"], NO_STATUS).draw(Result(frame(), prediction), StreamState())
    difference = changed(picture)
    assert difference[5:160, 5:635].all()
    assert not difference[200:300, 300:600].any()


def test_a_classification_is_written_at_the_lower_left() -> None:
    prediction = Classification(np.array([0.1, 0.9], np.float32))
    difference = changed(Overlay(["cat", "dog"], NO_STATUS).draw(Result(frame(), prediction), StreamState()))
    assert difference[300:, :200].any()
    assert not difference[:200].any()


def test_zones_and_lines_are_drawn() -> None:
    zone = Shape("zone", "gate", np.array([[300, 100], [500, 100], [500, 300], [300, 300]], np.float32), "2 inside")
    line = Shape("line", "kerb", np.array([[50, 300], [250, 300]], np.float32), "in 1  out 0")
    overlay = Overlay(["person"], NO_STATUS, (zone, line))
    difference = changed(overlay.draw(Result(frame(), Detections.empty()), StreamState()))
    assert difference[150:290, 350:450].all()
    assert difference[300, 60:240].all()


PREDICTIONS = st.lists(
    st.tuples(*[st.floats(-2000, 4000, width=32) | st.just(float("nan")) for _ in range(4)]), max_size=6
)


@settings(max_examples=examples(60), deadline=None)
@given(PREDICTIONS, st.integers(8, 300), st.integers(8, 300))
def test_boxes_anywhere_are_drawn_without_error(
    boxes: list[tuple[float, float, float, float]], width: int, height: int
) -> None:
    found = detections(*boxes)
    result = Result(frame(width, height), found, tracks_of(found), (Event("x", "door", 0),))
    picture = Overlay(["Größe 日本"], Theme(colour_by="track")).draw(result, StreamState("frozen", 12.5, 30.0))
    assert picture.shape == (height, width, 3)


@pytest.mark.parametrize("prediction", [detections((0, 0, 300, 200)), Classification(np.full(3, 1 / 3, np.float32))])
def test_class_ids_beyond_the_names_are_shown_by_number(prediction: Prediction) -> None:
    picture = Overlay([], NO_STATUS).draw(Result(frame(), prediction), StreamState())
    assert changed(picture).any()


@pytest.mark.parametrize("x", [-30, 0, 55, 95, 300])
@pytest.mark.parametrize("y", [-10, 0, 40, 200])
def test_a_plate_is_cut_at_the_edges(x: int, y: int) -> None:
    image = np.full((50, 100, 3), GREY, np.uint8)
    plate = make_plate("person 12", 14, PlateStyle())
    blend(image, plate, x, y)
    whole = np.full((500, 900, 3), GREY, np.uint8)
    blend(whole, plate, x + 200, y + 200)
    assert np.array_equal(image, whole[200:250, 200:300])


@pytest.mark.parametrize("thickness", [1, 2, 3, 6])
def test_the_corners_of_a_box_are_symmetric(thickness: int) -> None:
    image = np.full((120, 160, 3), GREY, np.uint8)
    draw_box(image, (20, 20, 140, 100), (0, 200, 255), thickness, 12)
    difference = np.abs(image.astype(int) - image[::-1, ::-1].astype(int))
    # anti-aliased strokes of OpenCV are not exactly symmetric
    assert (difference.max(axis=2) > 120).sum() <= 12 * thickness


@pytest.mark.parametrize("colour", SAFE)
def test_label_text_is_readable_on_every_colour(colour: tuple[int, int, int]) -> None:
    def luminance(bgr: tuple[int, int, int]) -> float:
        parts = [v / 255 / 12.92 if v / 255 <= 0.03928 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in bgr]
        return 0.0722 * parts[0] + 0.7152 * parts[1] + 0.2126 * parts[2]

    low, high = sorted((luminance(colour), luminance(ink_on(colour))))
    assert (high + 0.05) / (low + 0.05) >= 4.0


def test_an_oriented_box_is_drawn_as_it_lies() -> None:
    found = detections((100, 100, 300, 300))
    corners = np.array([[[200, 100], [300, 200], [200, 300], [100, 200]]], np.float32)
    turned = Detections(found.xyxy, found.score, found.class_id, corners=corners)
    difference = changed(Overlay(["person"], NO_STATUS).draw(Result(frame(), turned), StreamState()))
    assert difference[248:253, 248:253].any() and difference[198:203, 98:103].any()
    # the upright box around it is not drawn
    assert not difference[290:300, 101:140].any()


def test_key_points_seen_well_are_drawn_and_joined() -> None:
    found = detections((100, 100, 300, 300))
    points = np.array([[[120, 150, 0.9], [120, 250, 0.9], [250, 250, 0.1], [np.nan, 200, 0.9]]], np.float32)
    figure = Detections(found.xyxy, found.score, found.class_id, keypoints=points)
    overlay = Overlay(["person"], NO_STATUS, limbs=((0, 1), (1, 2), (0, 3)))
    difference = changed(overlay.draw(Result(frame(), figure), StreamState()))
    assert difference[150:250, 119:122].any(axis=1).all()
    assert not difference[240:260, 130:290].any()


def test_a_track_is_tinted_in_its_own_colour_and_without_a_detection_not_at_all() -> None:
    whole = np.zeros((1, 360, 640), np.bool_)
    whole[0, 100:300, 100:200] = True
    found = detections((100, 100, 200, 300))
    masked = Detections(found.xyxy, found.score, found.class_id, masks_from_whole(whole, found.xyxy))
    for row, is_tinted in ((0, True), (-1, False)):
        followed = Tracks(
            np.array([3], np.int64), found.xyxy, found.score, found.class_id, np.ones(1, np.float32),
            np.zeros((1, 2), np.float32), np.array([row], np.int32),
        )  # fmt: skip
        theme = Theme(has_status=False, score=0.99, trail_s=0)
        difference = changed(Overlay(["person"], theme).draw(Result(frame(), masked, followed), StreamState()))
        assert difference[150:250, 120:180].all() == is_tinted
