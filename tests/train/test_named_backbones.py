"""Backbones by name from timm and torchvision, with random weights: no file of real ones comes with the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from train.named_child import LIBRARIES

from edge.errors import ConfigError, MissingError
from edge.model import open_model
from export.to_onnx import export_checked
from export.training.checkpoint import load_checkpoint
from export.transfer.named import named_backbone

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

CHILD = Path(__file__).with_name("named_child.py")
ROOT = Path(__file__).parents[2]
SIZE = (64, 96)
RECIPE = """
task = "detect"
name = "squares"
data = {{ train = "{train}", val = "{val}", width = 96, height = 96, cache = false }}
optim = {{ optimizer = "adamw", lr = 0.003, epochs = 1, batch_size = 8, warmup_steps = 5, amp = "off" }}
augment = {{ scale_min = 0.9, scale_max = 1.1 }}
transfer = {{ backbone = "timm:test_efficientnet", freeze = ["trunk.s2"] }}
run = {{ device = "cpu", threads = 1 }}
"""


def run_case(name: str, folder: Path) -> str:
    """What a case of the child prints."""
    if not LIBRARIES.is_dir():
        pytest.skip(f"timm and torchvision are not in {LIBRARIES.name} next to this Python (make .venv/full)")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(CHILD), name, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def opened(name: str) -> None:
    with named_backbone(name, None, SIZE, 1):
        pass


def facts(name: str, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_case(name, folder).splitlines()[-1])
    return found


def test_a_backbone_gives_what_the_library_gives(tmp_path: Path) -> None:
    found = facts("features_are_those_of_the_library", tmp_path)
    assert found["difference"] < 1e-4
    assert "torchvision:shufflenet_v2_x0_5, weights of weights.pth (sha256 " in found["source"]


def test_a_detector_gets_maps_at_three_strides_without_what_only_a_classifier_needs(tmp_path: Path) -> None:
    shapes = facts("maps_have_strides", tmp_path)["shapes"]
    for name, maps in shapes.items():
        assert [shape[2:] for shape in maps] == [[8, 12], [4, 6], [2, 3]], name
    assert [shape[1] for shape in shapes["torchvision:mobilenet_v2"]] == [32, 96, 320]
    # without the 1x1 convolution to 288 channels that stands before its pool
    assert [shape[1] for shape in shapes["timm:mobilenetv3_small_050"]] == [16, 24, 48]


def test_weights_fit_by_name_or_by_order_and_others_are_refused(tmp_path: Path) -> None:
    found = facts("weights_of_another_port_fit_by_order", tmp_path)
    assert found["is_same"]
    assert "expected the weights of timm:test_efficientnet, but" in found["refusal"]


def test_a_recipe_names_its_backbone_and_the_checkpoint_needs_no_library(
    squares: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.format(train=squares[0], val=squares[1]))
    run_case("recipe_trains", tmp_path)
    manifest, _ = export_checked(load_checkpoint(tmp_path / "run" / "last.pt"), tmp_path / "squares.onnx")
    assert manifest.classes == ("red", "blue")
    assert "timm:test_efficientnet, random weights" in manifest.provenance.source
    model = open_model(tmp_path / "squares.onnx", engine="ort")
    model.close()


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingError, match="timm is not installed; run: pip install timm"):
        opened("timm:resnet18")


@pytest.mark.parametrize("name", ["resnet18", "keras:resnet18", "timm:"])
def test_a_name_says_its_library(name: str) -> None:
    with pytest.raises(ConfigError, match="expected timm:NAME or torchvision:NAME, found"):
        opened(name)
