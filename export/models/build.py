"""From a recipe to a network, and from a network to what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from export.config import TrainConfig
from export.models.blocks import fused
from export.models.classifier import Classifier
from export.models.detector import Detector
from export.models.segmenter import Segmenter

Network: TypeAlias = Detector | Segmenter | Classifier


@dataclass(frozen=True, slots=True)
class Cost:
    """Attributes: ``parameters`` and ``gmacs`` (10^9 multiply-adds per picture) of the exported form."""

    parameters: int
    gmacs: float


def build_network(config: TrainConfig, num_classes: int) -> Network:
    """A network with fresh weights, the same for the same seed."""
    torch.manual_seed(config.run.seed)
    model = config.model
    match config.task:
        case "detect":
            return Detector(model.size, num_classes)
        case "segment":
            return Segmenter(model.size, num_classes)
        case "classify":
            return Classifier(model.size, num_classes, model.dropout, model.tiny_input)


def cost(network: Network, height: int, width: int) -> Cost:
    """Count what one forward pass of the exported form uses; layers that only teach are not counted."""
    model = fused(network).cpu()
    seen: dict[nn.Module, int] = {}

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        seen[module] = output[0].numel() * weight[0].numel()

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(torch.zeros(1, 3, height, width))
    for handle in handles:
        handle.remove()
    parameters = sum(value.numel() for layer in seen for value in layer.parameters())
    return Cost(parameters, sum(seen.values()) / 1e9)
