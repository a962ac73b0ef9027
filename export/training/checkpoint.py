"""One file per state of a training: written whole or not at all, read without running code from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge.addresses.printable import first_line
from edge.errors import ModelError
from edge.files import atomic_path
from export.config import TrainSettings, parse_config

FORMAT = 1
LAST, BEST = "last.pt", "best.pt"


@dataclass(frozen=True, slots=True)
class Place:
    """How far a training is.

    Attributes:
        epoch: the epoch under way, from 0.
        batch: batches of it that are done; the sampler's state, since its order follows from seed and epoch.
        step: optimiser steps in all.
        best: best metric so far, -1 before the first evaluation.
        best_epoch: epochs done when it was measured.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = -1.0
    best_epoch: int = 0


@dataclass(slots=True)
class Checkpoint:
    """All that is needed to go on, to judge, or to export.

    Attributes:
        config: the recipe as JSON values.
        classes: class names in the order of the outputs.
        model: weights as they are being trained.
        ema: averaged weights: those to judge and export.
        optimizer: its state.
        scaler: the loss scaler's state, empty without float16.
        rng: torch's random state; steps seed themselves, this is for code that draws between steps.
        place: how far the training is.
        sums: running sums of the epoch under way, for its log line.
        history: one row of metrics per epoch.
        dataset: name and fingerprint of the training data.
        imitation: what learning from a teacher needs next to the network, empty without one.
        form: what a network that was read from an ONNX file is made of, empty for our own.
    """

    config: dict[str, Any]
    classes: list[str]
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    rng: Tensor = field(default_factory=torch.get_rng_state)
    place: Place = field(default_factory=Place)
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    dataset: dict[str, str] = field(default_factory=dict)
    imitation: dict[str, Tensor] = field(default_factory=dict)
    form: dict[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> TrainSettings:
        return parse_config(self.config, "checkpoint")


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; a reader sees the old one or the whole new one."""
    content = {item.name: getattr(checkpoint, item.name) for item in fields(checkpoint)}
    content["place"] = asdict(checkpoint.place)
    with atomic_path(path) as temporary:
        torch.save({"edgeloop": FORMAT, **content}, temporary)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of ours, to the CPU.

    Raises:
        ModelError: it is missing, broken, or not ours.
    """
    content = read_tensors(path)
    if content.get("edgeloop") != FORMAT:
        raise ModelError(f"{path}: expected a checkpoint of edge train (format {FORMAT}), found another torch file")
    # files that are older than a field do not have it
    values = {item.name: content[item.name] for item in fields(Checkpoint) if item.name in content}
    values["place"] = Place(**values["place"])
    return Checkpoint(**values)


def read_tensors(path: Path) -> dict[str, Any]:
    """The dictionary in a torch file. Only tensors and plain values are read, never code (``weights_only``).

    Raises:
        ModelError: it is missing, broken, or holds other things.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, _unpickling_error()) as error:
        reason = first_line(error)
        raise ModelError(f"{path}: expected a torch file of tensors, found: {reason:.160}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a dictionary of tensors, found {type(content).__name__}")
    return content


def _unpickling_error() -> type[Exception]:
    import pickle

    return pickle.UnpicklingError
