"""What training minimises, per task.

Shape letters: B batch, A grid points, C classes, M objects, h w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from edge.types import Float32
from export.data.sample import IGNORE_LABEL
from export.models.detector import RawBoxes
from export.models.instances import RawInstances
from export.training.assign import ONE_TO_MANY, ONE_TO_ONE, Assignment, Rule, Truth, assign, lay_out
from export.training.instance_loss import instance_loss

EPS = 1e-7
# weight of the box term against the class term, as in YOLOv8 and RTMDet up to scale
BOX_GAIN = 5.0
# extra weight of hard examples in the segmentation loss
HARD_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss and its named parts, scalars; the parts have no gradient and are for logs."""

    total: Tensor
    parts: dict[str, Tensor]


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N,) CIoU of (N, 4) box pairs, in [-1.5, 1] (Zheng et al. 2020): overlap, centre distance and aspect ratio."""
    low = torch.maximum(a[:, :2], b[:, :2])
    high = torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    size_a = (a[:, 2:] - a[:, :2]).clamp(min=EPS)
    size_b = (b[:, 2:] - b[:, :2]).clamp(min=EPS)
    overlap = shared / (size_a.prod(-1) + size_b.prod(-1) - shared + EPS)
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    apart = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]).pow(2).sum(-1) / 4
    distance = apart / (hull.pow(2).sum(-1) + EPS)
    angle = torch.atan(size_a[:, 0] / size_a[:, 1]) - torch.atan(size_b[:, 0] / size_b[:, 1])
    aspect = 4 / math.pi**2 * angle.pow(2)
    with torch.no_grad():
        trade = aspect / (1 - overlap + aspect + EPS)
    return overlap - distance - trade * aspect


def shared_scale(value: Tensor) -> Tensor:
    """What a loss is divided by: the sum of ``value`` over all training processes, at least 1, per process.

    Dividing by it makes the averaged gradient of many processes equal that of one process with the whole batch. The
    lower limit holds for the whole batch: a batch of empty pictures must still push its scores down, gently.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return value.clamp(min=1.0)
    total = value.detach().clone()
    dist.all_reduce(total)
    return total.clamp(min=1.0) / dist.get_world_size()


def box_branch(raw: RawBoxes, target: Assignment) -> tuple[Tensor, Tensor]:
    """Class and box loss of one branch, each divided by the sum of target scores.

    The class term is binary cross-entropy against the quality of the box: confident where the box is good (TOOD; the
    idea is that of varifocal loss, Zhang et al. 2021). The box term is 1 - CIoU, weighted by the same quality.
    """
    scale = shared_scale((target.score.sum(-1) * target.weight).sum())
    entropy = F.binary_cross_entropy_with_logits(raw.logits, target.score, reduction="none")
    classes = (entropy.masked_fill(target.silent, 0.0).sum(-1) * target.weight).sum() / scale
    chosen = target.positive
    quality = target.score.sum(-1)[chosen] * target.weight[chosen]
    boxes = ((1 - complete_iou(raw.xyxy[chosen], target.xyxy[chosen])) * quality).sum() / scale
    return classes, boxes


def detection_loss(
    one: RawBoxes | None,
    many: RawBoxes,
    centres: Tensor,
    strides: Tensor,
    truth: Truth,
    beside: RawInstances | None = None,
    keypoints: Sequence[str] = (),
) -> Loss:
    """The sum of both branches' losses, and of what stands next to the boxes.

    Args:
        one: the branch that is exported; each object has one grid point. None where a network has no such branch.
        many: the teaching branch; each object has ten.
        centres: (A, 2) grid points in input pixels.
        strides: (A,) their strides.
        truth: the objects.
        beside: masks and key points, learned at the grid points of both branches; None without.
        keypoints: their names.
    """
    field = lay_out(centres, strides, truth, many.logits.shape[2])
    branches: list[tuple[str, RawBoxes, Rule]] = [("_many", many, ONE_TO_MANY)]
    if one is not None:
        branches.insert(0, ("", one, ONE_TO_ONE))
    total = torch.zeros((), device=many.logits.device)
    parts: dict[str, Tensor] = {}
    targets = []
    for name, raw, rule in branches:
        with torch.no_grad():
            target = assign(raw.logits, raw.xyxy, field, rule)
        targets.append(target)
        classes, boxes = box_branch(raw, target)
        total = total + classes + BOX_GAIN * boxes
        parts |= {f"class{name}": classes.detach(), f"box{name}": boxes.detach()}
    if beside is None:
        return Loss(total, parts)
    more, terms = instance_loss(beside, targets, truth, (centres, strides), keypoints)
    return Loss(total + more, parts | terms)


