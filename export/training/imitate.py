"""A detector whose layers were exchanged or are rounded learns to answer as its original does; no labels are needed.

The original's boxes and scores are soft truth at every grid point (``as_labels``). Steps are small, in whitened
coordinates (``export.transfer.whitened``), and what is kept is their moving average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from edge.errors import DataError
from export.config import TrainSettings
from export.data.loader import make_loader
from export.data.sample import Dataset
from export.models.blocks import GREY_LEVELS
from export.models.foreign_detector import ForeignDetector
from export.training.ema import Average
from export.training.losses import BOX_GAIN
from export.training.original import as_labels
from export.transfer.start import pictures
from export.transfer.whitened import Whitened

MOMENTS_PICTURES = 36
EMA_DECAY, EMA_STEPS = 0.99, 30
WARMUP_STEPS = 40
# share of the rate that is left at the end
FINAL_RATE = 0.01


@dataclass(frozen=True, slots=True)
class ImitateOptions:
    """How long and how fast.

    Attributes:
        epochs: passes over the pictures.
        lr: the highest rate; a step of it changes what a layer computes by about as much as a share.
        batch_size: pictures of a step.
        side: of the training pictures in pixels, cut at the model's scale: a part teaches as much per second.
    """

    epochs: int = 2
    lr: float = 1e-4
    batch_size: int = 8
    side: int = 256


def imitate(
    original: ForeignDetector,
    pupil: ForeignDetector,
    dataset: Dataset,
    config: TrainSettings,
    options: ImitateOptions,
    *,
    rounded: Mapping[nn.Conv2d, float] | None = None,
    is_unsigned: bool = False,
    step: Callable[[float], None] = lambda _: None,
) -> None:
    """Teach the pupil in place.

    Args:
        original: with a kept head; it does not learn.
        pupil: the same layers with other activations, or the same network; in evaluation mode.
        dataset: pictures; their labels are not used.
        rounded, is_unsigned: which of the pupil's layers compute as in INT8, see ``Whitened``.
        step: called with the loss after every batch.

    Raises:
        DataError: fewer pictures than one batch, or the loss is not a number.
    """
    for value in original.parameters():
        value.requires_grad_(False)
    seen = pictures(config, dataset, MOMENTS_PICTURES)
    whitened = Whitened(pupil, seen, rounded, is_unsigned)
    kernels = whitened.kernels
    average = Average(kernels, EMA_DECAY, EMA_STEPS)
    optimizer = torch.optim.AdamW(kernels.parameters(), lr=options.lr, weight_decay=0.0)
    for done, (share, x) in enumerate(_batches(dataset, config, options)):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * rate(done, share)
        with torch.no_grad():
            wanted = original.kept(original.levels(x))
        classes, boxes = as_labels(pupil.kept(pupil.levels(x)), wanted)
        loss = classes + BOX_GAIN * boxes
        if not bool(torch.isfinite(loss)):
            raise DataError(f"the loss became {float(loss)} after {done} steps; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update(kernels, done + 1)
        step(float(loss.detach()))
    kernels.load_state_dict(average.model.state_dict())
    whitened.finish()


def rate(done: int, share: float) -> float:
    """Share of the highest rate after ``done`` steps, ``share`` of all: linear warm-up, then a cosine."""
    falling = FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * share)) / 2
    return min(1.0, (done + 1) / WARMUP_STEPS) * falling


def _batches(dataset: Dataset, config: TrainSettings, options: ImitateOptions) -> Iterator[tuple[float, Tensor]]:
    """Share of the way that is done, and pictures (B, 3, h, w) in [0, 1]."""
    data, augment = config.data, config.augment.without_mixing()
    size = min(data.height, options.side), min(data.width, options.side)
    zoom = max(data.height / size[0], data.width / size[1])
    scaled = replace(augment, scale_min=augment.scale_min * zoom, scale_max=augment.scale_max * zoom)
    for epoch in range(options.epochs):
        loader = make_loader(
            dataset,
            size=size,
            batch_size=min(options.batch_size, len(dataset)),
            augment=scaled,
            seed=config.run.seed + 1,
            epoch=epoch,
        )
        for number, batch in enumerate(loader):
            images = torch.as_tensor(batch.images).permute(0, 3, 1, 2).float().div(GREY_LEVELS).contiguous()
            yield (epoch + number / len(loader)) / options.epochs, images
