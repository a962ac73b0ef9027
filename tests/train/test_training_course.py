"""The course of a training: interrupted, resumed, shared, refused, stopped."""

from __future__ import annotations

import copy
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge.errors import ConfigError, DataError, ModelError, UsageError
from export.config import TrainSettings, parse_config
from export.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from export.training.train import train
from export.training.transfer import transfer_weights

pytestmark = [pytest.mark.train, pytest.mark.timeout(400)]

Recipes = dict[str, dict[str, Any]]
RUN = """
import json, sys
from pathlib import Path
from export.config import parse_config
from export.training.train import train

if __name__ == "__main__":
    train(parse_config(json.loads(Path(sys.argv[1]).read_text()), "test"), Path(sys.argv[2]), resume=True)
"""


def changed(tree: dict[str, Any], **changes: Any) -> TrainSettings:
    """A recipe with values changed, ``optim__epochs=2``."""
    tree = copy.deepcopy(tree)
    for key, value in changes.items():
        part, _, name = key.partition("__")
        tree.setdefault(part, {})[name] = value
    return parse_config(tree, "test")


def command(folder: Path, config: TrainSettings, out: Path) -> list[str]:
    """The arguments that run a training in a process of its own."""
    (folder / "run.py").write_text(RUN)
    (folder / "recipe.json").write_text(config.model_dump_json())
    return [str(folder / "run.py"), str(folder / "recipe.json"), str(out)]


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def wait_for_step(path: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Until the checkpoint has done so many steps."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert process.poll() is None, "the training ended before it could be killed"
        if path.is_file() and load_checkpoint(path).place.step >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint with {step} steps")


@pytest.fixture(scope="module")
def unbroken(graded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(graded, tmp_path_factory.mktemp("unbroken") / "run")


def test_killed_training_resumes_to_the_same_weights(recipes: Recipes, unbroken: Path, tmp_path: Path) -> None:
    config, out = changed(recipes["classify"], run__save_every_s=1e-6), tmp_path / "out"
    arguments = [sys.executable, *command(tmp_path, config, out)]
    # twice, within the first and within a later epoch of 6 steps
    for step in (3, 14):
        process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.DEVNULL)
        wait_for_step(out / "last.pt", step, process)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    subprocess.run(arguments, env=environment(), check=True, stderr=subprocess.DEVNULL, timeout=200)
    expected, found = load_checkpoint(unbroken / "last.pt"), load_checkpoint(out / "last.pt")
    assert found.place == expected.place
    assert losses(out) == losses(unbroken)
    for name, value in expected.model.items():
        assert bool((found.model[name] == value).all()), name
    for name, value in expected.ema.items():
        assert bool((found.ema[name] == value).all()), name


def test_two_processes_train_like_one(recipes: Recipes, schooled: Path, tmp_path: Path) -> None:
    # batch norms would see half of the batch each, so their statistics are held, at values that fit
    tree = {**recipes["detect"], "transfer": {"weights": str(schooled / "last.pt")}}
    # few steps of SGD: in the long run a rounding error makes another grid point the best one, and AdamW's first steps
    # follow the sign of gradients that are nearly zero
    optim = {"freeze_bn": True, "epochs": 1, "batch_size": 16, "optimizer": "sgd", "lr": 1e-4}
    config = changed(tree, **{f"optim__{key}": value for key, value in optim.items()})
    one, two = tmp_path / "one", tmp_path / "two"
    train(config, one)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*launcher, *command(tmp_path, config, two)], env=environment(), check=True, timeout=300)
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4)
    expected, found = load_checkpoint(one / "last.pt").model, load_checkpoint(two / "last.pt").model
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_loss_that_is_no_number_stops_with_the_batch_saved_and_named(recipes: Recipes, tmp_path: Path) -> None:
    config = changed(recipes["classify"], optim__lr=1e30, optim__clip_norm=0.0, optim__warmup_steps=0)
    with pytest.raises(DataError) as caught:
        train(config, tmp_path)
    message = str(caught.value)
    assert "the loss became" in message and "nan-batch.npz" in message and "lower optim.lr" in message
    batch = np.load(tmp_path / "nan-batch.npz")
    assert batch["images"].shape == (4, 32, 32, 3)
    assert str(batch["ids"][0]) in message


