"""Masks, key points and oriented boxes judged: perfect ones are perfect, and the figures are those of COCO."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.boxes import bounds, corners_of
from edge.masks import masks_from_whole
from edge.types import Detections, Float32
from export.data.open_data import open_dataset
from export.data.sample import Outlines, Sample
from export.evaluate.detect import DetectJudge
from export.evaluate.names import match_classes

pytest.importorskip("pycocotools")
CLASSES = ("boat", "person")
SIZE = (120, 160)


def judged(pairs: list[tuple[Sample, Detections]]) -> dict[str, float]:
    judge = DetectJudge(CLASSES, match_classes(CLASSES, CLASSES))
    for sample, found in pairs:
        judge.add(sample, found)
    return judge.finish()[0]


def boats(seed: int, num: int = 4) -> Float32:
    """(N, 4, 2) corners of oriented boxes that lie apart."""
    rng = np.random.default_rng(seed)
    centre = np.stack([20 + 38 * np.arange(num), rng.uniform(40, 80, num)], axis=1)
    box = np.concatenate([centre, rng.uniform(24, 30, (num, 1)), rng.uniform(8, 12, (num, 1))], axis=1)
    return corners_of(box.astype(np.float32), rng.uniform(-1, 1, num).astype(np.float32))


def filled(corners: Float32) -> np.ndarray:
    whole = np.zeros((len(corners), *SIZE), np.uint8)
    for mask, polygon in zip(whole, corners, strict=True):
        cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1)
    return whole.astype(np.bool_)


def sample_of(corners: Float32, keypoints: Float32 | None = None) -> Sample:
    num = len(corners)
    outlines = tuple([polygon.ravel().tolist()] for polygon in corners)
    return Sample(
        np.zeros((*SIZE, 3), np.uint8),
        "1",
        bounds(corners),
        np.zeros(num, np.int32),
        np.zeros(num, np.bool_),
        np.ones(num, np.float32),
        outlines=Outlines(outlines, keypoints),
    )


def found_of(at: Float32, **beside: object) -> Detections:
    """Objects in the boxes around these corners."""
    num = len(at)
    score = np.linspace(0.9, 0.5, num).astype(np.float32)
    return Detections(bounds(at), score, np.zeros(num, np.int32), **beside)  # type: ignore[arg-type]


def test_perfect_oriented_boxes_are_perfect_and_turned_ones_are_not() -> None:
    corners = boats(1)
    assert judged([(sample_of(corners), found_of(corners, corners=corners))])["oriented_map"] == pytest.approx(1)
    # the boxes around them are the same, they lie the other way round
    mirrored = corners.copy()
    mirrored[..., 0] = corners[..., 0].mean(1, keepdims=True) * 2 - corners[..., 0]
    metrics = judged([(sample_of(corners), found_of(mirrored, corners=mirrored))])
    assert metrics["map50"] == pytest.approx(1, abs=0.01)
    assert metrics["oriented_map"] < 0.6


def test_oriented_precision_is_that_of_coco_for_upright_boxes() -> None:
    rng, pairs = np.random.default_rng(5), []
    for _ in range(6):
        truth = corners_of(
            np.concatenate([rng.uniform(30, 90, (5, 2)), rng.uniform(15, 40, (5, 2))], axis=1).astype(np.float32),
            np.zeros(5, np.float32),
        )
        found = truth + rng.normal(0, 3, (5, 1, 2)).astype(np.float32)
        pairs.append((sample_of(truth), found_of(found, corners=found)))
    metrics = judged(pairs)
    assert metrics["oriented_map"] == pytest.approx(metrics["map"], abs=1e-6)
    assert metrics["oriented_map50"] == pytest.approx(metrics["map50"], abs=1e-6)


def test_perfect_masks_are_perfect_and_halves_are_not() -> None:
    corners = boats(2)
    whole = filled(corners)
    perfect = found_of(corners, masks=masks_from_whole(whole, bounds(corners) + np.array([-2, -2, 2, 2], np.float32)))
    assert judged([(sample_of(corners), perfect)])["mask_map50"] == pytest.approx(1)
    half = whole.copy()
    half[:, :, ::2] = False
    halves = found_of(corners, masks=masks_from_whole(half, bounds(corners) + np.array([-2, -2, 2, 2], np.float32)))
    metrics = judged([(sample_of(corners), halves)])
    assert metrics["map50"] == pytest.approx(1)
    assert metrics["mask_map75"] == 0


def test_key_points_are_judged_by_their_distance() -> None:
    corners = boats(3)
    points = np.concatenate([corners, np.full((4, 4, 1), 2, np.float32)], axis=2)
    near, far = points + np.array([0.1, 0.1, 0], np.float32), points + np.array([9, 0, 0], np.float32)
    good = judged([(sample_of(corners, points), found_of(corners, keypoints=near))])
    bad = judged([(sample_of(corners, points), found_of(corners, keypoints=far))])
    assert good["keypoint_map50"] == pytest.approx(1)
    assert bad["keypoint_map50"] == 0 and bad["map50"] == pytest.approx(1)


def test_what_the_labels_do_not_have_is_not_judged() -> None:
    corners = boats(4)
    sample = Sample(
        np.zeros((*SIZE, 3), np.uint8),
        "1",
        bounds(corners),
        np.zeros(4, np.int32),
        np.zeros(4, np.bool_),
        np.ones(4, np.float32),
    )
    found = found_of(corners, corners=corners, masks=masks_from_whole(filled(corners), bounds(corners)))
    assert not [name for name in judged([(sample, found)]) if name.startswith(("mask", "oriented", "keypoint"))]


def test_coco_files_bring_their_masks_and_key_points(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((*SIZE, 3), np.uint8))
    rle = {"size": list(SIZE), "counts": [30, 10, SIZE[0] * SIZE[1] - 40]}
    rows = [
        {"bbox": [1, 2, 30, 40], "segmentation": [[1, 2, 31, 2, 31, 42, 1, 42]], "keypoints": [5, 6, 2, 7, 8, 1]},
        {"bbox": [10, 20, 30, 40], "segmentation": rle, "iscrowd": 1},
    ]
    numbered = [{**row, "id": number, "image_id": 1, "category_id": 1} for number, row in enumerate(rows)]
    images = [{"id": 1, "file_name": "a.png", "width": SIZE[1], "height": SIZE[0]}]
    text = {"images": images, "annotations": numbered, "categories": [{"id": 1, "name": "boat"}]}
    (tmp_path / "x.json").write_text(json.dumps(text))
    outlines = open_dataset(f"coco:{tmp_path / 'x.json'}")[0].outlines
    assert outlines is not None and outlines.segmentations[1] == rle
    assert outlines.keypoints is not None
    assert outlines.keypoints.tolist() == [[[5, 6, 2], [7, 8, 1]], [[0, 0, 0], [0, 0, 0]]]
