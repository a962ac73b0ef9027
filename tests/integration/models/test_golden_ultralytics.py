"""Exports of Ultralytics, with their own results: the same boxes, the file's names, its way to prepare pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.pictures import picture
from golden.replay import write_replay

from edge.boxes import iou
from edge.errors import EdgeError
from edge.heads.choose import HEADS
from edge.model import open_model
from edge.models.preprocess import Preprocessor
from edge.models.propose import propose_manifest
from edge.types import Classification, Detections

GOLDEN = Path(__file__).parents[2] / "golden" / "ultralytics"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.npz"))
BOXES = [name for name in NAMES if "obb" not in name and "cls" not in name]
CLASSES = ("ball", "helmet", "no helmet", "vest", "cone")
# Ultralytics fits the picture of a free size into as little as it can; the shape of the golden outputs is of that
FREE = {"yolov8n_dynamic"}
SCORE = 0.3


@pytest.mark.parametrize("name", [name for name in BOXES if name not in FREE])
def test_boxes_are_those_of_ultralytics(name: str, tmp_path: Path) -> None:
    golden = write_replay(GOLDEN / f"{name}.npz", tmp_path / f"{name}.onnx")
    model = open_model(tmp_path / f"{name}.onnx", engine="ort", score=SCORE)
    assert model.manifest.classes == (CLASSES[:1] if "pose" in name else CLASSES)
    (found,) = model.predict([picture()])
    assert isinstance(found, Detections)
    expected = golden["boxes"]
    expected = expected[(expected[:, 2] > expected[:, 0]) & (expected[:, 3] > expected[:, 1])]
    # where a mask is empty Ultralytics drops its box as well
    assert (len(found) >= len(expected) if "seg" in name else len(found) == len(expected)) and len(expected)
    overlap = iou(found.xyxy, expected[:, :4].astype(np.float32))
    overlap[found.class_id[:, None] != expected[None, :, 5].astype(int)] = 0
    overlap[np.abs(found.score[:, None] - expected[None, :, 4]) > 1e-4] = 0
    assert "seg" in name or overlap.max(1).min() > 0.99
    assert overlap.max(0).min() > 0.99


@pytest.mark.parametrize("name", ["yolov8n_cls", "yolo11n_cls"])
def test_classifiers_give_the_peers_probabilities(name: str, tmp_path: Path) -> None:
    golden = write_replay(GOLDEN / f"{name}.npz", tmp_path / f"{name}.onnx")
    model = open_model(tmp_path / f"{name}.onnx", engine="ort")
    (found,) = model.predict([picture()])
    assert isinstance(found, Classification)
    assert model.manifest.classes == CLASSES
    assert found.score == pytest.approx(golden["probs"], abs=1e-6)


@pytest.mark.parametrize("name", ["yolov8n", "yolov8n_wide", "yolov8n_cls", "rtdetr"])
def test_pictures_are_prepared_as_ultralytics_does(name: str, tmp_path: Path) -> None:
    golden = write_replay(GOLDEN / f"{name}.npz", tmp_path / f"{name}.onnx")
    manifest = propose_manifest(tmp_path / f"{name}.onnx").manifest
    tensor, _ = Preprocessor(manifest.input, 1).images([picture()])
    levels = np.round(tensor[0] * 255).astype(int)
    assert np.abs(levels - golden["tensor"].astype(int)).max() <= 1


@pytest.mark.parametrize("name", [name for name in NAMES if "obb" in name])
def test_oriented_boxes_are_those_of_ultralytics(name: str, tmp_path: Path) -> None:
    golden = write_replay(GOLDEN / f"{name}.npz", tmp_path / f"{name}.onnx")
    model = open_model(tmp_path / f"{name}.onnx", engine="ort", score=SCORE)
    assert model.manifest.head == ("end2end-obb" if "nms" in name or "end2end" in name else "yolov8-obb")
    (found,) = model.predict([picture()])
    assert isinstance(found, Detections)
    assert found.corners is not None
    # x y w h angle score class; what lies outside of the frame altogether only the peer keeps
    expected = golden["obb"]
    corners = _corners_of(expected)
    assert "corners" not in golden or golden["corners"] == pytest.approx(corners, abs=1e-3)
    height, width = picture().shape[:2]
    is_seen = (corners.max(1) > 0).all(1) & (corners.min(1) < (width, height)).all(1)
    far = _corners_apart(found.corners, corners[is_seen])
    far[found.class_id[:, None] != expected[None, is_seen, 6].astype(int)] = np.inf
    far[np.abs(found.score[:, None] - expected[None, is_seen, 5]) > 1e-4] = np.inf
    assert len(found) == is_seen.sum() > 0
    assert far.min(1).max() < 0.5
    assert far.min(0).max() < 0.5


def _corners_of(boxes: Any) -> Any:
    """(N, 4, 2) of rows ``x y w h angle …``."""
    x, y, w, h, angle = boxes[:, :5].T
    along = np.stack([np.cos(angle), np.sin(angle)], 1) * w[:, None] / 2
    across = np.stack([-np.sin(angle), np.cos(angle)], 1) * h[:, None] / 2
    centre = np.stack([x, y], 1)
    return np.stack([centre + one * along + other * across for one, other in ((1, 1), (1, -1), (-1, -1), (-1, 1))], 1)


def _corners_apart(some: Any, others: Any) -> Any:
    """(N, M) pixels between corners of (N, 4, 2) and (M, 4, 2), whichever of the four is the first."""
    turns = [np.abs(some[:, None] - np.roll(others, turn, 1)[None]).max((2, 3)) for turn in range(4)]
    return np.min(turns, axis=0)


@pytest.mark.parametrize("name", [name for name in NAMES if "pose" in name or "seg" in name])
def test_masks_and_key_points_are_recognised(name: str, tmp_path: Path) -> None:
    write_replay(GOLDEN / f"{name}.npz", tmp_path / f"{name}.onnx")
    manifest = propose_manifest(tmp_path / f"{name}.onnx").manifest
    family = "end2end" if "nms" in name or "end2end" in name else "yolov8"
    assert manifest.head == f"{family}-{'pose' if 'pose' in name else 'seg'}"
    assert manifest.kpt_shape == ((17, 3) if "pose" in name else None)


@pytest.mark.parametrize("name", NAMES)
def test_no_export_is_accepted_under_a_wrong_head(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    write_replay(GOLDEN / f"{name}.npz", path)
    right = propose_manifest(path).manifest.head
    # the boxes alone are right too, but not those of oriented ones
    allowed = {right, right.removesuffix("-seg"), right.removesuffix("-pose")}
    for head in set(HEADS) - allowed:
        with pytest.raises(EdgeError, match=f"head '{head}' does not read this model, head '{right}' does"):
            propose_manifest(path, head=head)


def test_a_free_size_is_that_of_the_metadata(tmp_path: Path) -> None:
    write_replay(GOLDEN / "yolov8n_dynamic.npz", tmp_path / "m.onnx")
    spec = propose_manifest(tmp_path / "m.onnx").manifest.input
    assert (spec.width, spec.height) == (160, 160)
