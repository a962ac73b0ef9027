"""Quantization-aware fine-tuning: the network learns with the rounding of its own calibration table in place.

Batch norms are folded inside the forward pass, with their statistics frozen, and the folded weights are rounded; so the
checkpoint keeps its form, and ``edge export`` and ``edge quantize`` treat it like any other.

Shape letters: B batch, C D channels in and out, h w pixels of a feature map.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from calib.clipping import Method
from calib.graph import GraphIndex, load_float_model
from calib.ranges import RangeTable, check_table
from edge.errors import DataError
from edge.model import find_manifest
from export.data.loader import make_loader
from export.data.sample import Dataset
from export.models.blocks import GREY_LEVELS, Conv, RepConv, conv_units, folded
from export.models.build import Network, build_network
from export.models.foreign_classifier import ForeignClassifier
from export.models.foreign_detector import ForeignDetector
from export.training.checkpoint import Checkpoint, Place, load_checkpoint, save_checkpoint
from export.training.imitate import ImitateOptions, imitate
from export.training.optim import learning_rate, make_optimizer, set_learning_rate
from export.training.step import TrainingStep, to_targets
from export.transfer.detector import read_detector
from export.transfer.whitened import convolved, rounded_input, rounded_kernel

INT8_MAX = 127.0


@dataclass(frozen=True, slots=True)
class QatOptions:
    """How to fine-tune. The learning rate is small: the network should move by rounding steps, not learn again."""

    epochs: int = 5
    lr: float = 1e-4
    method: Method = "average"
    is_unsigned: bool = False


def fine_tune(
    checkpoint: Path,
    model: Path,
    table: RangeTable,
    dataset: Dataset,
    out: Path,
    options: QatOptions | None = None,
    *,
    step: Callable[[float], None] = lambda _: None,
) -> Path:
    """Fine-tune a checkpoint with fake quantization and save it.

    Args:
        checkpoint: of ``edge train``.
        model: the float ONNX file exported from it; says which range belongs to which convolution.
        table: ranges of that file.
        dataset: to learn from.
        out: the new checkpoint.
        step: called with the loss after every batch.

    Raises:
        ModelError: no checkpoint, or no ONNX file.
        DataError: the data set has another task or other classes, the table is of another network or lacks a tensor, or
            the loss is not a number.
    """
    chosen = options or QatOptions()
    saved = load_checkpoint(checkpoint)
    config = saved.recipe
    check_table(table, GraphIndex(load_float_model(model)), find_manifest(model).input, model.name)
    network = build_network(config, len(saved.classes), saved.form)
    network.load_state_dict(saved.ema)
    if isinstance(network, ForeignDetector) and network.form.keeps_head:
        _imitate_rounded(network.eval(), saved, model, table, dataset, chosen, step)
        save_checkpoint(_finished(saved, network), out)
        return out
    _check_labels(checkpoint, saved, dataset)
    insert_fake_quantization(network, model, table, chosen)
    optim = config.optim.model_copy(
        update={"optimizer": "adamw", "lr": chosen.lr, "momentum": 0.9, "epochs": chosen.epochs, "warmup_steps": 0}
    )
    optimizer = make_optimizer(network, optim)
    learning = TrainingStep(network, config)
    network.eval()
    done, total = 0, 0
    for epoch in range(chosen.epochs):
        loader = make_loader(
            dataset,
            size=(config.data.height, config.data.width),
            batch_size=optim.batch_size,
            augment=config.augment.without_mixing(),
            seed=config.run.seed + 1,
            epoch=epoch,
        )
        total = total or len(loader) * chosen.epochs
        for batch in loader:
            set_learning_rate(optimizer, learning_rate(done, total, optim))
            loss = learning(to_targets(batch, config, torch.device("cpu")), None).total
            if not bool(torch.isfinite(loss)):
                raise DataError(f"the loss became {float(loss)} in epoch {epoch + 1}; lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimizer.step()
            done += 1
            step(float(loss.detach()))
    save_checkpoint(_finished(saved, network), out)
    return out


def _imitate_rounded(
    network: ForeignDetector,
    saved: Checkpoint,
    model: Path,
    table: RangeTable,
    dataset: Dataset,
    options: QatOptions,
    step: Callable[[float], None],
) -> None:
    """Let the rounded network answer as the file that it was read from does, or as itself where that is gone."""
    scales = rounded_layers(network, model, table, options)
    rounded = {unit.conv: scale for unit, scale in scales.items()}
    wanted = ImitateOptions(options.epochs, options.lr)
    imitate(
        original_of(saved, network), network, dataset, saved.recipe, wanted,
        rounded=rounded, is_unsigned=options.is_unsigned, step=step,
    )  # fmt: skip


def original_of(saved: Checkpoint, network: ForeignDetector) -> ForeignDetector:
    """The network as it was in the file that the checkpoint was made from; a copy of itself where that is gone."""
    path = saved.recipe.transfer.weights
    if path is None or path.suffix != ".onnx" or not path.is_file():
        return copy.deepcopy(network)
    original, kept = read_detector(path, saved.classes)
    is_same = original.form.keeps_head and len(kept) == len(saved.classes)
    return original if is_same else copy.deepcopy(network)


def _check_labels(checkpoint: Path, saved: Checkpoint, dataset: Dataset) -> None:
    """Refuse labels that mean something else to this network."""
    task = saved.recipe.task
    if dataset.task != task:
        raise DataError(f"{dataset.name} is labelled to {dataset.task}, {checkpoint} was trained to {task}")
    if dataset.classes != tuple(saved.classes):
        raise DataError(
            f"{dataset.name} has the classes {', '.join(dataset.classes)}, {checkpoint} learned "
            f"{', '.join(saved.classes)}; expected the same in the same order"
        )


def _finished(saved: Checkpoint, network: Network) -> Checkpoint:
    state = network.state_dict()
    return replace(saved, model=state, ema=state, optimizer={}, scaler={}, sums={}, place=Place())


def insert_fake_quantization(network: Network, model: Path, table: RangeTable, options: QatOptions) -> int:
    """Make every convolution that will run in INT8 round its input and its folded weight, in place.

    Returns:
        How many convolutions do.
    """
    scales = rounded_layers(network, model, table, options)
    for unit, scale in scales.items():
        unit.forward = partial(_rounded_forward, unit, scale, options.is_unsigned)  # type: ignore[method-assign]
    return len(scales)


def rounded_layers(
    network: Network, model: Path, table: RangeTable, options: QatOptions
) -> dict[Conv | RepConv, float]:
    """Convolution that will run in INT8 → scale of its input's codes.

    Raises:
        DataError: there is none.
    """
    scales = input_scales(model, table, options)
    names = {id(unit): name for name, unit in network.named_modules()}
    rounded = {}
    for place, unit in enumerate(conv_units(network)):
        found = scales.get(f"{names[id(unit)]}.conv.weight")
        if found is not None:
            rounded[unit] = _first_scale(network, found) if place == 0 else found
    if not rounded:
        raise DataError(f"{model.name}: none of its layers is a convolution of this checkpoint; export it again")
    return rounded


def _first_scale(network: Network, found: float) -> float:
    """The scale of what the first convolution reads here; the exported network reads bytes where it can."""
    if not isinstance(network, ForeignDetector | ForeignClassifier):
        return found / GREY_LEVELS
    return found if any(network.form.mean) else found / network.form.std[0]


def input_scales(model: Path, table: RangeTable, options: QatOptions) -> dict[str, float]:
    """Weight name, as in the checkpoint → scale of the layer's input codes; layers that stay float are left out."""
    index = GraphIndex(load_float_model(model))
    found = {}
    for layer in index.layers:
        if layer.key in index.terminal:
            continue
        low, high = table.clip(index.roles[layer.source], options.method)
        scale = (high - low) / 255 if options.is_unsigned else max(-low, high) / INT8_MAX
        found[layer.key.removeprefix("net.")] = scale
    return found


def _rounded_forward(unit: Conv | RepConv, scale: float, is_unsigned: bool, x: Tensor) -> Tensor:
    """(B, C, h, w) to (B, D, h / stride, w / stride), as the INT8 layer will compute it; rounding passes gradients."""
    weight, bias = folded_weight(unit)
    return convolved(unit, unit.conv, rounded_kernel(weight), bias, rounded_input(x, scale, is_unsigned))


def folded_weight(unit: Conv | RepConv) -> tuple[Tensor, Tensor]:
    """Weight (D, C, k, k) and bias (D,) of the one convolution that a unit becomes; gradients reach all its parts."""
    assert isinstance(unit.bn, nn.BatchNorm2d)
    if isinstance(unit, Conv):
        return folded(unit.conv.weight, unit.bn)
    assert isinstance(unit.branch_bn, nn.BatchNorm2d)
    assert unit.point is not None
    weight, bias = folded(unit.conv.weight, unit.branch_bn)
    weight = weight + nn.functional.pad(unit._point_weight(unit.point), (1, 1, 1, 1))
    return folded(weight, unit.bn, bias)
