"""What a training starts with: the checkpoint of an interrupted one, or a fresh network, or other weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from edge.errors import ConfigError, DataError, UsageError
from export.config import TrainSettings
from export.data.sample import Dataset
from export.models.backbone import PLANS
from export.models.build import Network, build_network
from export.models.detector import Detector, Head
from export.models.foreign_detector import ForeignDetector
from export.training import optim
from export.training.balance import class_counts
from export.training.checkpoint import LAST, Checkpoint, load_checkpoint
from export.training.distill import Imitation, MapTeacher
from export.training.distributed import Processes
from export.training.losses import class_weights
from export.training.original import Original
from export.training.step import TrainingStep
from export.training.transfer import read_weights, transfer_weights
from export.transfer.detector import read_detector
from export.transfer.own import start_from_own
from export.transfer.start import STATISTICS_PICTURES, pictures, start_from_backbone, start_from_onnx

log = logging.getLogger(__name__)


def interrupted(folder: Path, config: TrainSettings, data: tuple[Dataset, Dataset], resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from; None for a fresh start, also where a killed run left no checkpoint yet.

    Args:
        data: training and validation set.

    Raises:
        UsageError: the folder holds a training and it was not asked to go on.
        ConfigError: it was made by another recipe.
        DataError: it was made with other data.
    """
    path = folder / LAST
    if not path.is_file():
        return None
    if not resume:
        raise UsageError(f"{folder} already holds a training; add --resume to go on, or choose another --out")
    found = load_checkpoint(path)
    differing = sorted(differences(found.recipe.model_dump(mode="json"), config.model_dump(mode="json")))
    if differing:
        raise ConfigError(
            f"{path} was made by another recipe: {', '.join(differing[:3])} differ; "
            "resume with the same recipe, or start from its weights with transfer.weights"
        )
    _check_same_data(path, found, *data)
    return found


def identity_of(train: Dataset, val: Dataset) -> dict[str, str]:
    """What a checkpoint remembers of its data."""
    return {"name": train.name, "fingerprint": train.fingerprint, "val_fingerprint": val.fingerprint}


def _check_same_data(path: Path, saved: Checkpoint, train: Dataset, val: Dataset) -> None:
    advice = "resume with the data as it was, or start from its weights with transfer.weights"
    if tuple(saved.classes) != train.classes:
        raise DataError(
            f"{path} learned the classes {', '.join(saved.classes)}, {train.name} now has {', '.join(train.classes)}; "
            f"{advice}"
        )
    found = identity_of(train, val)
    for key, dataset in (("fingerprint", train), ("val_fingerprint", val)):
        before = saved.dataset[key]
        if before != found[key]:
            raise DataError(
                f"{dataset.name}: its pictures or labels changed since {path} was written (data {before[:12]}…, now "
                f"{found[key][:12]}…); {advice}"
            )


