"""What is true of every shipped model: it runs, it is small, and its manifest says how good it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edge.model import open_model
from edge.models.manifest import read_sidecar
from edge.models.shipped import FOLDER, demo_model
from export.data.open_data import first, open_dataset
from export.evaluate.evaluate import evaluate_model
from export.evaluate.report import MAIN_METRIC

MODELS = sorted(FOLDER.glob("*.onnx"))
# 7.7 of them are the three forms of the model with masks and key points
ALL_MB = 26
STREET = ("person", "bicycle", "car", "motorbike", "bus", "truck", "train", "cat", "dog", "horse")


def test_all_of_them_are_small() -> None:
    assert len(MODELS) >= 5
    assert sum(path.stat().st_size for path in MODELS) < ALL_MB * 1e6


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_its_manifest_says_how_good_it_is_and_what_it_was_made_of(path: Path) -> None:
    manifest = read_sidecar(path)
    assert manifest is not None
    assert manifest.provenance.dataset
    assert manifest.provenance.terms
    accuracy = manifest.accuracy[manifest.precision][MAIN_METRIC[manifest.task]]
    assert accuracy > 0.15
    if manifest.precision == "int8":
        assert accuracy >= 0.99 * manifest.accuracy["fp32"][MAIN_METRIC[manifest.task]]
        assert manifest.calibration is not None


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_its_graph_has_no_nms_and_runs(path: Path) -> None:
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert not kinds & {"NonMaxSuppression", "EfficientNMS_TRT"}
    model = open_model(path, engine="ort", threads=1)
    picture = np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8)
    assert len(model.predict([picture, picture[::-1].copy()])) == 2
    model.close()


@pytest.mark.parametrize("source", ["0", "rtsp://door/1", "walk.mp4"])
def test_the_demo_looks_at_real_pictures_with_a_model_of_real_pictures(source: str) -> None:
    manifest = read_sidecar(demo_model(source))
    assert manifest is not None
    assert manifest.classes == STREET
    assert demo_model() != demo_model(source)


def test_the_int8_street_detector_sees_what_was_asked_for(shared_data: Path) -> None:
    labels = shared_data / "detection" / "voc07" / "val.json"
    dataset = open_dataset(f"coco:{labels}", on_error="skip")
    path = FOLDER / "real-street-int8.onnx"
    assert path.stat().st_size < 1.5e6
    assert evaluate_model(path, dataset, engine="ort").metrics["map50"] > 0.70


def test_the_street_detector_sees_what_its_manifest_says(shared_data: Path) -> None:
    """On the first 90 pictures of the 450 that judged it."""
    known = [name for name in STREET if name != "truck"]
    labels = shared_data / "detection" / "voc07" / "val.json"
    dataset = first(open_dataset(f"coco:{labels}?only={','.join(known)}", on_error="skip"), 90)
    path = demo_model("0")
    manifest = read_sidecar(path)
    assert manifest is not None
    found = evaluate_model(path, dataset, engine="ort").metrics["map50"]
    # ninety pictures say no more than this
    assert abs(found - manifest.accuracy[manifest.precision]["map50"]) < 0.12
