"""A training that starts from an ONNX file: read, prepared on the training pictures, exchanged activations included."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from edge.errors import ConfigError
from edge.model import find_manifest
from export.config import TrainSettings
from export.data.loader import make_loader
from export.data.sample import Dataset
from export.models.blocks import GREY_LEVELS
from export.models.foreign_classifier import ForeignClassifier
from export.models.foreign_detector import ForeignDetector
from export.transfer.activations import give_statistics, with_activation
from export.transfer.classifier import read_classifier
from export.transfer.detector import read_detector
from export.transfer.equalise import equalise
from export.transfer.named import named_backbone
from export.transfer.refit import refit

log = logging.getLogger(__name__)
STATISTICS_PICTURES = 64
REFIT_PICTURES = 112
EQUALISE_PICTURES = 20


def start_from_onnx(config: TrainSettings, dataset: Dataset) -> ForeignDetector | ForeignClassifier:
    """The network of ``transfer.weights``, ready to learn this data set's classes.

    Raises:
        ModelError: the file cannot be read.
        ConfigError: the recipe asks for what is not possible with it.
    """
    assert config.transfer.weights is not None
    return _started(config, dataset, config.transfer.weights, is_fresh=config.transfer.head == "fresh")


def start_from_backbone(config: TrainSettings, dataset: Dataset) -> ForeignDetector | ForeignClassifier:
    """The network of ``transfer.backbone`` with a head for this data set's classes.

    Raises:
        ModelError: the weights do not fit, or the network cannot be read.
        MissingError: the library that has it is not installed.
        ConfigError: there is no such network, or the recipe asks for what is not possible with it.
    """
    wanted, size = config.transfer, (config.data.height, config.data.width)
    with named_backbone(wanted.backbone, wanted.weights, size, config.run.seed) as path:
        network = _started(config, dataset, path, is_fresh=True)
        # the file in between is nobody's
        network.form = replace(network.form, source=find_manifest(path).provenance.source)
    return network


def _started(
    config: TrainSettings, dataset: Dataset, path: Path, *, is_fresh: bool
) -> ForeignDetector | ForeignClassifier:
    network: ForeignDetector | ForeignClassifier
    match config.task:
        case "detect":
            network, kept = read_detector(path, dataset.classes, fresh_head=is_fresh)
        case "classify":
            network, kept = read_classifier(path, dataset.classes, config.model.dropout, fresh_head=is_fresh)
        case "segment":
            raise ConfigError("transfer: a segmenter starts from a checkpoint only, from no ONNX file or backbone")
    log.info("%s: %d steps read; rows kept: %s", path.name, len(network.form.plan.steps), ", ".join(kept) or "none")
    if config.transfer.activation:
        exchange(network, config, dataset)
    give_statistics(network, pictures(config, dataset, STATISTICS_PICTURES))
    network.eval()
    return network


def exchange(network: ForeignDetector | ForeignClassifier, config: TrainSettings, dataset: Dataset) -> None:
    """Give a network that was read the activation of the recipe, and kernels fitted to it on these pictures.

    Raises:
        ConfigError: it is no detector whose head is kept.
    """
    if not isinstance(network, ForeignDetector) or not network.form.keeps_head:
        raise ConfigError("transfer.activation: only a detector whose head is kept can exchange its activations")
    original = copy.deepcopy(network)
    with_activation(network, config.transfer.activation)
    seen = pictures(config, dataset, REFIT_PICTURES)
    refit(original, network, seen)
    equalise(network, seen[:EQUALISE_PICTURES])


def pictures(config: TrainSettings, dataset: Dataset, count: int) -> list[Tensor]:
    """(1, 3, h, w) in [0, 1]: augmented training pictures of the model's size, the same for the same seed."""
    loader = make_loader(
        dataset,
        size=(config.data.height, config.data.width),
        batch_size=1,
        augment=config.augment.without_mixing(),
        seed=config.run.seed,
        epoch=0,
    )
    batches = (loader.batch(number).images for number in range(min(count, len(loader))))
    return [torch.as_tensor(images).permute(0, 3, 1, 2).float().div(GREY_LEVELS) for images in batches]
