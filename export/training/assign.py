"""Which grid point learns which object: task-aligned assignment, one to many and one to one.

Shape letters: B batch, M objects (padded), A grid points, C classes, k candidates per object.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

EPS = 1e-9


@dataclass(frozen=True, slots=True)
class Truth:
    """The objects of a batch, padded to the largest count.

    Attributes:
        xyxy: (B, M, 4) input pixels.
        label: (B, M) int64.
        weight: (B, M) in [0, 1]; how far a label is trusted.
        valid: (B, M) bool; real objects to learn. Padding is neither valid nor ignored.
        ignored: (B, M) bool; objects that are neither learned nor counted as background.
        owner: (B, h, w) uint8, the object that each pixel shows, 255 for none; None where no masks are learned.
        points: (B, M, J, 3) x y in input pixels, and 0 unlabelled, 1 hidden, 2 seen; None where none are learned.
    """

    xyxy: Tensor
    label: Tensor
    weight: Tensor
    valid: Tensor
    ignored: Tensor
    owner: Tensor | None = None
    points: Tensor | None = None

    def to(self, device: torch.device) -> Truth:
        values = (getattr(self, field.name) for field in fields(self))
        return Truth(*(None if value is None else value.to(device) for value in values))


@dataclass(frozen=True, slots=True)
class Assignment:
    """What every grid point has to say.

    Attributes:
        score: (B, A, C) target score in [0, 1]: 0 for background, else the quality of the grid point's own box.
        xyxy: (B, A, 4) target box; meaningful where ``positive``.
        positive: (B, A) bool.
        weight: (B, A) trust in the label, 1 for background.
        silent: (B, A, C) bool; nothing is to be learned about this class here.
        row: (B, A) which object; meaningful where ``positive``.
    """

    score: Tensor
    xyxy: Tensor
    positive: Tensor
    weight: Tensor
    silent: Tensor
    row: Tensor


@dataclass(frozen=True, slots=True)
class Rule:
    """Task alignment (TOOD, Feng et al. 2021): ``score ** alpha * iou ** beta`` ranks the candidates of an object.

    Attributes:
        candidates: grid points per object; 1 gives one-to-one assignment (YOLOv10, Wang et al. 2024, whose finding
            is that both branches should rank by the same metric).
    """

    candidates: int
    alpha: float = 0.5
    beta: float = 6.0


ONE_TO_MANY = Rule(candidates=10)
ONE_TO_ONE = Rule(candidates=1)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """(B, M, A) intersection over union of (B, M, 4) and (B, A, 4) boxes."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = _area(a)[:, :, None] + _area(b)[:, None, :] - shared
    return shared / (union + EPS)


@dataclass(frozen=True, slots=True)
class Field:
    """Where the objects of a batch lie on the grid; the same for every branch.

    Attributes:
        truth: the objects.
        inside: (B, M, A) bool; the object may have the grid point.
        nearness: (B, M, A) in [0, 1]; 1 at the object's centre, 0 outside.
        silent: (B, A, C) bool; the grid point lies in an ignored object of this class.
    """

    truth: Truth
    inside: Tensor
    nearness: Tensor
    silent: Tensor


def lay_out(centres: Tensor, strides: Tensor, truth: Truth, num_classes: int) -> Field:
    """Place objects on the grid points ``centres`` (A, 2) with ``strides`` (A,), both in input pixels."""
    inside = _reachable(centres, strides, truth)
    nearness = _nearness(centres, truth) * inside
    return Field(truth, inside, nearness, _in_ignored(centres, truth, num_classes))


def assign(logits: Tensor, xyxy: Tensor, field: Field, rule: Rule) -> Assignment:
    """Give each object its best grid points, and each grid point at most one object.

    Args:
        logits: (B, A, C) before the sigmoid, without gradient.
        xyxy: (B, A, 4) predicted boxes, without gradient.
        field: the objects on the grid.
        rule: how to rank.
    """
    overlap = pairwise_iou(field.truth.xyxy, xyxy) * field.inside
    score = _class_scores(logits, field.truth.label)
    # a tiny bonus for near centres, so that an object whose boxes all miss it still gets its grid point
    metric = score.pow_(rule.alpha).mul_(overlap.pow(rule.beta)).add_(field.nearness, alpha=EPS)
    chosen = _top(metric, rule.candidates) & field.inside
    chosen = _one_object_each(chosen, overlap)
    return _targets(chosen, metric, overlap, field)


