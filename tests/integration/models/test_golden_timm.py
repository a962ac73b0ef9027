"""Exports of timm with the config.json of its Hub: the same picture goes in and the same probabilities come out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from golden.pictures import picture
from golden.replay import write_replay

from edge.errors import ManifestError
from edge.model import open_model
from edge.models.propose import propose_manifest
from edge.types import Classification

GOLDEN = Path(__file__).parents[2] / "golden" / "timm"
NAMES = sorted(folder.name for folder in GOLDEN.iterdir())
# a grey level is 1/255, divided by a deviation of a half
ONE_LEVEL = 1 / 255 / 0.5


@pytest.mark.parametrize("name", NAMES)
def test_pictures_and_probabilities_are_those_of_timm(name: str, tmp_path: Path) -> None:
    golden = write_replay(GOLDEN / name / "golden.npz", tmp_path / "model.onnx")
    shutil.copy(GOLDEN / name / "config.json", tmp_path)
    model = open_model(tmp_path / "model.onnx", engine="ort")
    tensor, _ = model.preprocessor.images([picture()])
    # half a thousandth for the half precision of the golden file
    assert np.abs(tensor[0] - golden["tensor"].astype(np.float32)).max() <= ONE_LEVEL + 5e-4
    if name == "features":
        assert model.manifest.head == "embedding"
        return
    (found,) = model.predict([picture()])
    assert isinstance(found, Classification)
    assert found.score == pytest.approx(golden["probs"], abs=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("crop_mode", "border", "crop_mode 'border', which is not supported"),
        ("interpolation", "random", "interpolation 'random', expected one of nearest, lanczos"),
        ("mean", [None, 1, 2], "cannot be understood"),
    ],
)
def test_what_cannot_be_prepared_is_refused(key: str, value: object, message: str, tmp_path: Path) -> None:
    write_replay(GOLDEN / "bicubic" / "golden.npz", tmp_path / "model.onnx")
    config = json.loads((GOLDEN / "bicubic" / "config.json").read_text())
    config["pretrained_cfg"][key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ManifestError, match=message):
        propose_manifest(tmp_path / "model.onnx")