def differences(old: object, new: object, prefix: str = "") -> list[str]:
    """Dotted names of the values that differ between two trees."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted({*old, *new})
        return [key for name in names for key in differences(old.get(name), new.get(name), f"{prefix}{name}.")]
    # tuples come back from JSON as lists
    same = list(old) == list(new) if isinstance(old, list | tuple) and isinstance(new, list | tuple) else old == new
    return [] if same else [prefix.rstrip(".")]


def start_network(
    config: TrainSettings, dataset: Dataset, device: torch.device, saved: Checkpoint | None = None
) -> Network:
    """The network on its device, with transferred weights and frozen layers, in the memory order of the recipe.

    Args:
        dataset: to learn from; its classes are the network's.
        saved: what an interrupted training left, whose weights are loaded later; None for a fresh start.
    """
    network = _network(config, dataset, saved)
    if isinstance(network, ForeignDetector) and network.form.keeps_head and not config.model.nms:
        raise ConfigError("the kept head gives many boxes per object: set model.nms=true, or transfer.head=fresh")
    frozen = optim.freeze(network, config.transfer.freeze)
    if config.transfer.freeze and not frozen:
        raise ConfigError(f"transfer.freeze: no layer is called {', '.join(config.transfer.freeze)}")
    order = torch.channels_last if config.run.channels_last else torch.contiguous_format
    network.to(device, memory_format=order)
    return network


def _network(config: TrainSettings, dataset: Dataset, saved: Checkpoint | None) -> Network:
    weights, num_classes = config.transfer.weights, len(dataset.classes)
    if saved is not None:
        return build_network(config, num_classes, saved.form)
    if config.has_instances and weights is not None and weights.suffix == ".onnx":
        return start_from_own(config, dataset, pictures(config, dataset, STATISTICS_PICTURES))
    if config.has_instances and config.transfer.backbone:
        raise ConfigError("transfer.backbone: masks and key points are learned by our own detector only")
    if config.transfer.backbone:
        return start_from_backbone(config, dataset)
    if weights is not None and weights.suffix == ".onnx":
        return start_from_onnx(config, dataset)
    if weights is None:
        return build_network(config, num_classes)
    network = build_network(config, num_classes, read_weights(weights).form)
    log.info("%s: %s", weights, transfer_weights(network, weights))
    renew(network, dataset.classes, config.transfer.renew)
    return network


@torch.no_grad()
def renew(network: Network, classes: Sequence[str], names: Sequence[str]) -> None:
    """Give the rows of these classes the mean of the others' rows: "an object, no matter which".

    A class that no picture had has learned to be nowhere, with an offset so far down that a low rate needs many nights
    to bring it up; what all kinds of objects have in common is where it best begins.

    Raises:
        ConfigError: it is not our own detector, a name is unknown, or no other class is left.
    """
    if not names:
        return
    unknown = [name for name in names if name not in classes]
    if unknown or not isinstance(network, Detector) or len(set(names)) == len(classes):
        raise ConfigError(
            f"transfer.renew: expected some, not all, of the classes {', '.join(classes)} of our own detector, "
            f"found {', '.join(names)}"
        )
    is_new = torch.tensor([name in names for name in classes])
    for head in network.heads:
        assert isinstance(head, Head)
        for layer in (head.classes, head.many_classes):
            assert layer.bias is not None
            layer.weight[is_new] = layer.weight[~is_new].mean(0)
            layer.bias[is_new] = layer.bias[~is_new].mean(0)


def start_original(config: TrainSettings, dataset: Dataset, network: Network) -> Original | None:
    """The network that is imitated, if the recipe names one.

    Raises:
        ConfigError: the network that learns is no detector with the same kept head.
    """
    path = config.transfer.original
    if path is None:
        return None
    original, _ = read_detector(path, dataset.classes)
    if not isinstance(network, ForeignDetector) or network.form.plan.outputs != original.form.plan.outputs:
        raise ConfigError(
            f"transfer.original: {path.name} is not the network that learns; start from it or leave it out"
        )
    return Original(original)


def start_teacher(config: TrainSettings, device: torch.device) -> MapTeacher | None:
    """The teacher of the recipe, if it has one.

    Raises:
        ConfigError: it teaches no detector, or its tensors do not fit.
    """
    if config.teacher.model is None:
        return None
    if config.task != "detect":
        raise ConfigError(
            f"teacher.model: only detectors learn from a teacher's maps, the recipe's task is {config.task}"
        )
    return MapTeacher(config.teacher, device, config.run.threads)


def start_step(
    network: Network, config: TrainSettings, dataset: Dataset, processes: Processes, teacher: MapTeacher | None = None
) -> TrainingStep:
    """The network with its loss."""
    weight = None
    if config.optim.balance and config.task != "detect":
        weight = class_weights(class_counts(dataset)).to(processes.device)
    imitation = None
    if teacher is not None:
        imitation = Imitation(PLANS[config.model.size].neck, teacher.widths, config.teacher.weight)
        imitation.to(processes.device)
        if config.transfer.weights is not None and config.transfer.weights.suffix != ".onnx":
            _go_on_imitating(imitation, config.transfer.weights)
    original = start_original(config, dataset, network)
    if original is not None:
        original.to(processes.device)
    return TrainingStep(network, config, weight, imitation, original)


def _go_on_imitating(imitation: Imitation, weights: Path) -> None:
    """Take the mixes from a checkpoint that learned from the same maps; fresh ones would first pull at its features."""
    found = read_weights(weights).imitation
    if {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in imitation.state_dict().items()
    }:
        imitation.load_state_dict(found)
        log.info("%s: goes on imitating", weights)


def shared(step: nn.Module, processes: Processes) -> nn.Module:
    """The step as all processes run it together."""
    if processes.world_size == 1:
        return step
    if processes.device.type == "cuda":
        step = nn.SyncBatchNorm.convert_sync_batchnorm(step)
    return DistributedDataParallel(step)


def check_data(config: TrainSettings, train: Dataset, val: Dataset) -> None:
    """Refuse data sets that cannot be trained and judged together.

    Raises:
        DataError: another task, other classes, or no pictures.
    """
    for uri, dataset in ((config.data.train, train), (config.data.val, val)):
        if dataset.task != config.task:
            raise DataError(f"{uri} is labelled to {dataset.task}, the recipe's task is {config.task}")
        if len(dataset) == 0:
            raise DataError(f"{uri} has no pictures")
    if train.classes != val.classes:
        raise DataError(
            f"{config.data.train} has the classes {', '.join(train.classes)}, "
            f"{config.data.val} has {', '.join(val.classes)}; expected the same in the same order"
        )
