"""Every head on hand-made outputs whose meaning is known."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import EngineError
from edge.heads.choose import HEADS, open_head
from edge.interfaces import Head
from edge.models.manifest import HeadName, InputSpec, Manifest, OutputSpec, Thresholds
from edge.models.preprocess import fit
from edge.types import Array, Classification, Detections, Embedding, Segmentation

pytestmark = pytest.mark.usefixtures("both_ways")
SIDE = 64
SPEC = InputSpec(name="x", width=SIDE, height=SIDE, layout="nchw", dtype="float32", colour="bgr")
CELLS = 64 + 16 + 4
BOX = fit(2 * SIDE, 2 * SIDE, SPEC)


def head_of(name: HeadName, *, classes: int = 3, **changes: object) -> Head:
    manifest = Manifest(
        name="m",
        task="detect",
        head=name,
        input=SPEC,
        classes=tuple(f"c{index}" for index in range(classes)),
        thresholds=Thresholds(score=0.5, track_score=0.3, iou=0.5),
        output=changes.pop("output", READINGS.get(name)),  # type: ignore[arg-type]
        **changes,  # type: ignore[arg-type]
    )
    return open_head(manifest)


def outputs_with_one_object(name: HeadName) -> dict[str, Array]:  # noqa: C901, PLR0912
    """Raw outputs that say: class 1, score 0.9, box 16..32 x 8..24 in model pixels; and, of a second frame, nothing."""
    match name:
        case "edgenet":
            boxes = np.zeros((2, 2, 4), np.float32)
            boxes[0, 0] = (16, 8, 32, 24)
            scores = np.array([[0.9, 0.1], [0, 0]], np.float32)
            return {"boxes": boxes, "scores": scores, "labels": np.array([[1, 0], [0, 0]], np.int64)}
        case "yolox":
            raw = np.zeros((2, CELLS, 8), np.float32)
            # cell (3, 2) of stride 8 begins at (24, 16): the centre of the box
            raw[0, 2 * 8 + 3] = (0, 0, np.log(2), np.log(2), 1.0, 0.1, 0.9, 0.2)
            return {"output": raw}
        case "yolov8":
            raw = np.zeros((2, 7, CELLS), np.float32)
            raw[0, :, 5] = (24, 16, 16, 16, 0.1, 0.9, 0.2)
            return {"output0": raw}
        case "yolov5":
            raw = np.zeros((2, 3 * CELLS, 8), np.float32)
            raw[0, 7] = (24, 16, 16, 16, 1.0, 0.1, 0.9, 0.2)
            return {"output0": raw}
        case "nanodet":
            scores, bins = np.zeros((2, CELLS, 3), np.float32), np.full((2, CELLS, 4, 8), -50, np.float32)
            scores[0, 1 * 8 + 2] = (0.1, 0.9, 0.2)
            # centre of cell (2, 1) is (20, 12): 4 left, 4 up, 12 right, 12 down, in strides of 8
            for side, bin_weights in enumerate([(0, 1), (0, 1), (1, 2), (1, 2)]):
                bins[0, 1 * 8 + 2, side, list(bin_weights)] = 0
            return {"out": np.concatenate([scores, bins.reshape(2, CELLS, 32)], -1)}
        case "ssd":
            scores, boxes = np.zeros((2, 9, 3), np.float32), np.zeros((2, 9, 4), np.float32)
            scores[0, 4] = (0.1, 0.9, 0.0)
            boxes[0, 4] = np.array((16, 8, 32, 24)) / SIDE
            return {"scores": scores, "boxes": boxes}
        case "nanodetplus":
            scores, bins = np.zeros((2, CELLS + 1, 3), np.float32), np.full((2, CELLS + 1, 4, 8), -50, np.float32)
            scores[0, 1 * 8 + 2] = (0.1, 0.9, 0.2)
            # cell (2, 1) lies at (16, 8): nothing left and up, 16 right and down, in strides of 8
            for side, step in enumerate([0, 0, 2, 2]):
                bins[0, 1 * 8 + 2, side, step] = 0
            return {"out": np.concatenate([scores, bins.reshape(2, CELLS + 1, 32)], -1)}
        case "picodet":
            scores, bins = np.zeros((2, 64, 3), np.float32), np.full((2, 64, 4, 8), -50, np.float32)
            scores[0, 1 * 8 + 2] = (0.1, 0.9, 0.2)
            for side, bin_weights in enumerate([(0, 1), (0, 1), (1, 2), (1, 2)]):
                bins[0, 1 * 8 + 2, side, list(bin_weights)] = 0
            rest = {f"cls{k}": np.zeros((2, (SIDE // k) ** 2, 3), np.float32) for k in (16, 32, 64)}
            rest |= {f"reg{k}": np.zeros((2, (SIDE // k) ** 2, 32), np.float32) for k in (64, 32, 16)}
            return rest | {"cls8": scores, "reg8": bins.reshape(2, 64, 32)}
        case "fastestdet":
            raw = np.zeros((2, 8, 4, 4), np.float32)
            # cell (1, 0) of 4x4 begins at (16, 0): the centre (24, 16) is half a cell right and a whole one down
            raw[0, :, 0, 1] = (0.9, np.arctanh(0.5), 40, np.log(1 / 3), np.log(1 / 3), 0.1, 0.9, 0.2)
            return {"out": raw}
        case "centernet":
            heat = np.full((2, 3, 16, 16), -9, np.float32)
            heat[0, 1, 4, 6], heat[0, 1, 4, 5] = np.log(9), 1
            size, offset = np.full((2, 2, 16, 16), 4, np.float32), np.zeros((2, 2, 16, 16), np.float32)
            return {"hm": heat, "wh": size, "reg": offset}
        case "yolonas":
            scores, boxes = np.zeros((2, 9, 3), np.float32), np.zeros((2, 9, 4), np.float32)
            scores[0, 4], boxes[0, 4] = (0.1, 0.9, 0.2), (16, 8, 32, 24)
            return {"boxes": boxes, "scores": scores}
        case "end2end":
            raw = np.zeros((2, 9, 6), np.float32)
            raw[0, 0] = (16, 8, 32, 24, 0.9, 1)
            return {"output0": raw}
        case "triple":
            boxes, scores = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4), np.float32)
            boxes[0, 0], scores[0, 0], scores[0, 1] = (8, 16, 24, 32), 0.9, 0.8
            count, labels = np.array([1, 0]), np.array([[2, 2, 1, 1]] * 2)
            return {"det_boxes": boxes, "num": count, "det_scores": scores, "det_classes": labels}
        case _:
            logits, boxes = np.full((2, 9, 3), -9, np.float32), np.zeros((2, 9, 4), np.float32)
            logits[0, 4, 1] = np.log(9)
            boxes[0, 4] = np.array((24, 16, 16, 16)) / SIDE
            return {"pred_logits": logits, "pred_boxes": boxes}


READINGS: dict[str, OutputSpec] = {
    "centernet": OutputSpec(names={"scores": "hm", "boxes": "wh", "offsets": "reg"}),
    "triple": OutputSpec(
        names={"boxes": "det_boxes", "scores": "det_scores", "labels": "det_classes", "count": "num"},
        columns="y1 x1 y2 x2",
        first_class=1,
    ),
}
DETECTORS: list[HeadName] = [
    *("edgenet", "yolox", "yolov8", "yolov5", "nanodet", "nanodetplus", "picodet", "fastestdet", "centernet"),
    *("ssd", "detr", "yolonas", "end2end", "triple"),
]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_head_finds_the_object_and_in_the_empty_frame_nothing(name: HeadName) -> None:
    first, second = head_of(name, has_background=False).decode(outputs_with_one_object(name), [BOX, BOX])
    assert isinstance(first, Detections)
    assert first.class_id.tolist() == [1]
    assert first.score == pytest.approx([0.9], abs=1e-4)
    assert first.xyxy[0] == pytest.approx([32, 16, 64, 48], abs=1e-3)
    assert (first.xyxy.dtype, first.score.dtype, first.class_id.dtype) == (np.float32, np.float32, np.int32)
    assert isinstance(second, Detections)
    assert (len(second), second.xyxy.shape) == (0, (0, 4))


@pytest.mark.parametrize("name", DETECTORS)
def test_rows_beyond_the_frames_are_padding(name: HeadName) -> None:
    assert len(head_of(name).decode(outputs_with_one_object(name), [BOX])) == 1


def test_every_head_has_a_test_here() -> None:
    # those with masks, key points and angles have tests in test_instance_heads.py
    instances = {name for name in HEADS if name.endswith(("-seg", "-pose", "-obb"))}
    assert set(HEADS) - instances == {*DETECTORS, "semantic", "classify", "embedding"}


def test_a_score_above_one_never_leaves() -> None:
    raw = np.zeros((1, 7, CELLS), np.float32)
    raw[0, :, 5] = (24, 16, 16, 16, 0.1, 315.3, 0.2)
    with pytest.raises(EngineError, match=r"scores go from .* to 315\.3, expected 0 to 1; head 'yolov8' reads this"):
        head_of("yolov8").decode({"output0": raw}, [BOX])


def test_softmax_with_no_object_last_is_a_detr_too() -> None:
    logits, boxes = np.zeros((1, 2, 4), np.float32), np.full((1, 2, 4), 0.5, np.float32)
    logits[0, 0] = np.log((1, 7, 1, 1))
    logits[0, 1] = np.log((1, 1, 1, 97))
    reading = OutputSpec(activation="softmax", background="last")
    (found,) = head_of("detr", output=reading).decode({"logits": logits, "pred_boxes": boxes}, [BOX])
    assert isinstance(found, Detections)
    assert (found.class_id.tolist(), found.score.tolist()) == ([1], pytest.approx([0.7]))


def test_rows_of_all_frames_are_told_apart_by_their_batch_column() -> None:
    reading = OutputSpec(columns="batch x1 y1 x2 y2 class score")
    raw = np.array([[1, 16, 8, 32, 24, 2, 0.8], [0, 16, 8, 32, 24, 1, 0.9]], np.float32)
    first, second = head_of("end2end", output=reading).decode({"out": raw}, [BOX, BOX])
    assert isinstance(first, Detections) and isinstance(second, Detections)
    assert (first.class_id.tolist(), second.class_id.tolist()) == ([1], [2])


def test_a_binary_segmenter_is_cut_at_one_half() -> None:
    values = np.array([[[[0.74, 0.2]]]], np.float32)
    (found,) = head_of("semantic", classes=2, output=OutputSpec(activation="none")).decode({"out": values}, [BOX])
    assert isinstance(found, Segmentation) and found.class_map.tolist() == [[1, 0]]
    (found,) = head_of("semantic", classes=2, output=OutputSpec(activation="sigmoid")).decode(
        {"o": values - 0.5}, [BOX]
    )
    assert isinstance(found, Segmentation) and found.class_map.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("activation", "raw", "expected"),
    [
        ("none", [0.777, 0.9, 0.1], [0.777, 0.9, 0.1]),
        ("sigmoid", [0.0, 0, -99], [0.5, 0.5, 0]),
        ("softmax", [0.0] * 3, [1 / 3] * 3),
    ],
)
def test_the_activation_of_a_classifier_is_the_manifests(
    activation: str, raw: list[float], expected: list[float]
) -> None:
    reading = OutputSpec.model_validate({"activation": activation})
    (found,) = head_of("classify", output=reading).decode({"out": np.array([raw], np.float32)}, [BOX])
    assert isinstance(found, Classification) and found.score == pytest.approx(expected)


@pytest.mark.parametrize("layout", ["map", "nchw", "nhwc"])
def test_the_semantic_head_takes_the_best_class_in_every_layout(layout: str) -> None:
    truth = np.random.default_rng(0).integers(0, 3, (2, 8, 16))
    one_hot = np.eye(3, dtype=np.float32)[truth]
    raw = {"map": truth, "nhwc": one_hot, "nchw": one_hot.transpose(0, 3, 1, 2)}[layout]
    found = head_of("semantic").decode({"out": raw}, [BOX, BOX])
    assert all(isinstance(item, Segmentation) and item.class_map.dtype == np.uint8 for item in found)
    assert all((item.class_map == truth[row]).all() for row, item in enumerate(found) if isinstance(item, Segmentation))
    grid = found[0].letterbox if isinstance(found[0], Segmentation) else BOX
    assert (grid.model_width, grid.model_height, grid.scale_x, grid.scale_y) == (16, 8, 0.125, 0.0625)


@pytest.mark.parametrize(
    "raw",
    [
        np.array([[0.1, 0.8, 0.1]], np.float32),
        np.log(np.array([[1, 8, 1]], np.float32)),
        np.array([[10, 80, 10]], np.uint8),
    ],
    ids=["probabilities", "logits", "bytes"],
)
def test_the_classify_head_gives_probabilities(raw: Array) -> None:
    (found,) = head_of("classify").decode({"out": raw}, [BOX])
    assert isinstance(found, Classification)
    assert found.score == pytest.approx([0.1, 0.8, 0.1], abs=1e-3)


def test_an_embedding_has_length_one() -> None:
    (found,) = head_of("embedding").decode({"out": np.array([[3, 4]], np.float32)}, [BOX])
    assert isinstance(found, Embedding)
    assert found.vector == pytest.approx([0.6, 0.8])