def test_a_folder_with_a_training_is_not_overwritten(recipes: Recipes, unbroken: Path) -> None:
    before = (unbroken / "last.pt").stat().st_mtime_ns
    with pytest.raises(UsageError, match="add --resume to go on"):
        train(changed(recipes["classify"]), unbroken)
    assert (unbroken / "last.pt").stat().st_mtime_ns == before


def test_resuming_with_another_recipe_names_the_difference(recipes: Recipes, unbroken: Path) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr differ"):
        train(changed(recipes["classify"], optim__lr=0.01), unbroken, resume=True)


def test_a_checkpoint_from_before_a_setting_existed_resumes(recipes: Recipes, unbroken: Path, tmp_path: Path) -> None:
    out = shutil.copytree(unbroken, tmp_path / "out")
    old = load_checkpoint(out / "last.pt")
    assert old.config["augment"].pop("jpeg_quality_min")
    save_checkpoint(old, out / "last.pt")
    assert train(changed(recipes["classify"]), out, resume=True).epochs == old.place.epoch


def test_resuming_a_finished_training_changes_nothing(recipes: Recipes, unbroken: Path) -> None:
    before = load_checkpoint(unbroken / "last.pt")
    result = train(changed(recipes["classify"]), unbroken, resume=True)
    assert result.epochs == before.place.epoch and result.best == before.place.best


def test_a_run_leaves_curves_pictures_and_logs(unbroken: Path) -> None:
    for name in ("curves.png", "predictions.png", "first-batch.png", "metrics.csv", "best.pt", "last.pt"):
        assert (unbroken / name).stat().st_size > 100, name
    assert list((unbroken / "tensorboard").glob("events*"))


def test_classifier_learns_bright_from_dark(unbroken: Path) -> None:
    assert load_checkpoint(unbroken / "best.pt").place.best == 1.0


def test_detector_learns_rectangles(schooled: Path) -> None:
    assert load_checkpoint(schooled / "best.pt").place.best > 0.7


def test_segmenter_trains_on_the_synthetic_street(tmp_path: Path) -> None:
    data: dict[str, Any] = {"width": 96, "height": 64, "cache": False}
    for part, seed in (("train", 3), ("val", 4)):
        data[part] = f"synthetic:street?seed={seed}&count=16&size=128x96"
    optim = {"optimizer": "adamw", "lr": 0.003, "epochs": 3, "batch_size": 4, "warmup_steps": 2, "balance": True}
    run = {"device": "cpu", "threads": 1, "eval_every": 3}
    tree = {"task": "segment", "name": "street", "data": data, "optim": optim, "run": run}
    result = train(parse_config(tree, "test"), tmp_path)
    found = losses(tmp_path)
    assert found[-1] < 0.97 * found[0]
    assert {"miou", "pixel_accuracy"} <= set(result.metrics)


def test_training_stops_early_when_nothing_gets_better(recipes: Recipes, tmp_path: Path) -> None:
    # it is perfect after the first evaluations, so no later one is better
    config = changed(recipes["classify"], optim__epochs=30, run__eval_every=2, run__patience=2)
    result = train(config, tmp_path)
    assert result.epochs < 30
    assert result.epochs - result.best_epoch == 4


def test_frozen_layers_stand_still(recipes: Recipes, unbroken: Path, tmp_path: Path) -> None:
    start = load_checkpoint(unbroken / "best.pt").ema
    transfer = {"weights": str(unbroken / "best.pt"), "freeze": ["backbone"]}
    config = parse_config({**recipes["classify"], "transfer": transfer}, "test")
    train(config, tmp_path)
    end = load_checkpoint(tmp_path / "last.pt").model
    for name, value in start.items():
        same = bool((end[name] == value).all())
        assert same == name.startswith("backbone"), name


