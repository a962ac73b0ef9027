"""Channels of equal height: what INT8 needs of a ReLU network, without changing what it computes.

Codes of a tensor share one scale, so a channel that never exceeds 2 next to one that reaches 100 has five levels left.
ReLU lets numbers be moved between layers: a channel may be divided by s where it is made, if it is multiplied by s
wherever it is read (Nagel et al. 2019, "Data-free quantization through weight equalization"). How much is moved is a
trade between codes of activations and of weights, as in SmoothQuant (Xiao et al. 2023).

Shape letters: C D channels in and out, h w pixels of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from export.models.foreign_detector import ForeignDetector, KeptHead
from export.models.plan import Plan, Step
from export.models.plan_layers import ConvStep

# share of a channel's height that is moved into dense kernels; depthwise kernels have a scale for each channel and
# take all of it
DENSE_SHARE = 0.8
# no channel is divided or multiplied by more than this
MOST = 64.0


@torch.no_grad()
def equalise(network: ForeignDetector, pictures: Sequence[Tensor]) -> None:
    """Divide high channels where they are made and multiply them where they are read, in place.

    Nothing is done where an activation is not ReLU: it would compute something else.

    Args:
        network: with a kept head, its batch norms folded or real.
        pictures: (1, 3, h, w) in [0, 1] that show how high the channels are.
    """
    plan = network.form.plan
    if not is_levelable(plan):
        return
    groups = channel_groups(plan)
    heights = _heights(network, pictures, groups)
    dense, is_read = _kernel_heights(network, groups, len(heights))
    factor = heights / heights.log().mean().exp()
    smooth = heights.pow(DENSE_SHARE) / dense.clamp(min=1e-6).pow(1 - DENSE_SHARE)
    factor = torch.where(dense > 0, smooth / smooth.log().mean().exp(), factor)
    # the picture itself cannot be scaled, and what nobody reads need not be
    factor = torch.where(is_read & (heights > 1e-5), factor.clamp(1 / MOST, MOST), torch.ones_like(factor))
    factor[0] = 1.0
    _apply(network, groups, factor)


def is_levelable(plan: Plan) -> bool:
    """Whether every activation hands a factor on, as ReLU does and ReLU6 does not."""
    keys = {"conv": "act", "act": "kind"}
    return {step.settings[keys[step.op]] for step in plan.steps if step.op in keys} <= {"relu", "none"}


def channel_groups(plan: Plan) -> dict[str, Tensor]:
    """Tensor → (C,) numbers of the groups of its channels: channels of one group must have one scale. 0 is the picture.

    A convolution makes new channels; pools, resizing and joins hand them on; an addition ties two together.
    """
    parents = [0]
    found: dict[str, list[int]] = {plan.input: [0] * plan.shapes[plan.input][1]}

    def root(group: int) -> int:
        while parents[group] != group:
            group = parents[group]
        return group

    for step in plan.steps:
        if step.op == "conv":
            first = len(parents)
            count = step.settings["outputs"]
            parents.extend(range(first, first + count))
            found[step.output] = list(range(first, first + count))
        elif step.op == "cat":
            found[step.output] = [group for name in step.inputs for group in found[name]]
        elif step.op == "add":
            sides = [found[name] for name in step.inputs]
            for a, b in zip(*sides, strict=True):
                low, high = sorted((root(a), root(b)))
                parents[high] = low
            found[step.output] = sides[0]
        else:
            found[step.output] = found[step.inputs[0]]
    return {name: torch.tensor([root(group) for group in numbers]) for name, numbers in found.items()}


def _heights(network: ForeignDetector, pictures: Sequence[Tensor], groups: dict[str, Tensor]) -> Tensor:
    """(G,) largest value of each group."""
    names = [step.output for step in network.form.plan.steps]
    highest = torch.full((1 + max(int(numbers.max()) for numbers in groups.values()),), 1e-6)
    for picture in pictures:
        for name, value in zip(names, network.trunk.run(network.normalise(picture), names), strict=True):
            highest.scatter_reduce_(0, groups[name], value.amax((0, 2, 3)), "amax")
    return highest


def _kernel_heights(network: ForeignDetector, groups: dict[str, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """(G,) largest weight of dense kernels that read a group, 0 where none does; and whether anything reads it."""
    highest, is_read = torch.zeros(count), torch.zeros(count, dtype=torch.bool)
    for step, unit in _units(network):
        numbers = groups[step.inputs[0]]
        is_read[numbers] = True
        if unit.conv.groups == 1:
            weight = unit.conv.weight / unit.conv.weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-9)
            highest.scatter_reduce_(0, numbers, weight.abs().amax((0, 2, 3)), "amax")
    for numbers, layer in _readers(network, groups):
        is_read[numbers] = True
        highest.scatter_reduce_(0, numbers, layer.weight.abs().amax((0, 2, 3)) / layer.weight.abs().max(), "amax")
    return highest, is_read


def _apply(network: ForeignDetector, groups: dict[str, Tensor], factor: Tensor) -> None:
    for step, unit in _units(network):
        read, made = factor[groups[step.inputs[0]]], factor[groups[step.output]]
        conv, bn = unit.conv, unit.bn
        assert isinstance(bn, nn.BatchNorm2d)
        if conv.groups == 1:
            conv.weight *= read[None, :, None, None]
        else:
            # one kernel per channel: input and output channels go together
            conv.weight *= read.repeat_interleave(conv.out_channels // conv.groups)[:, None, None, None]
        bn.weight /= made
        bn.bias /= made
    for numbers, layer in _readers(network, groups):
        layer.weight *= factor[numbers][None, :, None, None]


def _units(network: ForeignDetector) -> list[tuple[Step, ConvStep]]:
    found = []
    for step in network.form.plan.steps:
        unit = network.trunk.get_submodule(step.name)
        if isinstance(unit, ConvStep):
            found.append((step, unit))
    return found


def _readers(network: ForeignDetector, groups: dict[str, Tensor]) -> list[tuple[Tensor, nn.Conv2d]]:
    """The heads' layers with the groups that they read."""
    found = []
    outputs = network.form.plan.outputs
    for place, head in enumerate(network.heads):
        assert isinstance(head, KeptHead)
        found += [(groups[outputs[2 * place]], head.classes), (groups[outputs[2 * place + 1]], head.box)]
    return found
