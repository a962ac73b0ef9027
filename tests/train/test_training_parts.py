"""Schedule, optimiser groups, averaging, scales, crops and balance: the small parts of a training."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge.types import Float32
from export.config import OptimSettings, parse_config
from export.data.loader import BatchSamples, make_loader
from export.data.open_data import open_dataset
from export.data.sample import DataTask
from export.models.classifier import Classifier
from export.training.balance import class_counts, draw_weights
from export.training.distributed import join_processes
from export.training.ema import Average
from export.training.logs import csv_text, epoch_line
from export.training.loop import crop_of
from export.training.optim import learning_rate, make_optimizer, set_training_mode
from export.training.plots import draw_batch
from export.training.step import Targets, TrainingStep, padded_truth, rescaled, to_targets

pytestmark = pytest.mark.train


def test_an_epoch_says_how_long_the_rest_takes() -> None:
    row = {"epoch": 3.0, "loss": 1.0, "images_per_s": 10.0}
    assert epoch_line(row, "map50", 9, 200) == "epoch 3/9  loss 1.000  10 images/s  2 min left"
    assert "left" not in epoch_line(row, "map50", 3, 200)


def test_learning_rate_warms_up_then_falls_to_its_last_share() -> None:
    config = OptimSettings(lr=0.1, final_lr=0.05, warmup_steps=10)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.01) and rates[9] == pytest.approx(0.1)
    assert all(a < b for a, b in itertools.pairwise(rates[:10]))
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert learning_rate(100, 100, config) == pytest.approx(0.005)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_only_weights_decay(optimizer: Literal["sgd", "adamw"]) -> None:
    model = Classifier("nano", 3)
    made = make_optimizer(model, OptimSettings(optimizer=optimizer, weight_decay=0.1))
    decay = {id(value): group["weight_decay"] for group in made.param_groups for value in group["params"]}
    for name, value in model.named_parameters():
        is_weight = name.endswith("weight") and value.ndim > 1
        assert decay[id(value)] == (0.1 if is_weight else 0.0), name


def test_frozen_batch_norms_keep_their_statistics() -> None:
    model = Classifier("nano", 3, tiny_input=True)
    config = parse_config({"task": "classify", "name": "x", "data": _DATA, "optim": {"freeze_bn": True}}, "t")
    before = copy.deepcopy(model.state_dict())
    set_training_mode(model, config.optim, config.transfer.freeze)
    model(torch.rand(4, 3, 32, 32))
    assert all(bool((model.state_dict()[name] == value).all()) for name, value in before.items())


def test_batch_norms_of_many_gpus_are_frozen_alike() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(Classifier("nano", 3, tiny_input=True))
    config = parse_config({"task": "classify", "name": "x", "data": _DATA, "optim": {"freeze_bn": True}}, "t")
    set_training_mode(model, config.optim, config.transfer.freeze)
    norms = [module for module in model.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert norms and not any(module.training for module in norms)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_processes_wait_for_hours_while_the_main_one_judges(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("export.training.distributed._device", lambda *_: torch.device(device))
    monkeypatch.setattr("torch.distributed.init_process_group", lambda kind, **rest: asked.update(rest, kind=kind))
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    with join_processes(device) as processes:
        assert not processes.is_main
    assert asked["kind"] == ("gloo" if device == "cpu" else "nccl")
    assert asked["timeout"] >= timedelta(hours=2)


def test_average_follows_closely_at_first_and_slowly_later() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = Average(model, decay=0.9, ramp_steps=10)
    nn.init.ones_(model.weight)
    average.update(model, 1)
    early = float(average.model.weight)
    average.update(model, 1000)
    late = (float(average.model.weight) - early) / (1 - early)
    assert early > 0.9
    assert late == pytest.approx(0.1, abs=1e-3)


def test_other_scales_keep_boxes_on_their_objects() -> None:
    images = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    images[0, 16:32, 8:40] = 255
    batch = _batch(images.numpy(), np.array([[8, 16, 40, 32]], np.float32))
    targets = Targets(images, padded_truth(batch), None, None)
    moved = rescaled(targets, (2.0,), (1, 1))
    assert moved.images.shape == (1, 128, 128, 3)
    assert moved.truth is not None
    x1, y1, x2, y2 = (int(value) for value in moved.truth.xyxy[0, 0])
    assert int(moved.images[0, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].min()) > 250
    assert int(moved.images[0, : y1 - 2].max()) < 5


@pytest.mark.parametrize("scale", [2 / 3, 5 / 6, 4 / 3, 5 / 3])
def test_other_scales_keep_masks_on_their_pictures(scale: float) -> None:
    # symmetric masks stay symmetric, unless labels move to one side
    mask = torch.zeros(1, 192, 192, dtype=torch.int64)
    mask[:, 37:-37, 37:-37] = 1
    targets = Targets(torch.zeros(1, 192, 192, 3, dtype=torch.uint8), None, mask, None)
    moved = rescaled(targets, (scale,), (1, 1)).mask
    assert moved is not None and moved.shape[1] == round(192 * scale / 32) * 32
    assert torch.equal(moved, moved.flip(1)) and torch.equal(moved, moved.flip(2))


def test_the_scale_of_a_step_is_the_same_after_a_restart() -> None:
    targets = Targets(torch.zeros(1, 64, 64, 3, dtype=torch.uint8), None, None, None)
    sizes = [rescaled(targets, (0.5, 1.0, 1.5), (1, step)).images.shape[1] for step in range(20)]
    assert sizes == [rescaled(targets, (0.5, 1.0, 1.5), (1, step)).images.shape[1] for step in range(20)]
    assert set(sizes) == {32, 64, 96}


def test_mixed_pictures_cost_what_their_labels_do_by_share() -> None:
    config = parse_config({"task": "classify", "name": "x", "data": _DATA}, "t")
    step = TrainingStep(Classifier("nano", 3, tiny_input=True).eval(), config)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    first, second, share = torch.tensor([0, 2]), torch.tensor([1, 2]), torch.tensor([0.3, 1.0])

    def loss(image: int, label: Tensor) -> float:
        one = Targets(images[image : image + 1], None, None, label[image : image + 1])
        return float(step(one, None).total.detach())

    mixed = float(step(Targets(images, None, None, first, mixed_in=(second, share)), None).total.detach())
    expected = (0.3 * loss(0, first) + 0.7 * loss(0, second) + loss(1, first)) / 2
    assert mixed == pytest.approx(expected, rel=1e-4)
    assert abs(loss(0, first) - loss(0, second)) > 1e-3


def test_mixing_reaches_the_loss() -> None:
    batch = replace(_batch(np.zeros((2, 8, 8, 3), np.uint8)), label=np.array([0, 1]))
    config = parse_config({"task": "classify", "name": "x", "data": _DATA}, "t")
    assert to_targets(batch, config, torch.device("cpu")).mixed_in is None
    mixed = replace(batch, second_label=np.array([1, 0]), label_share=np.array([0.25, 1.0], np.float32))
    found = to_targets(mixed, config, torch.device("cpu")).mixed_in
    assert found is not None and found[0].tolist() == [1, 0] and found[1].tolist() == [0.25, 1.0]


def test_truth_is_padded_to_the_longest_list() -> None:
    truth = padded_truth(
        _batch(np.zeros((2, 8, 8, 3), np.uint8), np.ones((3, 4), np.float32), np.empty((0, 4), np.float32))
    )
    assert truth.xyxy.shape == (2, 3, 4)
    assert truth.valid.tolist() == [[True] * 3, [False] * 3]


def test_drawing_a_batch_leaves_its_pictures_alone(tmp_path: Path) -> None:
    batch = _batch(np.full((1, 64, 64, 3), 90, np.uint8), np.array([[8, 8, 40, 40]], np.float32))
    draw_batch(batch, ("a",), tmp_path / "batch.png")
    assert (tmp_path / "batch.png").is_file()
    assert bool((batch.images == 90).all())


def test_crops_show_objects_at_the_scale_of_whole_pictures() -> None:
    tree: dict[str, Any] = {"task": "detect", "name": "x", "data": {**_DATA, "width": 512, "height": 256}}
    tree["augment"] = {"scale_min": 1.0, "scale_max": 1.0}
    assert crop_of(parse_config(tree, "t"))[0] == (256, 512)
    tree["data"] |= {"crop_width": 256, "crop_height": 128}
    size, settings = crop_of(parse_config(tree, "t"))
    assert size == (128, 256)
    assert (settings.scale_min, settings.scale_max) == (2.0, 2.0)


def test_cropped_batches_have_the_size_and_scale_of_the_crop(squares: tuple[str, str]) -> None:
    tree: dict[str, Any] = {"task": "detect", "name": "x", "data": {**_DATA, "width": 96, "height": 96}}
    tree["data"] |= {"crop_width": 64, "crop_height": 64}
    tree["augment"] = {"scale_min": 1.0, "scale_max": 1.0, "focus": 1.0, "flip": 0.0}
    size, settings = crop_of(parse_config(tree, "t"))
    batch = next(
        iter(make_loader(open_dataset(squares[0]), size=size, batch_size=16, augment=settings, seed=1, epoch=0))
    )
    assert batch.images.shape == (16, 64, 64, 3)
    # with focus, every crop has an object; sides of 16 to 39 pixels stay what they are, except for what is cut off
    assert all(len(boxes) for boxes in batch.boxes)
    sides = np.concatenate([boxes[:, 2:] - boxes[:, :2] for boxes in batch.boxes])
    assert 16 <= float(sides.max()) <= 40


def test_rare_pictures_are_drawn_more_often() -> None:
    dataset = _Counted([[0], [0], [0], [0], [0], [0], [0], [0], [0], [0, 1]])
    weights = draw_weights(dataset)
    assert weights[:9].tolist() == [1.0] * 9
    assert weights[9] == pytest.approx(np.sqrt(0.3 / 0.1))


def test_class_counts_of_folders(colours: str) -> None:
    assert class_counts(open_dataset(colours)).tolist() == [12.0, 12.0]


def test_metrics_that_come_later_get_a_column_of_their_own() -> None:
    assert csv_text([{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1, "map50": 0.25}]) == (
        "epoch,loss,map50\n1,2.5,\n2,1,0.25\n"
    )


_DATA: dict[str, Any] = {"train": "a", "val": "b", "width": 64, "height": 64}


def _batch(images: np.ndarray[Any, np.dtype[np.uint8]], *boxes: Float32) -> BatchSamples:
    labels = [np.zeros(len(box), np.int32) for box in boxes]
    skip = [np.zeros(len(box), np.bool_) for box in boxes]
    weight = [np.ones(len(box), np.float32) for box in boxes]
    return BatchSamples(images, list(boxes), labels, skip, weight, None, None, [str(row) for row in range(len(boxes))])


class _Counted:
    """A detection set with these labels per picture."""

    name, classes, fingerprint = "counted", ("a", "b"), "x"
    task: DataTask = "detect"

    def __init__(self, labels: list[list[int]]) -> None:
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Any:
        from export.data.sample import Sample

        labels = np.array(self._labels[index], np.int32)
        count = len(labels)
        boxes = np.ones((count, 4), np.float32)
        image = np.zeros((4, 4, 3), np.uint8)
        return Sample(image, str(index), boxes, labels, np.zeros(count, np.bool_), np.ones(count, np.float32))