def classification_loss(logits: Tensor, label: Tensor, smoothing: float, class_weight: Tensor | None = None) -> Loss:
    """Cross-entropy with label smoothing (Szegedy et al. 2016).

    Args:
        logits: (B, C).
        label: (B,) int64 class ids, or (B, C) soft targets.
        smoothing: share of the target spread over all classes, in [0, 1).
        class_weight: (C,) None for equal weights.
    """
    total = F.cross_entropy(logits.float(), label, weight=class_weight, label_smoothing=smoothing)
    return Loss(total, {"class": total.detach()})


def segmentation_loss(
    logits: Tensor, coarse: Tensor, border: Tensor, mask: Tensor, class_weight: Tensor | None = None
) -> Loss:
    """Cross-entropy that counts its hardest pixels twice, on the output and on the context branch, and a border term.

    Hard example mining as in BiSeNet (Yu et al. 2018); the border head that sharpens the detail branch is that of
    PIDNet (Xu et al. 2023). Each map of logits is compared with the mask at twice its own size: four pixels of a cell
    say nearly as much as all of them, and the entropy of all pixels of all classes took a third of a step.

    Args:
        logits: (B, C, h / 4, w / 4).
        coarse: (B, C, h / 16, w / 16), the context branch's own guess.
        border: (B, 1, h / 8, w / 8) logit of "here one class meets another".
        mask: (B, h, w) int64, 255 = unlabelled.
    """
    output = _hard_entropy(logits, mask, class_weight)
    context = _hard_entropy(coarse, mask, class_weight)
    edge = _border_entropy(border, mask)
    total = output + 0.4 * context + 2.0 * edge
    return Loss(total, {"class": output.detach(), "context": context.detach(), "border": edge.detach()})


def _hard_entropy(logits: Tensor, mask: Tensor, class_weight: Tensor | None) -> Tensor:
    factor = max(1, mask.shape[1] // (2 * logits.shape[2]))
    mask = mask[:, factor // 2 :: factor, factor // 2 :: factor]
    grown = F.interpolate(logits.float(), mask.shape[1:], mode="bilinear", align_corners=False)
    entropy = F.cross_entropy(grown, mask, weight=class_weight, ignore_index=IGNORE_LABEL, reduction="none")
    entropy = entropy[mask != IGNORE_LABEL]
    if entropy.numel() == 0:
        return grown.sum() * 0
    hardest = entropy.topk(max(1, int(entropy.numel() * HARD_SHARE))).values
    return (entropy.mean() + hardest.mean()) / 2


def _border_entropy(border: Tensor, mask: Tensor) -> Tensor:
    """Balanced binary cross-entropy of the border map."""
    factor = mask.shape[1] // border.shape[2]
    target = borders(mask)[:, None].float()
    target = F.max_pool2d(target, factor)[:, :, : border.shape[2], : border.shape[3]]
    share = target.mean().clamp(0.01, 0.99)
    weight = torch.where(target > 0, 1 - share, share)
    entropy = F.binary_cross_entropy_with_logits(border.float(), target, reduction="none")
    return (entropy * weight).mean()


def borders(mask: Tensor) -> Tensor:
    """(B, h, w) bool: pixels whose right or lower neighbour has another class."""
    found = torch.zeros_like(mask, dtype=torch.bool)
    found[:, :, :-1] |= mask[:, :, 1:] != mask[:, :, :-1]
    found[:, :-1] |= mask[:, 1:] != mask[:, :-1]
    return found & (mask != IGNORE_LABEL)


def class_weights(counts: Float32) -> Tensor:
    """(C,) loss weights of classes seen ``counts`` times: ``1 / log(1.1 + share)``, mean 1 (ENet 2016)."""
    share = torch.as_tensor(counts, dtype=torch.float32) / max(float(counts.sum()), 1.0)
    weight = 1 / torch.log(1.1 + share)
    return weight / weight.mean()
