"""Masks, key points and oriented boxes: made-up outputs whose meaning is known, and the peers' own answers.

The golden files hold the outputs of real exports and what their project's own predictor made of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.boxes import corners_of, distinct, nms_oriented, oriented_iou, prob_iou, turned
from edge.errors import EngineError, ManifestError
from edge.heads.choose import HEADS, open_head
from edge.masks import mask_of, whole_masks
from edge.models.keypoints import COCO_PERSON, COCO_SIGMAS, USUAL_SIGMA, limbs_of, sigmas_of
from edge.models.manifest import HeadName, InputSpec, Manifest, OutputSpec, Thresholds, parse_manifest
from edge.models.preprocess import fit
from edge.types import Array, Detections

pytestmark = pytest.mark.usefixtures("both_ways")
GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "instances").glob("*.npz"))
SIDE = 64
ANCHORS = 84
INSTANCES: list[HeadName] = [name for name in HEADS if name.endswith(("-seg", "-pose", "-obb"))]


def spec(side: int = SIDE) -> InputSpec:
    return InputSpec(name="x", width=side, height=side, layout="nchw", dtype="float32", colour="rgb")


def manifest_of(head: HeadName, classes: tuple[str, ...] = ("a", "b"), **changes: object) -> Manifest:
    settings: dict[str, object] = {
        "name": "m",
        "task": "detect",
        "head": head,
        "input": spec(),
        "classes": classes,
        "kpt_shape": (3, 3) if head.endswith("pose") else None,
        "needs_nms": not head.startswith("end2end"),
        "thresholds": Thresholds(score=0.5, track_score=0.3, iou=0.5),
        **changes,
    }
    return Manifest(**settings)  # type: ignore[arg-type]


BOX = fit(2 * SIDE, SIDE, spec())


def beside(kind: str) -> list[float]:
    """What stands next to the box: the second of two maps; three points; an angle."""
    return {"seg": [0.0, 1.0], "pose": [20, 30, 0.9, 24, 40, 0.8, 99, 32, 0.1], "obb": [np.pi / 2]}[kind]


def outputs_of(head: HeadName) -> dict[str, Array]:
    """Class 1, score 0.9, centre 24, 32, size 16 x 8; a worse one next to it; of a second frame, nothing."""
    family, *kinds = head.split("-")
    more = [number for kind in kinds for number in beside(kind)]
    if family == "end2end":
        raw = np.zeros((2, 10, 6 + len(more)), np.float32)
        box = (24, 32, 16, 8) if "obb" in kinds else (16, 28, 32, 36)
        raw[0, 3] = (*box, 0.9, 1, *more)
        raw[0, 4] = (*box, 0.2, 0, *more)
    else:
        raw = np.zeros((2, 6 + len(more), ANCHORS), np.float32)
        raw[0, :, 5] = (24, 32, 16, 8, 0.1, 0.9, *more)
        raw[0, :, 6] = (25, 32, 16, 8, 0.1, 0.6, *more)
    outputs: dict[str, Array] = {"output0": raw}
    if "seg" in kinds:
        maps = np.full((2, 2, 16, 16), -1, np.float32)
        # left of x = 24 in model pixels
        maps[:, 1, :, :6] = 1
        outputs["output1"] = maps
    return outputs


@pytest.mark.parametrize("head", INSTANCES)
def test_an_object_is_found_once_and_in_the_empty_frame_nothing(head: HeadName) -> None:
    first, second = open_head(manifest_of(head)).decode(outputs_of(head), [BOX, BOX])
    assert isinstance(first, Detections) and isinstance(second, Detections)
    assert (len(first), len(second)) == (1, 0)
    assert first.class_names == ["b"]
    assert first.score == pytest.approx([0.9])
    # the frame is twice as wide as high: half the scale, and 16 model pixels above it
    expected = (40, 16, 56, 48) if head.endswith("obb") else (32, 24, 64, 40)
    assert first.xyxy[0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("head", ["yolov8-seg", "end2end-seg", "end2end-seg-pose"])
def test_masks_are_placed_and_survive_the_engines_next_batch(head: HeadName) -> None:
    outputs = outputs_of(head)
    first = open_head(manifest_of(head)).decode(outputs, [BOX])[0]
    outputs["output1"][:] = 9
    assert isinstance(first, Detections) and first.masks is not None
    mask, place = mask_of(first.masks, 0)
    assert place == (32, 24, 64, 40)
    assert mask[:, :14].all() and not mask[:, 18:].any()


@pytest.mark.parametrize("head", ["yolov8-pose", "end2end-pose", "end2end-seg-pose"])
def test_key_points_are_placed_and_kept_inside(head: HeadName) -> None:
    first = open_head(manifest_of(head)).decode(outputs_of(head), [BOX])[0]
    assert isinstance(first, Detections) and first.keypoints is not None
    assert first.keypoints[0] == pytest.approx(np.array([[40, 28, 0.9], [48, 48, 0.8], [128, 32, 0.1]]), abs=1e-3)


def test_key_points_without_scores_of_their_own_are_sure() -> None:
    raw = np.zeros((1, 4 + 2 + 4, ANCHORS), np.float32)
    raw[0, :, 5] = (24, 32, 16, 8, 0.1, 0.9, 20, 30, 24, 40)
    first = open_head(manifest_of("yolov8-pose", kpt_shape=(2, 2))).decode({"output0": raw}, [BOX])[0]
    assert isinstance(first, Detections) and first.keypoints is not None
    assert first.keypoints[0] == pytest.approx(np.array([[40, 28, 1], [48, 48, 1]]), abs=1e-3)


@pytest.mark.parametrize("head", INSTANCES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_numbers_that_are_none_leave_no_object_that_is_none(head: HeadName, value: float) -> None:
    outputs = outputs_of(head)
    raw = outputs["output0"]
    is_listed = head.startswith("end2end")
    for place in range(raw.shape[2] if is_listed else raw.shape[1]):
        spoilt = raw.copy()
        if is_listed:
            spoilt[0, 3, place] = value
        else:
            spoilt[0, place, 5] = value
        with np.errstate(all="ignore"):
            try:
                found = open_head(manifest_of(head)).decode({**outputs, "output0": spoilt}, [BOX])[0]
            except EngineError as error:
                assert "a score of" in str(error)
                continue
        assert isinstance(found, Detections)
        assert np.isfinite(found.xyxy).all() and np.isfinite(found.score).all()
        assert found.keypoints is None or np.isfinite(found.keypoints).all()
        assert found.corners is None or np.isfinite(found.corners).all()


@pytest.mark.parametrize("head", ["yolov8-obb", "end2end-obb"])
def test_corners_stand_around_an_oriented_box(head: HeadName) -> None:
    first = open_head(manifest_of(head)).decode(outputs_of(head), [BOX])[0]
    assert isinstance(first, Detections) and first.corners is not None
    assert {tuple(map(round, corner)) for corner in first.corners[0].tolist()} == {
        (40, 16),
        (56, 16),
        (56, 48),
        (40, 48),
    }


@pytest.mark.parametrize("head", ["yolov8-seg", "yolov8-pose", "yolov8-obb"])
def test_candidates_may_come_first(head: HeadName) -> None:
    outputs = outputs_of(head)
    turned_over = {name: raw.transpose(0, 2, 1) if raw.ndim == 3 else raw for name, raw in outputs.items()}
    first, second = (open_head(manifest_of(head)).decode(found, [BOX])[0] for found in (outputs, turned_over))
    assert isinstance(first, Detections) and isinstance(second, Detections)
    assert (first.xyxy == second.xyxy).all() and len(second) == 1


@pytest.mark.parametrize("head", INSTANCES)
def test_outputs_of_another_model_are_refused(head: HeadName) -> None:
    with pytest.raises(EngineError, match="numbers for each candidate"):
        open_head(manifest_of(head)).decode({"output0": np.zeros((1, 84, 8400), np.float32)}, [BOX])


@pytest.mark.parametrize("head", INSTANCES)
def test_a_score_above_one_never_leaves(head: HeadName) -> None:
    outputs = outputs_of(head)
    outputs["output0"][0, ..., 5 if not head.startswith("end2end") else 4] = 315.0
    with pytest.raises(EngineError, match="a score of 315, expected at most 1"):
        open_head(manifest_of(head)).decode(outputs, [BOX])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files_come_out_as_the_peer_has_them(path: Path) -> None:
    kept = np.load(path)
    face = json.loads(str(kept["face"]))
    head = open_head(
        manifest_of(
            face["head"],
            tuple(face["classes"]),
            input=spec(face["size"]),
            kpt_shape=face["kpt_shape"],
            thresholds=Thresholds(score=face["score"], track_score=face["score"], iou=face["iou"]),
        )
    )
    outputs = {name: kept[f"output{number}"] for number, name in enumerate(face["names"])}
    width, height = face["picture"]
    found = head.decode(outputs, [fit(width, height, spec(face["size"]))])[0]
    assert isinstance(found, Detections)
    if found.masks is not None:
        # the peer drops objects without a pixel
        found = found[np.array([mask_of(found.masks, row)[0].any() for row in range(len(found))])]
    compare(found, kept, (height, width))


def compare(found: Detections, kept: np.lib.npyio.NpzFile, size: tuple[int, int]) -> None:
    """Every object of the peer's is one of ours, and the other way round, with all that it has."""
    theirs = kept["boxes"]
    inside = np.clip(theirs[:, :4], 0, (size[1], size[0], size[1], size[0]))
    # the peer also gives boxes that lie outside the picture
    shown = np.flatnonzero((inside[:, 2:] - inside[:, :2] > 1e-3).all(axis=1))
    gap = np.abs(found.xyxy[None] - inside[shown, None]).max(axis=2) + 1e3 * np.abs(
        found.score[None] - theirs[shown, None, 4]
    )
    gap[found.class_id[None] != theirs[shown, None, 5]] = np.inf
    match = gap.argmin(axis=1)
    assert gap.min(axis=1).max() <= 0.05
    assert len(set(match.tolist())) == len(shown) == len(found) > 3
    ours = found[match]
    if "corners" in kept:
        assert ours.corners is not None
        corners = kept["corners"][shown]
        gaps = [np.abs(ours.corners - np.roll(corners, turn, axis=1)).max(axis=(1, 2)) for turn in range(4)]
        assert np.min(gaps, axis=0).max() <= 0.5
    if "keypoints" in kept:
        assert ours.keypoints is not None
        assert np.abs(ours.keypoints[..., :2] - kept["keypoints"][shown][..., :2]).max() <= 0.5
    if "masks" in kept:
        assert ours.masks is not None
        bits = np.unpackbits(kept["masks"], count=len(theirs) * size[0] * size[1])
        masks = bits.reshape(len(theirs), *size).astype(np.bool_)[shown]
        mine = whole_masks(ours.masks)
        shared, union = (masks & mine).sum((1, 2)), (masks | mine).sum((1, 2))
        assert (shared / union).min() > 0.98


