"""One training step: bytes and labels to a loss. Wrapped whole by DistributedDataParallel.

Shape letters: B batch, M objects, h w pixels.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.config import TrainSettings
from export.data.loader import BatchSamples
from export.models.blocks import GREY_LEVELS
from export.models.build import Network
from export.models.classifier import Classifier
from export.models.detector import STRIDES, Detector, grid_points
from export.models.foreign_detector import ForeignDetector
from export.models.instances import RawInstances
from export.models.segmenter import Segmenter
from export.training.assign import Truth
from export.training.distill import Imitation
from export.training.losses import Loss, classification_loss, detection_loss, segmentation_loss
from export.training.original import Original

COARSEST = STRIDES[-1]


@dataclass(frozen=True, slots=True)
class Targets:
    """A batch as tensors.

    Attributes:
        images: (B, h, w, 3) uint8 BGR.
        truth: the objects; None except for detection.
        mask: (B, h, w) int64; None except for segmentation.
        label: (B,) int64; None except for classification.
        mixed_in: label (B,) int64 of what was mixed into each picture, and share (B,) float32 that remained of the
            first; None if nothing was.
        taught: the teacher's maps of these pictures; None without a teacher.
    """

    images: Tensor
    truth: Truth | None
    mask: Tensor | None
    label: Tensor | None
    taught: tuple[Tensor, ...] | None = None
    mixed_in: tuple[Tensor, Tensor] | None = None


def to_targets(batch: BatchSamples, config: TrainSettings, device: torch.device) -> Targets:
    """Move what the task needs to the device."""
    images = torch.as_tensor(batch.images).to(device, non_blocking=True)
    match config.task:
        case "detect":
            return Targets(images, padded_truth(batch).to(device), None, None)
        case "segment":
            assert batch.masks is not None
            return Targets(images, None, torch.as_tensor(batch.masks).to(device).long(), None)
        case "classify":
            assert batch.label is not None
            mixed_in = None
            if batch.second_label is not None and batch.label_share is not None:
                second, share = torch.as_tensor(batch.second_label), torch.as_tensor(batch.label_share)
                mixed_in = second.to(device), share.to(device)
            return Targets(images, None, None, torch.as_tensor(batch.label).to(device), mixed_in=mixed_in)


def padded_truth(batch: BatchSamples) -> Truth:
    """The objects of a batch in arrays as long as the longest list."""
    size = (len(batch.boxes), max(1, *(len(boxes) for boxes in batch.boxes)))
    xyxy, label = torch.zeros(*size, 4), torch.zeros(size, dtype=torch.int64)
    weight = torch.zeros(size)
    valid, ignored = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
    for row, boxes in enumerate(batch.boxes):
        count = len(boxes)
        xyxy[row, :count] = torch.as_tensor(boxes)
        label[row, :count] = torch.as_tensor(batch.labels[row].astype(np.int64))
        weight[row, :count] = torch.as_tensor(batch.weight[row])
        ignored[row, :count] = torch.as_tensor(batch.ignore[row])
        valid[row, :count] = ~ignored[row, :count]
    owner = None if batch.owner is None else torch.as_tensor(batch.owner)
    return Truth(xyxy, label, weight, valid, ignored, owner, _padded_points(batch, size))


def _padded_points(batch: BatchSamples, size: tuple[int, int]) -> Tensor | None:
    if batch.points is None:
        return None
    points = torch.zeros(*size, *batch.points[0].shape[1:])
    for row, values in enumerate(batch.points):
        points[row, : len(values)] = torch.as_tensor(values)
    return points


class TrainingStep(nn.Module):
    """A network with its loss: targets in, loss out.

    Args:
        network: learns.
        class_weight: (C,) weights of the classes in the loss, None for equal ones.
        imitation: compares maps with a teacher's, None without one.
        original: the network before its activations were exchanged, None if it is not imitated.
    """

    def __init__(
        self,
        network: Network,
        config: TrainSettings,
        class_weight: Tensor | None = None,
        imitation: Imitation | None = None,
        original: Original | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.imitation = imitation
        self.original = original
        self._imitation_weight = config.transfer.imitation
        self._smoothing = config.optim.label_smoothing
        self._format = torch.channels_last if config.run.channels_last else torch.contiguous_format
        self._class_weight = class_weight
        self._keypoints = config.model.keypoints

    def forward(self, targets: Targets, amp: torch.dtype | None) -> Loss:
        """Run the network in ``amp`` (None: float32) and compare; losses are float32."""
        x = targets.images.permute(0, 3, 1, 2).float().div(GREY_LEVELS).contiguous(memory_format=self._format)
        with torch.autocast(x.device.type, amp or torch.bfloat16, enabled=amp is not None):
            return self._loss(x, targets)

    def _loss(self, x: Tensor, targets: Targets) -> Loss:
        network = self.network
        if self.original is not None and isinstance(network, ForeignDetector):
            return self._imitating(x, network, targets, self.original)
        if isinstance(network, Detector):
            if network.instances is None:
                return self._detection(network.levels(x), network, targets)
            c4, levels = network.features(x)
            return self._detection(levels, network, targets, network.instances(c4, levels))
        if isinstance(network, Segmenter):
            assert targets.mask is not None
            raw = network.branches(x)
            return segmentation_loss(raw.logits, raw.coarse, raw.border, targets.mask, self._class_weight)
        assert isinstance(network, Classifier)
        assert targets.label is not None
        logits = network(x)
        label = targets.label if targets.mixed_in is None else _by_shares(targets.label, *targets.mixed_in, logits)
        return classification_loss(logits, label, self._smoothing, self._class_weight)

    def _imitating(self, x: Tensor, network: ForeignDetector, targets: Targets, original: Original) -> Loss:
        maps, unlike = original(network, x)
        loss = self._detection(maps, network, targets)
        parts = {f"original_{name}": value for name, value in unlike.parts.items()}
        return Loss(loss.total + self._imitation_weight * unlike.total, loss.parts | parts)

    def _detection(
        self, levels: tuple[Tensor, ...], network: Detector, targets: Targets, beside: RawInstances | None = None
    ) -> Loss:
        assert targets.truth is not None
        one, many = network.branches(levels)
        height, width = targets.images.shape[1:3]
        sizes = [(height // stride, width // stride) for stride in STRIDES]
        centres, strides = grid_points(sizes, levels[0].device)
        loss = detection_loss(one, many, centres, strides, targets.truth, beside, self._keypoints)
        if self.imitation is None:
            return loss
        assert targets.taught is not None
        distance = self.imitation(levels, targets.taught)
        return Loss(loss.total + distance, loss.parts | {"imitation": distance.detach()})


def _by_shares(label: Tensor, second: Tensor, share: Tensor, logits: Tensor) -> Tensor:
    """(B, C) soft targets of mixed pictures: ``share`` on the first label, the rest on the second."""
    num_classes = logits.shape[1]
    first, other = F.one_hot(label, num_classes), F.one_hot(second, num_classes)
    return share[:, None] * first + (1 - share[:, None]) * other


def rescaled(targets: Targets, scales: tuple[float, ...], seed: tuple[int, int]) -> Targets:
    """The batch at one of these scales, chosen by ``seed``; sizes stay multiples of the coarsest stride."""
    scale = random.Random(f"{seed[0]}-{seed[1]}").choice(scales)
    height, width = targets.images.shape[1:3]
    size = tuple(max(1, round(side * scale / COARSEST)) * COARSEST for side in (height, width))
    if size == (height, width):
        return targets
    moved = F.interpolate(targets.images.permute(0, 3, 1, 2).float(), size, mode="bilinear", antialias=True)
    truth, mask = targets.truth, targets.mask
    if truth is not None:
        truth = _rescaled_truth(truth, (size[1] / width, size[0] / height), size)
    if mask is not None:
        mask = _resized(mask, size)
    return replace(targets, images=moved.round().to(torch.uint8).permute(0, 2, 3, 1), truth=truth, mask=mask)


def _rescaled_truth(truth: Truth, factor: tuple[float, float], size: tuple[int, ...]) -> Truth:
    """The objects in pictures of ``size`` (height, width), which are ``factor`` times as wide and high."""
    owner = None if truth.owner is None else _resized(truth.owner, size)
    points = None if truth.points is None else truth.points * truth.points.new_tensor([*factor, 1.0])
    return replace(truth, xyxy=truth.xyxy * truth.xyxy.new_tensor(factor * 2), owner=owner, points=points)


def _resized(labels: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B, h, w) integer labels at another size."""
    # plain "nearest" reads at each pixel's corner instead of its centre, which moves the labels
    return F.interpolate(labels[:, None].float(), size, mode="nearest-exact")[:, 0].to(labels.dtype)
