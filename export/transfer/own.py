"""Back from a file of ``edge export``: the weights of our own detector, ready to learn on, with branches it lacked.

What was folded comes back in the simplest form that computes the same: one kernel per unit, batch norms that change
nothing until ``give_statistics`` gives them those of the pictures.
"""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from edge.errors import ModelError
from edge.models.shipped import FOLDER
from export.config import TrainSettings
from export.data.sample import Dataset
from export.models.blocks import GREY_LEVELS, Conv, RepConv, conv_units
from export.models.build import build_network
from export.models.detector import Detector, Head
from export.transfer.activations import give_statistics

log = logging.getLogger(__name__)
# what is dropped at export starts as its counterpart
DROPPED = {"many_tower": "class_tower", "many_box": "box", "many_classes": "classes"}


def start_from_own(config: TrainSettings, dataset: Dataset, pictures: list[Tensor]) -> Detector:
    """A detector of the recipe's form with all weights of ``transfer.weights`` that it has.

    Args:
        pictures: (B, 3, h, w) in [0, 1], whose statistics the batch norms are given.

    Raises:
        ModelError: the file is none that ``edge export`` wrote from a detector of this size.
    """
    assert config.transfer.weights is not None
    path = config.transfer.weights
    path = path if path.is_file() else FOLDER / path.name
    network = build_network(config, len(dataset.classes))
    assert isinstance(network, Detector)
    found = _weights(path)
    found = {name: value for name, value in found.items() if name.startswith(("backbone", "neck", "heads", "inst"))}
    if missing := _fill(network, found):
        log.info("%s: fresh: %s", path.name, ", ".join(sorted(missing)[:6]))
    network.eval()
    give_statistics(network, pictures)
    for head in network.heads:
        assert isinstance(head, Head)
        # the exported branch alone has run
        head.many_tower.load_state_dict(head.class_tower.state_dict())
    return network


def _weights(path: Path) -> dict[str, Tensor]:
    """The tensors of the file by their names in the network."""
    try:
        graph = onnx.load(path).graph
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from None
    return {
        value.name.removeprefix("net."): torch.from_numpy(onnx.numpy_helper.to_array(value).copy())
        for value in graph.initializer
        if value.name.startswith("net.")
    }


@torch.no_grad()
def _fill(network: Detector, found: dict[str, Tensor]) -> set[str]:
    """Copy what fits; returns the parts that the file does not have."""
    missing: set[str] = set()
    for name, module in network.named_modules():
        if not isinstance(module, Conv | RepConv | nn.Conv2d) or name.endswith((".conv", ".point")):
            continue
        source = f"{name}.conv" if isinstance(module, Conv | RepConv) else name
        for dropped, counterpart in DROPPED.items():
            source = source if f"{source}.weight" in found else source.replace(f".{dropped}", f".{counterpart}")
        kernel = module.weight if isinstance(module, nn.Conv2d) else module.conv.weight
        weight, bias = found.get(f"{source}.weight"), found.get(f"{source}.bias")
        if weight is None or bias is None or weight.shape != kernel.shape:
            missing.add(name)
        elif isinstance(module, nn.Conv2d):
            assert module.bias is not None
            kernel.copy_(weight)
            module.bias.copy_(bias)
        else:
            _set_unit(module, weight, bias)
    if any(name.startswith(("backbone", "neck")) for name in missing):
        raise ModelError(
            "transfer.weights: masks and key points are learned by our own detector, which starts from a checkpoint or "
            f"from a float file that edge export wrote from one of the same model.size; it has no {sorted(missing)[0]}"
        )
    next(conv_units(network)).conv.weight.mul_(GREY_LEVELS)
    return missing


def _set_unit(unit: Conv | RepConv, kernel: Tensor, offset: Tensor) -> None:
    """One kernel and its offset in a unit in training form."""
    unit.conv.weight.copy_(kernel)
    _neutral(unit.bn, offset)
    if isinstance(unit, RepConv) and unit.point is not None:
        _neutral(unit.branch_bn, torch.zeros_like(offset))
        unit.point.weight.zero_()
        if unit.has_identity:
            # takes the identity branch back
            unit.point.weight[:, :, 0, 0] = -torch.eye(len(offset))


def _neutral(bn: nn.Module, offset: Tensor) -> None:
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    bn.running_mean.zero_()
    bn.running_var.fill_(1.0)
    bn.weight.fill_((1 + bn.eps) ** 0.5)
    bn.bias.copy_(offset)