def test_rf_detr_gives_every_object_a_map_of_its_own() -> None:
    rng = np.random.default_rng(4)
    width, height, queries = 200, 100, 12
    maps = np.stack([cv2.GaussianBlur(rng.normal(size=(24, 24)).astype(np.float32), (0, 0), 2) for _ in range(queries)])
    maps[3] = -1
    boxes = rng.uniform(0.2, 0.8, (1, queries, 4)).astype(np.float32)
    outputs = {"dets": boxes, "labels": rng.normal(0, 2, (1, queries, 2)).astype(np.float32), "masks": maps[None]}
    reading = OutputSpec(names={"boxes": "dets", "scores": "labels", "masks": "masks"}, activation="sigmoid")
    stretched = spec().model_copy(update={"resize": "stretch"})
    described = manifest_of("detr", input=stretched, output=reading, needs_nms=False)
    assert described.anchors == ("mask-foot",)
    found = open_head(described).decode(outputs, [fit(width, height, stretched)])[0]
    assert isinstance(found, Detections) and found.masks is not None
    score = 1 / (1 + np.exp(-outputs["labels"][0]))
    # the best of all scores, as many as there are queries; a query may stand for two classes
    least = np.sort(score, axis=None)[-queries]
    shown = np.nonzero(score >= max(least, 0.3))[0]
    assert len(found) == len(shown) > len(set(shown.tolist())) > 3
    # bilinear between the middles of the cells over the whole frame, above zero; no box cuts it
    expected = np.stack([cv2.resize(maps[row], (width, height)) > 0 for row in shown])
    maps[:] = 9
    mine = whole_masks(found.masks)
    shared, union = (expected & mine).sum((1, 2)), (expected | mine).sum((1, 2))
    assert (shared >= 0.98 * union).all()
    assert (whole_masks(found[1:3].masks) == mine[1:3]).all()  # type: ignore[arg-type]


