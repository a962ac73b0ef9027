"""A foreign ONNX file as a checkpoint of ours, without training: it is exported and quantized like any other then."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from edge.errors import UsageError
from edge.model import find_manifest
from export.config import DataSettings, ModelSettings, TrainSettings, TransferSettings
from export.data.augment import AugmentSettings
from export.data.sample import Dataset
from export.models.build import form_of
from export.models.foreign_classifier import ForeignClassifier
from export.models.foreign_detector import ForeignDetector
from export.training.checkpoint import Checkpoint
from export.training.imitate import ImitateOptions, imitate
from export.transfer.classifier import read_classifier
from export.transfer.detector import read_detector
from export.transfer.start import exchange

STRIDE = 32


def checkpoint_of(
    path: Path,
    classes: Sequence[str] = (),
    activation: Literal["", "relu", "relu6"] = "",
    data: Dataset | None = None,
    epochs: int = 0,
    *,
    step: Callable[[float], None] = lambda _: None,
) -> Checkpoint:
    """The network of a file with the rows of these classes.

    Args:
        path: a YOLOX detector or a classifier.
        classes: names that the file knows; all of its own if none are given.
        activation: exchange the file's activations for this one, with kernels fitted to it; empty leaves them.
        data: pictures for that fit; their labels are not used.
        epochs: passes over these pictures in which the network with the new activation imitates the old one.
        step: called with the loss after every batch of that.

    Raises:
        ModelError: the file cannot be read.
        UsageError: a class is unknown to it, its size is no multiple of 32, or its head cannot be kept.
    """
    manifest = find_manifest(path)
    wanted = tuple(classes) or manifest.classes
    network: ForeignDetector | ForeignClassifier
    if manifest.task == "detect":
        network, kept = read_detector(path, wanted)
        if not network.form.keeps_head:
            raise UsageError(
                f"{path.name}: the head {manifest.head} cannot be kept, only that of YOLOX; train a new one"
            )
    elif manifest.task == "classify":
        network, kept = read_classifier(path, wanted)
    else:
        raise UsageError(f"{path.name}: expected a detector or a classifier, found the task {manifest.task}")
    if unknown := [name for name in wanted if name not in kept]:
        raise UsageError(f"{path.name} knows no class {unknown[0]!r}; it knows {', '.join(manifest.classes[:20])}, …")
    spec, about = manifest.input, manifest.provenance
    if spec.width % STRIDE or spec.height % STRIDE:
        raise UsageError(
            f"{path.name}: expected a size that is a multiple of {STRIDE}, found {spec.width}x{spec.height}"
        )
    config = TrainSettings(
        task=manifest.task,
        name=path.stem,
        data=DataSettings(train=about.dataset, val="", width=spec.width, height=spec.height, terms=about.terms),
        model=ModelSettings(nms=manifest.task == "detect"),
        augment=AugmentSettings(scale_min=0.6, scale_max=1.2),
        transfer=TransferSettings(weights=path, activation=activation),
    )
    if activation:
        if data is None:
            raise UsageError("--activation needs --data: pictures that the kernels are fitted on")
        original = copy.deepcopy(network)
        exchange(network, config, data)
        if epochs:
            assert isinstance(original, ForeignDetector)
            assert isinstance(network, ForeignDetector)
            imitate(original, network, data, config, ImitateOptions(epochs), step=step)
        about = about.model_copy(update={"dataset": f"{about.dataset}; kernels fitted on {data.name} without labels"})
    state = network.state_dict()
    return Checkpoint(
        config=config.model_dump(mode="json"),
        classes=list(wanted),
        model=state,
        ema=state,
        dataset={"name": about.dataset, "fingerprint": ""},
        form=form_of(network),
    )
