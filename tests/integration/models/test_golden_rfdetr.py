"""Exports of RF-DETR with its own results: the same picture goes in, and the same objects and masks come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.pictures import picture
from golden.replay import write_replay

from edge.boxes import iou
from edge.masks import whole_masks
from edge.model import Model, open_model
from edge.types import Array, Detections

GOLDEN = Path(__file__).parents[2] / "golden" / "rfdetr"
NAMES = ("rfdetr_nano", "rfdetr_seg_nano")
SCORE = 0.3
# divided by the deviation of ImageNet's colours, 0.22 at least
ONE_LEVEL = 1 / 255 / 0.22
NUM_MASKS = 8


def opened(name: str, folder: Path) -> tuple[Model, dict[str, Any]]:
    golden = write_replay(GOLDEN / name / "golden.npz", folder / "model.onnx")
    return open_model(folder / "model.onnx", engine="ort", score=SCORE), golden


def answered(name: str, folder: Path) -> tuple[Detections, dict[str, Any]]:
    model, golden = opened(name, folder)
    (found,) = model.predict([picture()])
    assert isinstance(found, Detections)
    return found, golden


def partners(found: Detections, expected: Array) -> Array:
    """(N, M) overlap of ours with the peer's of the same class and score."""
    overlap = iou(found.xyxy, expected[:, :4].astype(np.float32))
    overlap[found.class_id[:, None] != expected[None, :, 5].astype(int)] = 0
    overlap[np.abs(found.score[:, None] - expected[None, :, 4]) > 1e-4] = 0
    return overlap


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_prepared_as_rf_detr_does(name: str, tmp_path: Path) -> None:
    model, golden = opened(name, tmp_path)
    tensor, _ = model.preprocessor.images([picture()])
    assert np.abs(tensor[0] - golden["tensor"].astype(np.float32)).max() <= ONE_LEVEL


@pytest.mark.parametrize("name", NAMES)
def test_boxes_are_those_of_rf_detr(name: str, tmp_path: Path) -> None:
    found, golden = answered(name, tmp_path)
    overlap = partners(found, golden["boxes"])
    assert len(found) == len(golden["boxes"]) > 10
    assert overlap.max(1).min() > 0.99
    assert overlap.max(0).min() > 0.99


def test_masks_are_those_of_rf_detr(tmp_path: Path) -> None:
    found, golden = answered("rfdetr_seg_nano", tmp_path)
    assert found.masks is not None
    height, width = picture().shape[:2]
    expected = np.unpackbits(golden["masks"]).reshape(NUM_MASKS, height, width).astype(np.bool_)
    ours = whole_masks(found.masks)
    overlap = partners(found, golden["boxes"])
    for number, mask in enumerate(expected):
        mine = ours[overlap[:, number].argmax()]
        union = (mine | mask).sum()
        assert union == 0 or (mine & mask).sum() / union > 0.98
    assert expected.any()
