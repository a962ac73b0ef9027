"""From a recipe to a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from export.config import TrainSettings
from export.models.classifier import Classifier
from export.models.detector import Detector
from export.models.foreign import form_from_values
from export.models.foreign_classifier import ForeignClassifier
from export.models.foreign_detector import ForeignDetector
from export.models.segmenter import Segmenter

Network: TypeAlias = Detector | Segmenter | Classifier


def build_network(config: TrainSettings, num_classes: int, form: Mapping[str, Any] | None = None) -> Network:
    """A network with fresh weights, the same for the same seed.

    Args:
        form: of a network that was read from an ONNX file, as its checkpoint stores it; empty or None for our own.
    """
    torch.manual_seed(config.run.seed)
    if form:
        return foreign_network(form, num_classes, config.model.dropout)
    model = config.model
    match config.task:
        case "detect":
            return Detector(model.size, num_classes, model.prototypes, len(model.keypoints))
        case "segment":
            return Segmenter(model.size, num_classes)
        case "classify":
            return Classifier(model.size, num_classes, model.dropout, model.tiny_input)


def foreign_network(form: Mapping[str, Any], num_classes: int, dropout: float) -> ForeignDetector | ForeignClassifier:
    """A network of this form, without its weights."""
    shape = form_from_values(form)
    if shape.task == "classify":
        return ForeignClassifier(shape, num_classes, dropout)
    return ForeignDetector(shape, num_classes)


def form_of(network: nn.Module) -> dict[str, Any]:
    """What a checkpoint must store of a network besides recipe and weights."""
    return network.form.to_values() if isinstance(network, ForeignDetector | ForeignClassifier) else {}