def _reachable(centres: Tensor, strides: Tensor, truth: Truth) -> Tensor:
    """(B, M, A) bool: the grid point lies in the object, or within a stride of the centre of a small one."""
    middle = (truth.xyxy[..., :2] + truth.xyxy[..., 2:]) / 2
    half = (truth.xyxy[..., 2:] - truth.xyxy[..., :2]) / 2
    away = (centres[None, None] - middle[:, :, None]).abs()
    # objects thinner than the grid would own no point at all
    reach = torch.maximum(half[:, :, None], strides[None, None, :, None] * 0.75)
    reach = torch.where(strides[None, None, :, None] <= 8, reach, half[:, :, None])
    return (away < reach).all(-1) & truth.valid[:, :, None]


def _class_scores(logits: Tensor, label: Tensor) -> Tensor:
    """(B, M, A) score of each object's own class at each grid point."""
    index = label[:, :, None].expand(-1, -1, logits.shape[1])
    return logits.transpose(1, 2).gather(1, index).sigmoid()


def _nearness(centres: Tensor, truth: Truth) -> Tensor:
    """(B, M, A) in (0, 1]: 1 at the object's centre."""
    middle = (truth.xyxy[..., :2] + truth.xyxy[..., 2:]) / 2
    distance = (centres[None, None] - middle[:, :, None]).norm(dim=-1)
    return 1 / (1 + distance)


def _top(metric: Tensor, count: int) -> Tensor:
    """(B, M, A) bool: the ``count`` best grid points of each object."""
    index = metric.topk(min(count, metric.shape[2]), 2).indices
    return torch.zeros_like(metric, dtype=torch.bool).scatter_(2, index, True)


def _one_object_each(chosen: Tensor, overlap: Tensor) -> Tensor:
    """Where several objects want a grid point, the one it overlaps most gets it."""
    winner = ((overlap + EPS) * chosen).max(1, keepdim=True).indices
    return chosen & torch.zeros_like(chosen).scatter_(1, winner, True)


def _targets(chosen: Tensor, metric: Tensor, overlap: Tensor, field: Field) -> Assignment:
    truth = field.truth
    positive = chosen.any(1)
    owner = chosen.to(torch.uint8).max(1).indices
    xyxy = truth.xyxy.gather(1, owner[..., None].expand(-1, -1, 4))
    # the best grid point of an object gets its overlap as target, the others less: TOOD's normalised alignment
    kept = metric * chosen
    scale = (overlap * chosen).amax(2, keepdim=True) / (kept.amax(2, keepdim=True) + EPS)
    quality = (kept * scale).amax(1)
    label = truth.label.gather(1, owner)
    score = torch.nn.functional.one_hot(label, field.silent.shape[2]) * (quality * positive)[..., None]
    trust = torch.where(positive, truth.weight.gather(1, owner), torch.ones_like(quality))
    return Assignment(score, xyxy, positive, trust, field.silent & ~positive[..., None], owner)


def _in_ignored(centres: Tensor, truth: Truth, num_classes: int) -> Tensor:
    """(B, A, C) bool: the grid point lies in an object of this class that is to be ignored."""
    low, high = truth.xyxy[:, :, None, :2], truth.xyxy[:, :, None, 2:]
    inside = ((centres > low) & (centres < high)).all(-1) & truth.ignored[:, :, None]
    kind = torch.nn.functional.one_hot(truth.label, num_classes)
    # how many ignored objects of each class cover each grid point, as a matrix product
    return torch.bmm(inside.float().transpose(1, 2), kind.float()) > 0


def _area(xyxy: Tensor) -> Tensor:
    return (xyxy[..., 2:] - xyxy[..., :2]).clamp(min=0).prod(-1)