def test_oriented_boxes_there_and_back() -> None:
    box = np.array([[50, 40, 30, 10], [20, 20, 8, 16]], np.float32)
    angle = np.array([0.4, -1.1], np.float32)
    back, angles = turned(corners_of(box, angle))
    assert back == pytest.approx(box, abs=1e-4)
    assert angles == pytest.approx(angle, abs=1e-5)


def test_crossing_boxes_are_two_objects() -> None:
    box = np.array([[50, 50, 60, 8]] * 3, np.float32)
    angle = np.array([np.pi / 4, -np.pi / 4, np.pi / 4 + 0.02], np.float32)
    score, kind = np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int32)
    assert nms_oriented(box, angle, score, kind, 0.5).tolist() == [0, 1]
    corners = corners_of(box, angle)
    found = Detections(np.tile(np.array([25, 25, 75, 75], np.float32), (3, 1)), score, kind, corners=corners)
    assert distinct(found, 0.8, per_class=False).tolist() == [0, 1]


def test_probable_overlap_of_the_same_and_of_far_boxes() -> None:
    box, angle = np.array([[0, 0, 9, 3], [900, 0, 9, 3]], np.float32), np.zeros(2, np.float32)
    overlap = prob_iou(box, angle, box, angle)
    assert overlap == pytest.approx(np.eye(2), abs=1e-6)


