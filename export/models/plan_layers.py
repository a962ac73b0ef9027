"""The modules that a plan's steps become. Shape letters: B batch, C D channels in and out, h w pixels of a map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge.errors import ModelError
from export.models.blocks import BN_EPS, BN_MOMENTUM, Conv


def activation(kind: str) -> nn.Module:
    """The module of an activation: ``silu``, ``relu``, ``relu6``, ``leaky:0.1``, …, ``none``."""
    name, _, number = kind.partition(":")
    if name == "leaky":
        return nn.LeakyReLU(float(number))
    return ACTIVATIONS[name]()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
}


class ConvStep(Conv):
    """A convolution of any geometry with batch norm and activation; the same unit as our own networks', so it fuses.

    Settings: ``inputs``, ``outputs``, ``kernel``, ``stride``, ``pads`` (top, left, bottom, right), ``dilation``,
    ``groups``, ``act``.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        nn.Module.__init__(self)
        top, left, bottom, right = settings["pads"]
        is_even = (top, left) == (bottom, right)
        self.pad = nn.Identity() if is_even else nn.ZeroPad2d((left, right, top, bottom))
        self.conv = nn.Conv2d(
            settings["inputs"],
            settings["outputs"],
            tuple(settings["kernel"]),
            tuple(settings["stride"]),
            (top, left) if is_even else 0,
            tuple(settings["dilation"]),
            settings["groups"],
            bias=False,
        )
        self.bn: nn.Module = nn.BatchNorm2d(settings["outputs"], eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = activation(settings["act"])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h', w')."""
        return self.act(self.bn(self.conv(self.pad(x))))


class LastConv(nn.Conv2d):
    """A convolution whose results leave the network: a bias, no batch norm."""

    def __init__(self, settings: dict[str, Any]) -> None:
        top, left, bottom, right = settings["pads"]
        if (top, left) != (bottom, right):
            raise ModelError("a last convolution with uneven padding cannot be read")
        super().__init__(
            settings["inputs"],
            settings["outputs"],
            tuple(settings["kernel"]),
            tuple(settings["stride"]),
            (top, left),
            tuple(settings["dilation"]),
            settings["groups"],
        )


class Linear(nn.Linear):
    """A fully connected layer."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings["inputs"], settings["outputs"])


class Norm(nn.BatchNorm2d):
    """A batch norm that follows no convolution; also of vectors."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings["channels"], settings["eps"], BN_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) or (B, C)."""
        return super().forward(x) if x.ndim == 4 else super().forward(x[:, :, None, None])[:, :, 0, 0]


class Constant(nn.Module):
    """A tensor of the file that is added, multiplied, …"""

    value: Tensor

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(tuple(settings["shape"])))

    def forward(self) -> Tensor:
        """The tensor."""
        return self.value


class Function(nn.Module):
    """A step without weights."""

    def __init__(self, settings: dict[str, Any], compute: Callable[..., Tensor]) -> None:
        super().__init__()
        self._settings = settings
        self._compute = compute

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the step computes."""
        return self._compute(*inputs, **self._settings)


def _max_pool(x: Tensor, *, kernel: list[int], stride: list[int], pads: list[int], ceil: bool) -> Tensor:
    top, left, bottom, right = pads
    if (top, left) == (bottom, right) and 2 * top <= kernel[0] and 2 * left <= kernel[1]:
        return F.max_pool2d(x, kernel, stride, (top, left), ceil_mode=ceil)
    return F.max_pool2d(F.pad(x, (left, right, top, bottom), value=float("-inf")), kernel, stride, ceil_mode=ceil)


def _avg_pool(
    x: Tensor, *, kernel: list[int], stride: list[int], pads: list[int], ceil: bool, counts_pad: bool
) -> Tensor:
    return F.avg_pool2d(x, kernel, stride, pads[:2], ceil, counts_pad)


def _global_pool(x: Tensor) -> Tensor:
    # with the size at hand it becomes one AveragePool in ONNX
    return F.avg_pool2d(x, (int(x.shape[2]), int(x.shape[3])))


def _cat(*parts: Tensor, axis: int) -> Tensor:
    return torch.cat(parts, axis)


def _resize(x: Tensor, *, scale: list[float], mode: str, align: bool) -> Tensor:
    corners = align if mode == "bilinear" else None
    return F.interpolate(x, scale_factor=tuple(scale), mode=mode, align_corners=corners)


def _slice(x: Tensor, *, axes: list[int], starts: list[int], ends: list[int], steps: list[int]) -> Tensor:
    whole = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        whole[axis] = slice(start, end, step)
    return x[tuple(whole)]


def _reshape(x: Tensor, *, target: list[int | str]) -> Tensor:
    # "in2" stands for the input's own size there: pictures of other sizes pass through
    return x.reshape([x.shape[int(size[2:])] if isinstance(size, str) else size for size in target])


def _transpose(x: Tensor, *, order: list[int]) -> Tensor:
    return x.permute(order)


def _mean(x: Tensor, *, axes: list[int], keep: bool) -> Tensor:
    if sorted(axis % x.ndim for axis in axes) == [2, 3] and x.ndim == 4:
        pooled = _global_pool(x)
        return pooled if keep else pooled.flatten(1)
    return x.mean(axes, keepdim=keep)


def _pad(x: Tensor, *, sides: list[int], value: float) -> Tensor:
    return F.pad(x, sides, value=value)


def _squeeze(x: Tensor, *, axes: list[int]) -> Tensor:
    return x.squeeze(tuple(axes))


def _unsqueeze(x: Tensor, *, axes: list[int]) -> Tensor:
    for axis in sorted(axes):
        x = x.unsqueeze(axis)
    return x


def _clip(x: Tensor, *, low: float | None, high: float | None) -> Tensor:
    return x.clamp(low, high)


def _softmax(x: Tensor, *, axis: int) -> Tensor:
    return x.softmax(axis)


def _act(x: Tensor, *, kind: str) -> Tensor:
    result: Tensor = activation(kind)(x)
    return result


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "maxpool": _max_pool,
    "avgpool": _avg_pool,
    "globalpool": _global_pool,
    "cat": _cat,
    "resize": _resize,
    "slice": _slice,
    "reshape": _reshape,
    "transpose": _transpose,
    "mean": _mean,
    "pad": _pad,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "clip": _clip,
    "softmax": _softmax,
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": torch.pow,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "float": Tensor.float,
    "same": torch.clone,
}


def layer(op: str, settings: dict[str, Any]) -> nn.Module:
    """The module of a step."""
    match op:
        case "conv":
            return ConvStep(settings)
        case "last":
            return LastConv(settings)
        case "linear":
            return Linear(settings)
        case "norm":
            return Norm(settings)
        case "constant":
            return Constant(settings)
        case "act":
            return activation(settings["kind"])
        case _:
            return Function(settings, FUNCTIONS[op])
