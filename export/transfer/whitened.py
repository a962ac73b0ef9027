"""Kernels of a network that was read, in coordinates in which a small step changes every layer by little.

Behind a ReLU all numbers are positive, so they have a large mean, and the channels of a map tell much the same: a step
in the weights themselves then moves whole maps at once, and rates at which anything is learned destroy what is there.
So a kernel is written as ``scale * u @ root⁻¹``, where ``root`` is the square root of the second moments of what the
layer reads (its offset counts as the weight of a one) and ``scale`` the size of what each channel computes: ``u`` sees
white inputs of one size. This is natural gradient with the layers' own inputs as curvature (Desjardins et al. 2015,
"Natural neural networks"; Benzing 2022, "Gradient descent on neurons").

Shape letters: C D channels in and out, G groups, F features (a patch), S samples, h w pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.models.blocks import Conv, RepConv, folded
from export.models.foreign_detector import ForeignDetector, KeptHead
from export.models.plan_layers import ConvStep
from export.transfer.refit import set_kernel

SAMPLES_PER_PICTURE = 400
# what hardly varies is not moved: pull towards the identity, as a share of the mean second moment
RIDGE = 1e-2
CODES = 127.0


class WhitenedKernel(nn.Module):
    """Kernel and offset of one layer as a function of ``u``; both in float64 until they are used.

    Args:
        weight: (D, C / G, k, k). offset: (D,).
        moments: (G, F + 1, F + 1) mean products of the features of a patch and a one.
    """

    inverse: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, offset: Tensor, moments: Tensor) -> None:
        super().__init__()
        self.shape, groups = weight.shape, len(moments)
        rows = torch.cat([weight.detach().flatten(1), offset.detach()[:, None]], 1).double().unflatten(0, (groups, -1))
        pull = RIDGE * moments.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-10)
        values, vectors = torch.linalg.eigh(moments + torch.diag_embed(pull[:, None].expand(-1, moments.shape[1])))
        values = values.clamp(min=1e-12)
        white = rows @ (vectors @ torch.diag_embed(values.sqrt()) @ vectors.mT)
        size = white.norm(dim=2, keepdim=True)
        size = size.clamp(min=1e-3 * float(size.mean()) + 1e-9)
        self.register_buffer("inverse", (vectors @ torch.diag_embed(values.rsqrt()) @ vectors.mT).float())
        self.register_buffer("scale", size.float())
        self.u = nn.Parameter((white / size).float())

    def forward(self) -> tuple[Tensor, Tensor]:
        """Weight (D, C / G, k, k) and offset (D,)."""
        rows = ((self.u * self.scale) @ self.inverse).flatten(0, 1)
        return rows[:, :-1].reshape(self.shape), rows[:, -1]


class Whitened:
    """A detector whose layers compute with whitened kernels until ``finish``; nothing that it computes is changed.

    Args:
        network: with a kept head, in evaluation mode; its layers are changed in place.
        pictures: (1, 3, h, w) in [0, 1] that show what the layers read.
        rounded: layer → scale of the codes of its input, for those that are to compute as in INT8; gradients pass.
        is_unsigned: whether codes begin at 0.
    """

    def __init__(
        self,
        network: ForeignDetector,
        pictures: Sequence[Tensor],
        rounded: Mapping[nn.Conv2d, float] | None = None,
        is_unsigned: bool = False,
    ) -> None:
        # the layers' gradients would be summed for nothing
        for value in network.parameters():
            value.requires_grad_(False)
        self._layers = list(layers(network))
        moments = second_moments(network, pictures)
        self.kernels = nn.ModuleList()
        for unit, conv in self._layers:
            weight, offset = (conv.weight, conv.bias) if unit is None else folded(conv.weight, _norm(unit))
            assert offset is not None
            kernel = WhitenedKernel(weight, offset, moments[conv])
            self.kernels.append(kernel)
            scale = (rounded or {}).get(conv)
            module = conv if unit is None else unit
            module.forward = partial(_computed, unit, conv, kernel, scale, is_unsigned)  # type: ignore[method-assign]

    @torch.no_grad()
    def finish(self) -> None:
        """Write the kernels into the network and let it compute by itself again."""
        for (unit, conv), kernel in zip(self._layers, self.kernels, strict=True):
            weight, offset = kernel()
            if unit is None:
                assert conv.bias is not None
                conv.weight.copy_(weight)
                conv.bias.copy_(offset)
                del conv.forward
            else:
                set_kernel(unit, weight, offset)
                del unit.forward


def layers(network: ForeignDetector) -> Iterator[tuple[ConvStep | None, nn.Conv2d]]:
    """All convolutions, with their unit; None for the last ones."""
    for module in network.modules():
        if isinstance(module, ConvStep):
            yield module, module.conv
        elif isinstance(module, KeptHead):
            yield None, module.classes
            yield None, module.box


@torch.no_grad()
def second_moments(network: ForeignDetector, pictures: Sequence[Tensor], seed: int = 0) -> dict[nn.Conv2d, Tensor]:
    """Layer → (G, F + 1, F + 1) float64 mean products of the patches that it reads, a one behind each."""
    generator = torch.Generator().manual_seed(seed)
    sums: dict[nn.Conv2d, Tensor] = {}

    def observe(conv: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        padding = [int(size) for size in conv.padding]
        patches = F.unfold(inputs[0][:1], conv.kernel_size, conv.dilation, padding, conv.stride)[0].T
        patches = patches[torch.randperm(len(patches), generator=generator)[:SAMPLES_PER_PICTURE]]
        grouped = patches.unflatten(1, (conv.groups, -1)).transpose(0, 1)
        seen = torch.cat([grouped, torch.ones_like(grouped[..., :1])], 2).double()
        found = seen.mT @ seen / (seen.shape[1] * len(pictures))
        sums[conv] = sums[conv] + found if conv in sums else found

    handles = [conv.register_forward_hook(observe) for _, conv in layers(network)]
    for picture in pictures:
        network.kept(network.levels(picture))
    for handle in handles:
        handle.remove()
    return sums


def rounded_kernel(weight: Tensor) -> Tensor:
    """(D, C, k, k) as INT8 codes say it, one scale per channel; gradients pass."""
    peak = weight.detach().abs().amax(dim=(1, 2, 3)).clamp(min=1e-12)
    zeros = torch.zeros(len(peak), dtype=torch.int32, device=peak.device)
    return torch.fake_quantize_per_channel_affine(weight, peak / CODES, zeros, 0, -127, 127)


def rounded_input(x: Tensor, scale: float, is_unsigned: bool) -> Tensor:
    """What a layer reads as INT8 codes say it; gradients pass where nothing is cut."""
    low, high = (0, 255) if is_unsigned else (-128, 127)
    return torch.fake_quantize_per_tensor_affine(x, scale, 0, low, high)


def _computed(
    unit: ConvStep | None, conv: nn.Conv2d, kernel: WhitenedKernel, scale: float | None, is_unsigned: bool, x: Tensor
) -> Tensor:
    """What the layer makes of ``x``, with its whitened kernel."""
    weight, offset = kernel()
    if scale is not None:
        x, weight = rounded_input(x, scale, is_unsigned), rounded_kernel(weight)
    return convolved(unit, conv, weight, offset, x)


def convolved(unit: Conv | RepConv | None, conv: nn.Conv2d, weight: Tensor, offset: Tensor, x: Tensor) -> Tensor:
    """(B, C, h, w) as the unit of a convolution, or the convolution alone, makes it with this kernel and offset."""
    if isinstance(unit, ConvStep):
        x = unit.pad(x)
    y = F.conv2d(x, weight, offset, conv.stride, conv.padding, conv.dilation, conv.groups)
    if unit is not None:
        y = unit.act(y)
    return y


def _norm(unit: ConvStep) -> nn.BatchNorm2d:
    assert isinstance(unit.bn, nn.BatchNorm2d)
    return unit.bn
