"""The backbone family: one plan, three sizes, feature maps at strides 4, 8, 16 and 32.

Shape letters: B batch, C channels, h w pixels of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from export.models.blocks import Conv, CspBlock, PoolPyramid

Size = Literal["nano", "small", "medium"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Widths and depths of a size. Widths are multiples of 16: what INT8 kernels of CPUs and GPUs work in.

    Attributes:
        widths: channels of the stem and of the four stages.
        depths: 3x3 blocks per stage.
        neck: channels of the neck's three maps.
        tower: channels inside the detection head.
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int]
    neck: int
    tower: int


PLANS: dict[Size, Plan] = {
    "nano": Plan((16, 32, 64, 96, 160), (1, 2, 2, 1), neck=64, tower=48),
    "small": Plan((32, 48, 96, 192, 320), (1, 2, 3, 2), neck=96, tower=64),
    "medium": Plan((32, 64, 128, 256, 448), (2, 3, 4, 2), neck=128, tower=96),
}


class Backbone(nn.Module):
    """A stem and four stages, each a strided 3x3 convolution and a cross-stage partial block.

    Args:
        plan: the size.
        strides: of the stem and the four stages; ``(1, 1, 2, 2, 2)`` for tiny pictures such as 32x32.
    """

    def __init__(self, plan: Plan, strides: tuple[int, ...] = (2, 2, 2, 2, 2)) -> None:
        super().__init__()
        widths = plan.widths
        self.widths = widths[1:]
        self.stem = Conv(3, widths[0], 3, strides[0])
        self.stage1 = _stage(widths[0], widths[1], strides[1], plan.depths[0])
        self.stage2 = _stage(widths[1], widths[2], strides[2], plan.depths[1])
        self.stage3 = _stage(widths[2], widths[3], strides[3], plan.depths[2])
        self.stage4 = _stage(widths[3], widths[4], strides[4], plan.depths[3])
        self.pyramid = PoolPyramid(widths[4])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, h, w) in [0, 1] to four maps at strides 4, 8, 16 and 32."""
        c4 = self.stage1(self.stem(x))
        c8 = self.stage2(c4)
        c16 = self.stage3(c8)
        return c4, c8, c16, self.pyramid(self.stage4(c16))


def _stage(inputs: int, outputs: int, stride: int, depth: int) -> nn.Sequential:
    return nn.Sequential(Conv(inputs, outputs, 3, stride), CspBlock(outputs, outputs, depth))
