"""The anchor-free detector: backbone, path-aggregation neck, decoupled heads, boxes without NMS.

Shape letters: B batch, A grid points of all levels, C classes, K kept boxes, h w pixels of the input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.models.backbone import PLANS, Backbone, Size
from export.models.blocks import Conv, CspBlock, PictureNetwork, RepConv, initialise
from export.models.instances import InstanceBranch, points_of

STRIDES = (8, 16, 32)
# focal-loss prior (Lin et al. 2017): at the start nearly every grid point says "nothing here"
PRIOR = 0.01
# first boxes of two strides to each side overlap most objects of their level, so the box loss has a gradient at once
FIRST_DISTANCE_STRIDES = 2.0
# e^6 strides are wider than any picture; beyond, the exponential would overflow
LARGEST_NUMBER = 6.0


@dataclass(frozen=True, slots=True)
class RawBoxes:
    """What one branch says at every grid point.

    Attributes:
        logits: (B, A, C) class scores before the sigmoid.
        xyxy: (B, A, 4) boxes in input pixels.
    """

    logits: Tensor
    xyxy: Tensor


class Neck(nn.Module):
    """Path aggregation (PAN, Liu et al. 2018): coarse meaning flows down, fine position flows up again."""

    def __init__(self, widths: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        self.lateral8, self.lateral16, self.lateral32 = (Conv(width, channels) for width in widths)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top16 = CspBlock(2 * channels, channels, 1)
        self.top8 = CspBlock(2 * channels, channels, 1)
        self.down8 = Conv(channels, channels, 3, 2)
        self.out16 = CspBlock(2 * channels, channels, 1)
        self.down16 = Conv(channels, channels, 3, 2)
        self.out32 = CspBlock(2 * channels, channels, 1)

    def forward(self, c8: Tensor, c16: Tensor, c32: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three maps at strides 8, 16, 32 to three maps of equal width."""
        p32 = self.lateral32(c32)
        p16 = self.top16(torch.cat([self.up(p32), self.lateral16(c16)], 1))
        p8 = self.top8(torch.cat([self.up(p16), self.lateral8(c8)], 1))
        p16 = self.out16(torch.cat([self.down8(p8), p16], 1))
        p32 = self.out32(torch.cat([self.down16(p16), p32], 1))
        return p8, p16, p32


