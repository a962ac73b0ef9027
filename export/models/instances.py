"""What a detector says next to its boxes: prototypes of masks, and per grid point their coefficients and key points.

Masks are mixed of prototypes as in YOLACT (Bolya et al. 2019, arXiv 1904.02689); key points are offsets from the grid
point (YOLO-Pose, Maji et al. 2022, arXiv 2204.06806).

Shape letters: B batch, A grid points of all levels, P prototypes, J key points, E = P + 3 J, h w pixels of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.models.blocks import Conv, RepConv

# channels of the maps that prototypes are made of, at stride 8 and 4
PROTOTYPE_WIDTH = 32
FINE_WIDTH = 16
TOWER_DEPTH = 3
# how many input pixels a cell of the prototypes is wide
PROTOTYPE_STRIDE = 4


@dataclass(frozen=True, slots=True)
class RawInstances:
    """What stands next to the boxes.

    Attributes:
        numbers: (B, A, E): P coefficients, then x y in strides from the grid point and a logit for each key point.
        prototypes: (B, P, h / 4, w / 4); (0, 0, 1, 1) without masks.
    """

    numbers: Tensor
    prototypes: Tensor


class Prototypes(nn.Module):
    """Maps at stride 4 of the neck's finest map and the backbone's earliest."""

    def __init__(self, fine: int, neck: int, count: int) -> None:
        super().__init__()
        self.enter = Conv(neck, PROTOTYPE_WIDTH, 3)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.skip = Conv(fine, FINE_WIDTH)
        self.join = RepConv(PROTOTYPE_WIDTH + FINE_WIDTH, PROTOTYPE_WIDTH)
        self.last = nn.Conv2d(PROTOTYPE_WIDTH, count, 1)

    def forward(self, c4: Tensor, p8: Tensor) -> Tensor:
        """Maps at the strides 4 and 8 to (B, P, h / 4, w / 4)."""
        joined: Tensor = self.join(torch.cat([self.up(self.enter(p8)), self.skip(c4)], 1))
        maps: Tensor = self.last(joined)
        return maps


class InstanceBranch(nn.Module):
    """The branch of a detector: prototypes if there are any, and a tower of its own for each level.

    The tower is not shared with boxes or classes, so that a detector can be given the branch without changing. It is
    deeper than theirs: on features that were learned for boxes one layer cannot tell a left knee from a right one.

    Args:
        fine: channels of the backbone's map at stride 4.
        neck, tower: as in the detector's plan.
        num_prototypes: P, 0 for no masks.
        num_points: J, 0 for no key points.
        levels: how many maps the neck has.
    """

    def __init__(self, fine: int, neck: int, tower: int, num_prototypes: int, num_points: int, levels: int) -> None:
        super().__init__()
        self.num_prototypes, self.num_points = num_prototypes, num_points
        self.prototypes = Prototypes(fine, neck, num_prototypes) if num_prototypes else None
        self.towers = nn.ModuleList(
            nn.Sequential(RepConv(neck, tower), *(RepConv(tower, tower) for _ in range(TOWER_DEPTH - 1)))
            for _ in range(levels)
        )
        self.numbers = nn.ModuleList(nn.Conv2d(tower, num_prototypes + 3 * num_points, 1) for _ in range(levels))

    def start(self) -> None:
        """Set the last layers so that training starts with key points at their grid points."""
        for conv in self.numbers:
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, c4: Tensor, levels: Sequence[Tensor]) -> RawInstances:
        """The backbone's map at stride 4 and the neck's maps."""
        maps = [last(tower(level)) for tower, last, level in zip(self.towers, self.numbers, levels, strict=True)]
        numbers = torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2).float()
        if self.prototypes is None:
            return RawInstances(numbers, numbers.new_zeros((0, 0, 1, 1)))
        return RawInstances(numbers, self.prototypes(c4, levels[0]).float())


def points_of(numbers: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """(…, J, 3) x y in input pixels and the logit of being seen.

    Args:
        numbers: (…, 3 J).
        centres: (…, 2) grid points in input pixels.
        strides: (…,).
    """
    found = numbers.unflatten(-1, (-1, 3))
    place = centres[..., None, :] + found[..., :2] * strides[..., None, None]
    return torch.cat([place, found[..., 2:]], -1)