def test_areas_that_oriented_boxes_share() -> None:
    square = np.array([[[0, 0], [10, 0], [10, 10], [0, 10]]], np.float32)
    diamond = np.array([[[5, -2], [12, 5], [5, 12], [-2, 5]]], np.float32)
    # the diamond loses a triangle of height 2 at each corner, the square one with legs of 3
    assert oriented_iou(square, diamond)[0, 0] == pytest.approx(82 / (100 + 98 - 82))
    assert oriented_iou(square, square[:, ::-1])[0, 0] == pytest.approx(1)
    assert oriented_iou(square, square + 50)[0, 0] == 0
    assert oriented_iou(square[:0], square).shape == (0, 1)


def test_names_of_key_points() -> None:
    known = manifest_of("yolov8-pose", ("person",), kpt_shape=(17, 3))
    assert known.keypoint_names == COCO_PERSON
    assert known.anchors[15] == "keypoint:left_ankle"
    assert manifest_of("yolov8-pose", ("dog",), kpt_shape=(17, 3)).keypoint_names[15] == "15"
    named = manifest_of("yolov8-pose", kpt_shape=(2, 3), keypoints=("head", "tail"))
    assert named.anchors == ("keypoint:head", "keypoint:tail")
    assert manifest_of("end2end-seg").anchors == ("mask-foot",)
    # a head that reads boxes only gives no points, whatever stands behind them
    assert manifest_of("yolov8", kpt_shape=(17, 3)).anchors == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kpt_shape": None}, "needs kpt_shape"),
        ({"keypoints": ("head",)}, "1 names of key points do not fit"),
        ({"kpt_shape": (3, 4)}, "kpt_shape"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    raw = json.loads(manifest_of("yolov8-pose").to_json()) | changes
    with pytest.raises(ManifestError, match=message):
        parse_manifest(json.dumps(raw), "m.json")


def test_joints_are_joined_and_judged_by_their_names() -> None:
    assert limbs_of(COCO_PERSON)[0] == (15, 13) and limbs_of(("head", "tail")) == ()
    names = ("head", "left_shoulder", "left_elbow", "right_shoulder")
    assert set(limbs_of(names)) == {(0, 1), (0, 3), (1, 2), (1, 3)}
    assert sigmas_of(4, names) == (USUAL_SIGMA, 0.079, 0.072, 0.079)
    assert sigmas_of(17) == COCO_SIGMAS == sigmas_of(17, COCO_PERSON) and sigmas_of(2) == (USUAL_SIGMA,) * 2
