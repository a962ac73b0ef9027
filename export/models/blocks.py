"""The blocks that every network here is made of: convolution, batch norm, ReLU, and nothing that quantizes badly.

Shape letters: B batch, C D channels in and out, h w pixels of a feature map.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
# running statistics must follow within some dozen steps: short trainings on a CPU are the ordinary case, and with 0.03
# a network of 70 steps was right while training and useless when judged; the weights' average steadies them anyway
BN_MOMENTUM = 0.1
BN_EPS = 1e-3
GREY_LEVELS = 255.0


class PictureNetwork(nn.Module):
    """A network that learns on pictures in [0, 1] and is exported to take bytes."""

    def fold_input(self) -> None:
        """Take bytes instead of [0, 1] from now on, by dividing the first convolution; exact, borders included."""
        next(conv_units(self)).conv.weight.data /= GREY_LEVELS

    def enter(self, frames: Tensor) -> Tensor:
        """(N, h, w, 3) to what the network takes: (N, 3, h, w)."""
        return frames.permute(0, 3, 1, 2)


class Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU. ``fuse`` folds the batch norm into the convolution.

    Attributes:
        conv: the convolution; after ``fuse`` it has a bias and ``bn`` is an identity.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act: nn.Module = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h / stride, w / stride)."""
        return self.act(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the batch norm into the convolution; for inference only. May be called twice."""
        if isinstance(self.bn, nn.BatchNorm2d):
            weight, bias = folded(self.conv.weight, self.bn)
            self.conv = with_bias(self.conv, weight, bias)
            self.bn = nn.Identity()


class RepConv(nn.Module):
    """A 3x3 convolution that trains as 3x3 + 1x1 + identity branches and runs as one 3x3 convolution.

    The branches are those of RepVGG (Ding et al. 2021) in the form of QARepVGG (Chu et al. 2022), whose fused weights
    keep a narrow range and so survive INT8: batch norm only in the 3x3 branch and after the sum. The identity is part
    of the 1x1 kernel, which costs nothing.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.branch_bn: nn.Module = nn.BatchNorm2d(outputs, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.point: nn.Conv2d | None = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = nn.ReLU(inplace=True)
        self.has_identity = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h / stride, w / stride)."""
        y = self.branch_bn(self.conv(x))
        if self.point is not None:
            y = y + nn.functional.conv2d(x, self._point_weight(self.point), stride=self.point.stride)
        return self.act(self.bn(y))

    def _point_weight(self, point: nn.Conv2d) -> Tensor:
        """(D, C, 1, 1) the 1x1 kernel with the identity added."""
        if not self.has_identity:
            return point.weight
        identity = torch.eye(point.out_channels, dtype=point.weight.dtype, device=point.weight.device)
        return point.weight + identity[:, :, None, None]

    def fuse(self) -> None:
        """Turn all branches and batch norms into one convolution with bias. May be called twice."""
        if self.point is None or not isinstance(self.branch_bn, nn.BatchNorm2d):
            return
        assert isinstance(self.bn, nn.BatchNorm2d)
        weight, bias = folded(self.conv.weight, self.branch_bn)
        weight = weight + nn.functional.pad(self._point_weight(self.point), (1, 1, 1, 1))
        weight, bias = folded(weight, self.bn, bias)
        self.conv = with_bias(self.conv, weight, bias)
        self.branch_bn = self.bn = nn.Identity()
        self.point = None


class CspBlock(nn.Module):
    """Cross-stage partial block: half of the channels pass through ``depth`` 3x3 blocks, all stages are concatenated.

    The wiring is the "faster CSP" of YOLOv8, ELAN of YOLOv7 before it (Wang et al. 2022), without residual additions:
    the identity branch of ``RepConv`` takes their place, so there are no sums of differently scaled INT8 tensors.
    """

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        half = outputs // 2
        # two convolutions, not one and a Split: each half gets its own INT8 scale, and opset 17 has no trouble with it
        self.skip = Conv(inputs, half)
        self.enter = Conv(inputs, half)
        self.steps = nn.ModuleList(RepConv(half, half) for _ in range(depth))
        self.leave = Conv((2 + depth) * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w)."""
        parts = [self.skip(x), self.enter(x)]
        for step in self.steps:
            parts.append(step(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class PoolPyramid(nn.Module):
    """Spatial pyramid pooling by three 5x5 max pools in a row (SPPF of YOLOv5): a wide view for a few operations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = Conv(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = Conv(channels * 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class GlobalPool(nn.Module):
    """The average of each channel. Written with the size at hand, so that it becomes one AveragePool in ONNX."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, 1, 1)."""
        return nn.functional.avg_pool2d(x, (int(x.shape[2]), int(x.shape[3])))


def folded(weight: Tensor, bn: nn.BatchNorm2d, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals convolution then batch norm, with running statistics.

    Args:
        weight: (D, C, k, k).
        bias: (D,) of the convolution, None for zero.
    """
    assert bn.running_mean is not None and bn.running_var is not None
    factor = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    offset = -bn.running_mean if bias is None else bias - bn.running_mean
    return weight * factor[:, None, None, None], bn.bias + offset * factor


def with_bias(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution of the same geometry with this weight and bias."""
    made = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
    )
    made = made.to(weight.device, weight.dtype)
    made.weight.data.copy_(weight)
    assert made.bias is not None
    made.bias.data.copy_(bias)
    return made


def fused(model: ModuleT) -> ModuleT:
    """A copy for inference: every batch norm folded, every branch re-parameterised; same outputs as ``eval()``."""
    made: ModuleT = copy.deepcopy(model)
    made.eval()
    with torch.no_grad():
        for unit in conv_units(made):
            unit.fuse()
    return made


def conv_units(model: nn.Module) -> Iterator[Conv | RepConv]:
    """All blocks that hold one convolution after fusing, in order of definition."""
    for module in model.modules():
        if isinstance(module, Conv | RepConv):
            yield module


def initialise(model: nn.Module) -> None:
    """Kaiming-normal convolutions (He et al. 2015), batch norms at one and zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