def test_freezing_an_unknown_layer_is_refused(recipes: Recipes, tmp_path: Path) -> None:
    config = parse_config({**recipes["classify"], "transfer": {"freeze": ["bakbone"]}}, "test")
    with pytest.raises(ConfigError, match="no layer is called bakbone"):
        train(config, tmp_path)


def test_weights_of_another_head_are_reported(recipes: Recipes, unbroken: Path) -> None:
    from export.models.classifier import Classifier

    path = unbroken / "best.pt"
    report = transfer_weights(Classifier("nano", 7, tiny_input=True), path)
    assert set(report.other_shape) == {"full.weight", "full.bias"}
    assert not report.missing and not report.unused
    assert "other shape: 2 (full.weight, full.bias)" in str(report)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    from export.models.classifier import Classifier

    path = tmp_path / "other.pt"
    torch.save({"state_dict": {"conv9.weight": torch.zeros(3)}}, path)
    with pytest.raises(ModelError, match="none of its 1 tensors fits"):
        transfer_weights(Classifier("nano", 2), path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_broken_checkpoints_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ModelError, match="expected a torch file of tensors"):
        load_checkpoint(tmp_path / "x.pt")


def test_data_of_another_task_is_refused(recipes: Recipes, colours: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="classify"):
        train(changed(recipes["detect"], data__train=colours), tmp_path)


def test_resuming_with_other_labels_says_what_changed(recipes: Recipes, colours: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(colours.removeprefix("classes:"), data)
    config = changed(
        recipes["classify"], optim__epochs=1, data__train=f"classes:{data}", data__val=f"classes:{tmp_path / 'val'}"
    )
    shutil.copytree(data, tmp_path / "val")
    train(config, tmp_path / "out")
    shutil.copy(data / "bright" / "0.png", data / "dark" / "more.png")
    with pytest.raises(DataError, match=r"data: its pictures or labels changed since .*last\.pt was written"):
        train(config, tmp_path / "out", resume=True)
    (data / "dark" / "more.png").unlink()
    shutil.copy(data / "bright" / "0.png", tmp_path / "val" / "dark" / "more.png")
    with pytest.raises(DataError, match=r"val: its pictures or labels changed"):
        train(config, tmp_path / "out", resume=True)
    for folder in (data, tmp_path / "val"):
        (folder / "dark").rename(folder / "gloomy")
    with pytest.raises(DataError, match=r"learned the classes bright, dark, .*data now has bright, gloomy"):
        train(config, tmp_path / "out", resume=True)


def test_a_run_killed_while_it_saves_keeps_its_best(
    recipes: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, float]] = []

    def save(checkpoint: Checkpoint, path: Path) -> None:
        written.append((path.name, checkpoint.place.best))

    monkeypatch.setattr("export.training.loop.save_checkpoint", save)
    train(changed(recipes["classify"], optim__epochs=1), tmp_path)
    best = [place for place, (name, _) in enumerate(written) if name == "best.pt"]
    known = [place for place, (name, value) in enumerate(written) if name == "last.pt" and value >= 0]
    assert best and known and best[0] < known[0]


def test_epochs_are_compared_on_the_same_pictures(
    recipes: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the first four pictures get better from epoch to epoch, all of them together look worse
    found = iter([0.5, 0.6, 0.7])

    def judged(network: Any, config: Any, dataset: Any, device: Any, whole: bool) -> Any:
        return {"top1": 0.2 if whole else next(found)}, [], []

    monkeypatch.setattr("export.training.loop.judge", judged)
    monkeypatch.setattr("export.training.plots.draw_predictions", lambda *_: None)
    config = changed(recipes["classify"], optim__epochs=3, run__eval_every=1, run__eval_images=4)
    result = train(config, tmp_path)
    assert (result.best, result.best_epoch) == (0.7, 3)
    assert result.metrics["top1"] == 0.2
    assert load_checkpoint(tmp_path / "best.pt").place.epoch == 3
