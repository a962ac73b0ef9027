"""Exports of transformers, with its own results: the same picture goes in and the same objects come out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.pictures import picture
from golden.replay import write_replay

from edge.boxes import iou
from edge.model import Model, open_model
from edge.models.propose import propose_manifest
from edge.types import Classification, Detections, Segmentation

GOLDEN = Path(__file__).parents[2] / "golden" / "transformers"
NAMES = sorted(folder.name for folder in GOLDEN.iterdir())
CLASSES = ("ball", "helmet", "no helmet", "vest", "cone")
SCORE = 0.3
# a grey level is 1/255, and the deviation that the exporters divide by is mostly about a quarter
ONE_LEVEL = 1 / 255 / 0.2


def export_of(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The model file with the two JSON files that were saved with it, and the golden arrays."""
    for file in (GOLDEN / name).glob("*.json"):
        shutil.copy(file, folder)
    return folder / "model.onnx", write_replay(GOLDEN / name / "golden.npz", folder / "model.onnx")


def answered(name: str, folder: Path) -> tuple[Any, dict[str, Any], Model]:
    path, golden = export_of(name, folder)
    model = open_model(path, engine="ort", score=SCORE)
    (found,) = model.predict([picture()])
    return found, golden, model


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_prepared_as_transformers_does(name: str, tmp_path: Path) -> None:
    path, golden = export_of(name, tmp_path)
    tensor, _ = open_model(path, engine="ort").preprocessor.images([picture()])
    assert np.abs(tensor[0] - golden["tensor"].astype(np.float32)).max() <= ONE_LEVEL


@pytest.mark.parametrize("name", [name for name in NAMES if "detr" in name or name in ("deimv2", "dfine", "yolos")])
def test_boxes_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    found, golden, model = answered(name, tmp_path)
    assert isinstance(found, Detections)
    assert model.manifest.classes == CLASSES
    expected = golden["boxes"]
    overlap = iou(found.xyxy, expected[:, :4].astype(np.float32))
    overlap[found.class_id[:, None] != expected[None, :, 5].astype(int)] = 0
    overlap[np.abs(found.score[:, None] - expected[None, :, 4]) > 1e-4] = 0
    assert len(found) == len(expected) > 0
    assert overlap.max(1).min() > 0.99
    assert overlap.max(0).min() > 0.99


@pytest.mark.parametrize(
    "name", ["convnext", "deit", "efficientnet", "mobilenet_v2", "resnet", "vit", "vit_lanczos", "vit_nearest"]
)
def test_classifiers_give_the_peers_probabilities(name: str, tmp_path: Path) -> None:
    found, golden, model = answered(name, tmp_path)
    assert isinstance(found, Classification)
    assert model.manifest.classes == CLASSES
    assert found.score == pytest.approx(golden["probs"], abs=1e-6)


@pytest.mark.parametrize("name", ["segformer", "mobilevit_seg"])
def test_segmenters_give_the_class_of_each_cell(name: str, tmp_path: Path) -> None:
    found, golden, model = answered(name, tmp_path)
    assert isinstance(found, Segmentation)
    assert model.manifest.classes == CLASSES
    assert (found.class_map == golden["output0"][0].argmax(0)).all()


PROCESSOR = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        # as of the first years, when the size was one number and nothing named a share
        ({"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, **PROCESSOR}, ("crop", 0.875)),
        # large pictures are not cut
        (
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 384},
                "crop_pct": 0.9,
                **PROCESSOR,
            },
            ("stretch", None),
        ),
        (
            {
                "image_processor_type": "LevitImageProcessor",
                "size": {"shortest_edge": 224},
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
                **PROCESSOR,
            },
            ("crop", 0.875),
        ),
        (
            {
                "image_processor_type": "PoolFormerImageProcessorFast",
                "size": {"shortest_edge": 224},
                "crop_pct": 0.95,
                "crop_size": {"height": 224, "width": 224},
                **PROCESSOR,
            },
            ("crop", 0.95),
        ),
    ],
)
def test_processors_that_cut_by_rules_of_their_own(
    processor: dict[str, Any], expected: tuple[str, float | None], tmp_path: Path
) -> None:
    path, _ = export_of("vit", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    spec = propose_manifest(path).manifest.input
    assert spec.resize == expected[0]
    if expected[1] is not None:
        assert spec.crop == pytest.approx(expected[1], abs=1e-6)
