"""Learning from a teacher's feature maps."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from train.test_training_course import changed, command, environment, losses, wait_for_step

from edge.errors import ConfigError, ModelError
from export.config import TeacherSettings, TrainSettings, parse_config
from export.models.build import build_network
from export.to_onnx import export_onnx
from export.training.checkpoint import load_checkpoint
from export.training.distill import Imitation, MapTeacher
from export.training.train import train

pytestmark = [pytest.mark.train, pytest.mark.timeout(400)]

Recipes = dict[str, dict[str, Any]]
# nodes of our own graphs are named by their modules
MAPS = ("neck.top8.leave.act/Relu", "neck.out16.leave.act/Relu", "neck.out32.leave.act/Relu")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(schooled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of a detector that knows the rectangles."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.onnx"
    export_onnx(schooled / "best.pt", path)
    return path


def taught(recipes: Recipes, model: Path, **changes: Any) -> TrainSettings:
    tree = {**recipes["detect"], "teacher": {"model": str(model), "tensors": list(MAPS)}}
    return changed(tree, **changes)


def test_the_teacher_sees_what_torch_sees_at_another_size(schooled: Path, teacher: Path) -> None:
    maps = MapTeacher(TeacherSettings(model=teacher, tensors=MAPS), CPU)
    assert maps.widths == (64, 64, 64)
    images = torch.randint(0, 256, (2, 64, 160, 3), dtype=torch.uint8)
    saved = load_checkpoint(schooled / "best.pt")
    network = build_network(saved.recipe, 2)
    network.load_state_dict(saved.ema)
    with torch.no_grad():
        expected = network.eval().levels(images.permute(0, 3, 1, 2).float() / 255)  # type: ignore[operator]
    for found, level in zip(maps.maps(images), expected, strict=True):
        torch.testing.assert_close(found, level.contiguous(), rtol=1e-3, atol=1e-3)


def test_maps_of_one_stride_are_stacked(teacher: Path) -> None:
    towers = tuple(f"heads.{level}.class_tower.act/Relu" for level in range(3))
    maps = MapTeacher(TeacherSettings(model=teacher, tensors=(*towers, *MAPS)), CPU)
    assert maps.widths == (112, 112, 112)


def test_a_linear_mix_of_the_teachers_channels_is_no_distance() -> None:
    generator = torch.Generator().manual_seed(3)
    levels = [torch.randn(4, 8, side, side, generator=generator) for side in (12, 6, 3)]
    imitation = Imitation(8, (5, 5, 5), weight=2.0)
    with torch.no_grad():
        same = [mix(level) * 7 - 3 for mix, level in zip(imitation.mixes, levels, strict=True)]
        opposite = [-value for value in same]
        other = [torch.randn(value.shape, generator=generator) for value in same]
        assert float(imitation(levels, same)) == pytest.approx(0, abs=0.01)
        assert float(imitation(levels, opposite)) == pytest.approx(2.0 * 3 * 2, abs=0.01)
        assert float(imitation(levels, other)) == pytest.approx(2.0 * 3, rel=0.2)


def test_a_pupil_comes_near_its_teacher(recipes: Recipes, teacher: Path, tmp_path: Path) -> None:
    train(taught(recipes, teacher, optim__epochs=6), tmp_path)
    history = load_checkpoint(tmp_path / "last.pt").history
    assert history[-1]["imitation"] < 0.8 * history[0]["imitation"]
    # a second part goes on where the first one ended
    tree = {**recipes["detect"], "transfer": {"weights": str(tmp_path / "last.pt")}}
    second = changed(tree, teacher__model=str(teacher), teacher__tensors=list(MAPS), optim__epochs=1)
    train(second, tmp_path / "second")
    assert load_checkpoint(tmp_path / "second" / "last.pt").history[0]["imitation"] < 1.1 * history[-1]["imitation"]
    # what is exported is the pupil alone
    export_onnx(tmp_path / "last.pt", tmp_path / "pupil.onnx")
    assert (tmp_path / "pupil.onnx").stat().st_size == pytest.approx(teacher.stat().st_size, rel=0.01)


def test_a_killed_pupil_resumes_to_the_same_weights(recipes: Recipes, teacher: Path, tmp_path: Path) -> None:
    config = taught(recipes, teacher, optim__epochs=2, run__save_every_s=1e-6)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, whole)
    arguments = [sys.executable, *command(tmp_path, config, broken)]
    process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.DEVNULL)
    wait_for_step(broken / "last.pt", 4, process)
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    subprocess.run(arguments, env=environment(), check=True, timeout=200)
    assert losses(broken) == losses(whole)
    expected, found = load_checkpoint(whole / "last.pt"), load_checkpoint(broken / "last.pt")
    for name, value in {**expected.model, **expected.imitation}.items():
        assert bool(({**found.model, **found.imitation}[name] == value).all()), name


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (("neck.nothing",), "has no tensor or node 'neck.nothing'"),
        ((), "expected the names of feature maps"),
        (MAPS[:2], "has no map at stride 32"),
        ((*MAPS, "backbone.stem.act/Relu"), r"'backbone.stem.act/Relu' has the shape \(2, 16, 64, 128\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(teacher: Path, tensors: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MapTeacher(TeacherSettings(model=teacher, tensors=tensors), CPU)


def test_a_teacher_that_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError):
        MapTeacher(TeacherSettings(model=tmp_path / "x.onnx", tensors=MAPS), CPU)


def test_only_detectors_have_a_teacher_of_maps(recipes: Recipes, tmp_path: Path) -> None:
    tree = {**recipes["classify"], "teacher": {"model": "x.onnx", "tensors": list(MAPS)}}
    with pytest.raises(ConfigError, match="only detectors learn from a teacher's maps"):
        train(parse_config(tree, "test"), tmp_path)