class Head(nn.Module):
    """Decoupled heads (YOLOX, Ge et al. 2021) of one level, twice: one box per object, and many boxes per object.

    The many-boxes branch teaches the features and is dropped at export, as in YOLOv10 (Wang et al. 2024). The box
    tower is shared, the class towers are not: only the class branch must learn to silence a neighbour.
    """

    def __init__(self, channels: int, tower: int, num_classes: int) -> None:
        super().__init__()
        self.box_tower = RepConv(channels, tower)
        self.class_tower = RepConv(channels, tower)
        self.many_tower = RepConv(channels, tower)
        self.box = nn.Conv2d(tower, 4, 1)
        self.classes = nn.Conv2d(tower, num_classes, 1)
        self.many_box = nn.Conv2d(tower, 4, 1)
        self.many_classes = nn.Conv2d(tower, num_classes, 1)

    def forward(self, x: Tensor, many: bool) -> tuple[Tensor, Tensor]:
        """Logits (B, C, h, w) and box numbers (B, 4, h, w), of the one or the many branch."""
        box = self.box_tower(x)
        if many:
            return self.many_classes(self.many_tower(x)), self.many_box(box)
        return self.classes(self.class_tower(x)), self.box(box)

    def both(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The one and the many branch, the shared tower run once."""
        box = self.box_tower(x)
        one = self.classes(self.class_tower(x)), self.box(box)
        return one, (self.many_classes(self.many_tower(x)), self.many_box(box))

    def start(self) -> None:
        """Set the last layers so that training starts with few objects and boxes of middling size."""
        for conv in (self.classes, self.many_classes):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.constant_(conv.bias, -math.log((1 - PRIOR) / PRIOR))
        for conv in (self.box, self.many_box):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.constant_(conv.bias, math.log(FIRST_DISTANCE_STRIDES))


class Detector(PictureNetwork):
    """The whole detector. Input (B, 3, h, w) float in [0, 1], BGR, h and w multiples of 32.

    Args:
        num_prototypes: of masks; 0 for a detector without masks.
        num_points: key points of an object; 0 for a detector without.
    """

    def __init__(self, size: Size, num_classes: int, num_prototypes: int = 0, num_points: int = 0) -> None:
        super().__init__()
        plan = PLANS[size]
        self.num_classes = num_classes
        self.backbone = Backbone(plan)
        self.neck = Neck(self.backbone.widths[1:], plan.neck)
        self.heads = nn.ModuleList(Head(plan.neck, plan.tower, num_classes) for _ in STRIDES)
        self.instances: InstanceBranch | None = None
        if num_prototypes or num_points:
            fine = self.backbone.widths[0]
            self.instances = InstanceBranch(fine, plan.neck, plan.tower, num_prototypes, num_points, len(STRIDES))
        initialise(self)
        for head in self.heads:
            head.start()
        if self.instances is not None:
            self.instances.start()

    def forward(self, x: Tensor, many: bool = False) -> RawBoxes:
        """One branch, for inference: without ``many`` there is one box per object."""
        outputs = [head(level, many) for head, level in zip(self.heads, self.levels(x), strict=True)]
        return joined(outputs)

    def best(self, x: Tensor, keep: int, many: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The best boxes of one branch, as ``best_boxes`` gives them."""
        return best_boxes(self(x, many), keep)

    def rows(self, x: Tensor, keep: int, many: bool) -> tuple[Tensor, Tensor]:
        """The best boxes with what stands next to them.

        Returns:
            (B, K, 6 + E) corners, score, class, mask coefficients, and x y score of each key point, pixels; prototypes.
        """
        assert self.instances is not None
        c4, levels = self.features(x)
        boxes = joined([head(level, many) for head, level in zip(self.heads, levels, strict=True)])
        beside = self.instances(c4, levels)
        top, index, label = best_points(boxes, keep)
        xyxy, numbers = _at(boxes.xyxy, index), _at(beside.numbers, index)
        coefficients = numbers[..., : self.instances.num_prototypes]
        parts = [xyxy, top.sigmoid()[..., None], label[..., None].float(), coefficients]
        if self.instances.num_points:
            centres, strides = grid_points([(int(level.shape[2]), int(level.shape[3])) for level in levels], x.device)
            rest = numbers[..., self.instances.num_prototypes :]
            points = points_of(rest, centres[index], strides[index])
            parts.append(torch.cat([points[..., :2], points[..., 2:].sigmoid()], -1).flatten(-2))
        return torch.cat(parts, -1), beside.prototypes

    def branches(self, levels: tuple[Tensor, Tensor, Tensor]) -> tuple[RawBoxes, RawBoxes]:
        """The one-box and the many-boxes branch on the neck's maps, for training."""
        outputs = [head.both(level) for head, level in zip(self.heads, levels, strict=True)]
        return joined([one for one, _ in outputs]), joined([many for _, many in outputs])

    def levels(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The neck's maps at the strides 8, 16 and 32."""
        return self.features(x)[1]

    def features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """The backbone's map at stride 4, and the neck's maps at the strides 8, 16 and 32."""
        c4, c8, c16, c32 = self.backbone(x)
        levels: tuple[Tensor, Tensor, Tensor] = self.neck(c8, c16, c32)
        return c4, levels


def grid_points(sizes: list[tuple[int, int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Centres (A, 2) ``x y`` in input pixels and strides (A,) of all grid points, levels in order, row by row.

    Args:
        sizes: (height, width) of each level.
    """
    centres, strides = [], []
    for (height, width), stride in zip(sizes, STRIDES, strict=True):
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) * stride
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) * stride
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        centres.append(torch.stack([columns, rows], -1).reshape(-1, 2))
        strides.append(torch.full((height * width,), float(stride), device=device))
    return torch.cat(centres), torch.cat(strides)


def joined(levels: list[tuple[Tensor, Tensor]]) -> RawBoxes:
    """Concatenate the levels and make boxes of their numbers.

    A number is the logarithm of a distance in strides: from the grid point to the left, top, right and bottom edge
    (FCOS, Tian et al. 2019). Always float32: half precision would cost pixels in large pictures.
    """
    logits = torch.cat([level.flatten(2) for level, _ in levels], 2).transpose(1, 2)
    numbers = torch.cat([level.flatten(2) for _, level in levels], 2).transpose(1, 2)
    sizes = [(int(level.shape[2]), int(level.shape[3])) for level, _ in levels]
    centres, strides = grid_points(sizes, numbers.device)
    distance = numbers.float().clamp(max=LARGEST_NUMBER).exp() * strides[:, None]
    xyxy = torch.cat([centres - distance[..., :2], centres + distance[..., 2:]], -1)
    return RawBoxes(logits.float(), xyxy)


def best_boxes(raw: RawBoxes, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``keep`` best grid points, each with its best class, highest score first.

    Returns:
        boxes (B, K, 4), scores (B, K) in [0, 1], labels (B, K) int64.
    """
    top, index, label = best_points(raw, keep)
    # the sigmoid keeps the order, so it is needed for the kept ones only
    return _at(raw.xyxy, index), top.sigmoid(), label


def best_points(raw: RawBoxes, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, K), highest first, grid points (B, K) and labels (B, K) int64 of the ``keep`` best."""
    best, label = raw.logits.max(-1)
    top, index = best.topk(min(keep, best.shape[1]), 1)
    return top, index, label.gather(1, index)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """(B, K, D) of (B, A, D) at these grid points."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
