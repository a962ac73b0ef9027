"""What a viewer that draws for itself is told: outlines that cover the masks, shapes, tints."""

from __future__ import annotations

import base64
import json
from typing import Any

import cv2
import numpy as np

from edge.masks import masks_from_whole, outlines_of
from edge.overlay.marks import Marks
from edge.overlay.palette import SAFE
from edge.types import Detections, Float32, Frame, Letterbox, Prediction, Result, Segmentation

CLASSES = ("background", "road")
FRAME = Frame("door", 0, 7, 1_000, None, np.zeros((90, 160, 3), np.uint8))


class Kerb:
    kind = "line"
    name = "kerb «ä»"
    text = "in 3 · out 4"
    points: Float32 = np.array([[1.04, 2], [100, 50]], np.float32)


def line_of(prediction: Prediction, *shapes: Any) -> Any:
    result = Result(FRAME, prediction, None, ())
    return json.loads(Marks(CLASSES, lambda: shapes).line(result, b'{"stream":"door","objects":[]}'))


def test_the_line_has_the_shapes_as_they_are_now() -> None:
    told = line_of(Detections.empty(), Kerb())
    assert told["stream"] == "door"
    assert told["shapes"] == [
        {"kind": "line", "name": Kerb.name, "text": Kerb.text, "points": [[1.0, 2.0], [100.0, 50.0]]}
    ]


def test_an_outline_covers_the_mask_with_its_hole() -> None:
    whole = np.zeros((1, 90, 160), np.bool_)
    ring = np.zeros((90, 160), np.uint8)
    cv2.circle(ring, (80, 45), 40, 1, cv2.FILLED)
    cv2.circle(ring, (80, 45), 15, 0, cv2.FILLED)
    whole[0] = ring > 0
    masks = masks_from_whole(whole, np.array([[0, 0, 160, 90]], np.float32))
    found = Detections(masks.xyxy, np.array([0.9], np.float32), np.array([1], np.int32), masks=masks)
    (thing,) = line_of(found)["objects"]
    assert thing["outlines"] == outlines_of(masks, 0) and len(thing["outlines"]) == 2
    again = np.zeros((90, 160), np.uint8)
    polygons = [np.array(outline, np.int32).reshape(-1, 2) for outline in thing["outlines"]]
    cv2.fillPoly(again, polygons, 1)
    assert (again != ring).mean() < 0.02
    assert sum(map(len, thing["outlines"])) < 200


def test_a_class_map_becomes_a_picture_in_the_colours_of_its_classes() -> None:
    letterbox = Letterbox(0.1, 0.1, 0, 0, 160, 90, 16, 9)
    class_map = np.zeros((9, 16), np.uint8)
    class_map[5:] = 1
    told = line_of(Segmentation(class_map, letterbox))
    tint = cv2.imdecode(np.frombuffer(base64.b64decode(told["tint"]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert tint is not None and tint.shape == (9, 16, 4)
    assert (tint[:5, :, 3] == 0).all() and (tint[5:, :, 3] > 50).all()
    assert (tint[5:, :, :3] == SAFE[1]).all()
