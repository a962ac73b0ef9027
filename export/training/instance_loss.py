"""What the branch for masks and key points learns.

Shape letters: B batch, M objects (padded), A grid points, P prototypes, J key points, N chosen grid points, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from edge.models.keypoints import sigmas_of
from export.models.instances import PROTOTYPE_STRIDE, RawInstances, points_of
from export.training.assign import Assignment, Truth

# weights against the class term of the boxes
MASK_GAIN = 2.0
POINT_GAIN = 8.0
SEEN_GAIN = 0.5
# of the grid points that many-boxes assignment chose: a mask of each would cost more than it teaches
MAX_MANY_MASKS = 64
EPS = 1e-6

# picture, grid point and object, (N,) each
Chosen = tuple[Tensor, Tensor, Tensor]


def instance_loss(
    raw: RawInstances, targets: list[Assignment], truth: Truth, grid: tuple[Tensor, Tensor], names: Sequence[str] = ()
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of all terms, and each without gradient.

    Args:
        raw: of the branch.
        targets: which grid point learns which object, the one-box branch's first.
        truth: the objects, with masks or points.
        grid: centres (A, 2) in input pixels and strides (A,).
        names: of the key points; each is learned by the tolerance that it is judged by.
    """
    parts: dict[str, Tensor] = {}
    total = raw.numbers.sum() * 0
    num_prototypes = raw.prototypes.shape[1]
    if num_prototypes and truth.owner is not None:
        masks = mask_loss(raw, _some(targets, MAX_MANY_MASKS), truth)
        total, parts["mask"] = total + MASK_GAIN * masks, masks.detach()
    if truth.points is not None:
        places, seen = point_loss(raw.numbers[..., num_prototypes:], targets, truth, grid, names)
        total = total + POINT_GAIN * places + SEEN_GAIN * seen
        parts |= {"points": places.detach(), "seen": seen.detach()}
    return total, parts


def mask_loss(raw: RawInstances, chosen: Chosen, truth: Truth) -> Tensor:
    """Binary cross-entropy of the mixed prototypes inside the true boxes, every object counting alike.

    The target of a cell is the share of its pixels that the object owns, so half covered cells lie on the mask's edge.
    """
    picture, place, row = chosen
    share, is_inside = _mask_targets(truth, picture, row)
    # objects of whose pixels nothing is known
    has_mask = share.flatten(1).amax(1) > 0
    if not bool(has_mask.any()):
        return raw.prototypes.sum() * 0
    maps = raw.prototypes[picture[has_mask]]
    coefficients = raw.numbers[picture[has_mask], place[has_mask], : maps.shape[1]]
    logits = torch.einsum("np,nphw->nhw", coefficients, maps)
    entropy = F.binary_cross_entropy_with_logits(logits, share[has_mask], reduction="none")
    inside = is_inside[has_mask]
    per_object = (entropy * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    return per_object.mean()


def _mask_targets(truth: Truth, picture: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """(N, h / 4, w / 4) share of each cell that is the object's, and which cells its box touches."""
    assert truth.owner is not None
    mine = (truth.owner[picture] == row[:, None, None]).float()
    share = F.avg_pool2d(mine[:, None], PROTOTYPE_STRIDE)[:, 0]
    low, high = (truth.xyxy[picture, row] / PROTOTYPE_STRIDE).split(2, 1)
    rows = torch.arange(share.shape[1], device=share.device) + 0.5
    columns = torch.arange(share.shape[2], device=share.device) + 0.5
    x = (columns > low[:, :1] - 0.5) & (columns < high[:, :1] + 0.5)
    y = (rows > low[:, 1:] - 0.5) & (rows < high[:, 1:] + 0.5)
    return share, y[:, :, None] & x[:, None, :]


def point_loss(
    numbers: Tensor, targets: list[Assignment], truth: Truth, grid: tuple[Tensor, Tensor], names: Sequence[str] = ()
) -> tuple[Tensor, Tensor]:
    """How far labelled key points are off, and whether it is known which are seen.

    A point's term is half 1 - OKS of it and half its distance in units of its tolerance: the first is what is judged
    (Maji et al. 2022), the second pulls points that are far away, where the first is flat.

    Args:
        numbers: (B, A, 3 J).
        names: of the J points; each has the tolerance that it is judged by.
    """
    assert truth.points is not None
    picture, place, row = (torch.cat(part) for part in zip(*(_positives(target) for target in targets), strict=True))
    label = truth.points[picture, row]
    has_points = (label[..., 2] > 0).any(1)
    if not bool(has_points.any()):
        return numbers.sum() * 0, numbers.sum() * 0
    picture, place, row, label = (part[has_points] for part in (picture, place, row, label))
    found = points_of(numbers[picture, place], grid[0][place], grid[1][place])
    size = truth.xyxy[picture, row]
    area = (size[:, 2:] - size[:, :2]).clamp(min=1).prod(-1)
    sigma = torch.tensor(sigmas_of(label.shape[1], names), device=numbers.device)
    tolerance = 2 * sigma * area[:, None].sqrt()
    distance = (found[..., :2] - label[..., :2]).pow(2).sum(-1).add(EPS).sqrt() / tolerance
    known = (label[..., 2] > 0).float()
    off = (1 - torch.exp(-distance.pow(2) / 2)) / 2 + distance / 8
    places = (off * known).sum() / known.sum().clamp(min=1)
    seen = F.binary_cross_entropy_with_logits(found[..., 2], (label[..., 2] > 1).float(), reduction="none")
    return places, (seen * known).sum() / known.sum().clamp(min=1)


def _positives(target: Assignment) -> Chosen:
    picture, place = target.positive.nonzero(as_tuple=True)
    return picture, place, target.row[picture, place]


def _some(targets: list[Assignment], most: int) -> Chosen:
    """All grid points of the first assignment and a random ``most`` of the others."""
    found = [_positives(target) for target in targets]
    for number, parts in enumerate(found[1:], start=1):
        kept = torch.randperm(len(parts[0]), device=parts[0].device)[:most]
        found[number] = parts[0][kept], parts[1][kept], parts[2][kept]
    picture, place, row = (torch.cat(part) for part in zip(*found, strict=True))
    return picture, place, row
