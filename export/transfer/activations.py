"""What makes a network that was read fit to learn: real batch norms, and other activations.

Shape letters: B batch, C channels, h w pixels of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from export.models.blocks import Conv, RepConv
from export.models.foreign import Form
from export.models.foreign_detector import ForeignDetector
from export.models.plan import Step
from export.models.plan_layers import activation


def with_activation(network: ForeignDetector, kind: str) -> Form:
    """Exchange every SiLU, hard-swish and leaky ReLU of the trunk for another activation, in place; the new form."""
    plan = network.form.plan
    steps = tuple(_exchanged(step, kind) for step in plan.steps)
    for step, new in zip(plan.steps, steps, strict=True):
        if new is step:
            continue
        if step.op == "conv":
            network.trunk.get_submodule(step.name).act = activation(kind)
        else:
            stage, _, name = step.name.partition(".")
            setattr(network.trunk.get_submodule(stage), name, activation(kind))
    network.form = replace(network.form, plan=replace(plan, steps=steps))
    network.trunk.plan = network.form.plan
    return network.form


def _exchanged(step: Step, kind: str) -> Step:
    """The step with this activation; itself where it has none that can be exchanged."""
    key = {"conv": "act", "act": "kind"}.get(step.op)
    if key is None or step.settings[key] in ("none", "sigmoid", "hardsigmoid", kind):
        return step
    return replace(step, settings=step.settings | {key: kind})


@torch.no_grad()
def give_statistics(network: nn.Module, batches: Sequence[Tensor]) -> None:
    """Turn identity batch norms into real ones that compute the same: means and variances are those of these pictures.

    Args:
        network: in evaluation mode; each of its units is changed.
        batches: (B, 3, h, w) as the network takes them.
    """
    sums: dict[Conv | RepConv, list[Tensor]] = {}

    def observe(unit: nn.Module, x: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(unit, Conv | RepConv)
        raw = unit.conv(getattr(unit, "pad", nn.Identity())(x[0])).double()
        moments = [raw.mean((0, 2, 3)), raw.pow(2).mean((0, 2, 3))]
        sums[unit] = [old + new for old, new in zip(sums.get(unit, [0, 0]), moments, strict=True)]

    # a unit with branches whose norms were folded away has the one kernel's results before both of its norms
    units = [module for module in network.modules() if isinstance(module, Conv) or is_folded(module)]
    handles = [unit.register_forward_hook(observe) for unit in units]
    for batch in batches:
        network(batch)
    for handle in handles:
        handle.remove()
    for unit, (mean, square) in sums.items():
        for bn in (unit.bn, unit.branch_bn) if isinstance(unit, RepConv) else (unit.bn,):
            assert isinstance(bn, nn.BatchNorm2d)
            _move_statistics(bn, mean / len(batches), square / len(batches))


def is_folded(unit: nn.Module) -> bool:
    """Whether a unit with branches computes what its 3x3 kernel does, and nothing else."""
    if not isinstance(unit, RepConv) or unit.point is None or not isinstance(unit.branch_bn, nn.BatchNorm2d):
        return False
    own = torch.eye(*unit.point.weight.shape[:2]) if unit.has_identity else torch.zeros(1)
    return not bool((unit.point.weight[:, :, 0, 0] + own).any())


def _move_statistics(bn: nn.BatchNorm2d, mean: Tensor, square: Tensor) -> None:
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    offset = bn.bias.double() - bn.running_mean.double() * scale
    var = (square - mean.pow(2)).clamp(min=0)
    bn.running_mean.copy_(mean)
    bn.running_var.copy_(var)
    bn.weight.copy_(scale * torch.sqrt(var + bn.eps))
    bn.bias.copy_(offset + mean * scale)
