"""From a recipe to a network."""

from __future__ import annotations

from typing import TypeAlias

import torch

from export.config import TrainConfig
from export.models.classifier import Classifier
from export.models.detector import Detector
from export.models.segmenter import Segmenter

Network: TypeAlias = Detector | Segmenter | Classifier


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
