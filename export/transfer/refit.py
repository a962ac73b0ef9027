"""Another activation without a training step: layer by layer, kernels are fitted again to what they used to compute.

A network whose SiLU is replaced by ReLU at one stroke is useless, because every layer reads numbers that it was not
made for. So each layer, from the first to the last, is given the kernel that comes nearest to its old results from its
new inputs: least squares, as in Zhang et al. 2015 ("Accelerating very deep convolutional networks") and the channel
pruning of He et al. 2017. What ReLU would cut away is first moved above zero, channel by channel.

Shape letters: P pictures, C D channels in and out, S samples, F features (a patch), h w pixels of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.models.blocks import Conv, folded
from export.models.foreign_detector import ForeignDetector, KeptHead
from export.models.plan_layers import ConvStep

SAMPLES_PER_PICTURE = 500
# pull towards the old kernel, as a share of the mean square of the features
RIDGE = 1e-3
# of a fit in front of a ReLU
ROUNDS = 16
SHIFTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
Progress = Callable[[], None]


@torch.no_grad()
def refit(original: ForeignDetector, pupil: ForeignDetector, pictures: Sequence[Tensor], seed: int = 0) -> None:
    """Fit the pupil's kernels so that its layers compute what the original's do, in place.

    Args:
        original: with its kept head, in evaluation mode.
        pupil: the same network with other activations (``with_activation``).
        pictures: (1, 3, h, w) in [0, 1], some dozens of different ones.
        seed: of the samples' places.
    """
    generator = torch.Generator().manual_seed(seed)
    plan = original.form.plan
    old = [{plan.input: original.normalise(picture)} for picture in pictures]
    new = [dict(values) for values in old]
    last_use = {name: number for number, step in enumerate(plan.steps) for name in step.inputs}
    for number, step in enumerate(plan.steps):
        was, now = original.trunk.get_submodule(step.name), pupil.trunk.get_submodule(step.name)
        if isinstance(was, ConvStep) and isinstance(now, ConvStep):
            _refit_unit(was, now, old, new, step.inputs[0], step.output, generator)
        else:
            for values, module in ((old, was), (new, now)):
                for value in values:
                    value[step.output] = module(*(value[name] for name in step.inputs))
        for name in step.inputs:
            if last_use[name] == number and name not in plan.outputs:
                for value in (*old, *new):
                    value.pop(name, None)
    for place, (was, now) in enumerate(zip(original.heads, pupil.heads, strict=True)):
        assert isinstance(was, KeptHead)
        assert isinstance(now, KeptHead)
        names = plan.outputs[2 * place : 2 * place + 2]
        _refit_last(was.classes, now.classes, old, new, names[0], generator)
        _refit_last(was.box, now.box, old, new, names[1], generator)


def _refit_unit(
    was: ConvStep,
    now: ConvStep,
    old: list[dict[str, Tensor]],
    new: list[dict[str, Tensor]],
    source: str,
    output: str,
    generator: torch.Generator,
) -> None:
    """Give a unit the kernel that gets nearest to the old pre-activations, moved by a shift per channel."""
    raw = [was.bn(was.conv(was.pad(value[source]))) for value in old]
    samples = _sampled(raw, generator)
    wanted = torch.cat([value.flatten(2)[0][:, places].T for value, places in zip(raw, samples, strict=True)])
    shift = best_shifts(wanted, was.act, now.act)
    kernel, offset = folded(was.conv.weight, was.bn)
    if all(torch.equal(before[source], after[source]) for before, after in zip(old, new, strict=True)):
        set_kernel(now, kernel, offset + shift)
    else:
        set_kernel(now, *_fitted(now, kernel, new, source, samples, wanted + shift))
    for before, after, value in zip(old, new, raw, strict=True):
        before[output] = was.act(value)
        after[output] = now(after[source])


def best_shifts(wanted: Tensor, was: nn.Module, now: nn.Module) -> Tensor:
    """(D,) what to add to each channel of (S, D) pre-activations, so that the new activation tells most of the old one.

    The shift whose result correlates best with the old result; what follows is fitted to it, so scale and offset are
    free.
    """
    target = was(wanted)
    target = target - target.mean(0)
    best = torch.full_like(target[0], -1.0)
    shifts = torch.zeros_like(best)
    for shift in SHIFTS:
        found = now(wanted + shift)
        found = found - found.mean(0)
        power = found.pow(2).sum(0) * target.pow(2).sum(0)
        match = (found * target).sum(0).pow(2) / power.clamp(min=1e-12)
        is_better = match > best + 0.002
        best = torch.where(is_better, match, best)
        shifts = torch.where(is_better, torch.full_like(shifts, shift), shifts)
    return shifts


def _sampled(raw: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Per picture, the places that are looked at."""
    size = raw[0][0, 0].numel()
    return [torch.randperm(size, generator=generator)[:SAMPLES_PER_PICTURE] for _ in raw]


def _fitted(
    unit: ConvStep,
    kernel: Tensor,
    new: list[dict[str, Tensor]],
    source: str,
    samples: list[Tensor],
    wanted: Tensor,
) -> tuple[Tensor, Tensor]:
    """Kernel (D, C / groups, k, k) and offset (D,) by least squares, starting from ``kernel``."""
    conv = unit.conv
    patches = torch.cat(
        [
            F.unfold(unit.pad(value[source]), conv.kernel_size, conv.dilation, conv.padding, conv.stride)[0][
                :, places
            ].T
            for value, places in zip(new, samples, strict=True)
        ]
    )
    groups = conv.groups
    parts = zip(patches.chunk(groups, 1), wanted.chunk(groups, 1), kernel.flatten(1).chunk(groups, 0), strict=True)
    rounds = ROUNDS if isinstance(unit.act, nn.ReLU | nn.ReLU6) else 1
    found = [least_squares(x, y, before, rounds=rounds) for x, y, before in parts]
    return torch.cat([weight for weight, _ in found]).reshape(kernel.shape), torch.cat([offset for _, offset in found])


def least_squares(
    x: Tensor, y: Tensor, before: Tensor, weight: Tensor | None = None, rounds: int = 1
) -> tuple[Tensor, Tensor]:
    """Weight (D, F) and offset (D,) with ``x @ weight.T + offset`` near ``y``, pulled towards ``before`` (D, F).

    Args:
        x: (S, F). y: (S, D).
        weight: (S,) how much each sample counts; None for equally.
        rounds: more than one where a ReLU follows: where ``y`` is below zero, whatever is below zero is right, so each
            further round asks for no more than that.
    """
    share = torch.ones(len(x), dtype=torch.float64) if weight is None else weight.double()
    share = (share / share.sum())[:, None]
    x, y, before = x.double(), y.double(), before.double()
    x_mean = (x * share).sum(0)
    x = x - x_mean
    gram = x.T @ (x * share)
    pull = RIDGE * gram.diagonal().mean().clamp(min=1e-8) * torch.eye(len(gram), dtype=torch.float64)
    factor = torch.linalg.cholesky(gram + pull + 1e-12 * torch.eye(len(gram), dtype=torch.float64))
    # the long sums of the rounds in single precision, twice as fast; what is solved stays double
    features, shared = x.float(), (x * share).float()
    target = y.float()
    for number in range(rounds):
        mean = (target * share).sum(0)
        right = (shared.T @ (target - mean.float())).double()
        found = torch.cholesky_solve(right + pull @ before.T, factor)
        if number + 1 < rounds:
            target = torch.where(y > 0, y, (features @ found.float() + mean).clamp(max=0)).float()
    return found.T.float(), (mean - x_mean @ found).float()


def set_kernel(unit: Conv, kernel: Tensor, offset: Tensor) -> None:
    """Give a unit this kernel and offset; its batch norm becomes an identity that adds the offset."""
    bn = unit.bn
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    unit.conv.weight.copy_(kernel)
    bn.running_mean.zero_()
    bn.running_var.fill_(1.0)
    bn.weight.fill_((1 + bn.eps) ** 0.5)
    bn.bias.copy_(offset)


def _refit_last(
    was: nn.Conv2d,
    now: nn.Conv2d,
    old: list[dict[str, Tensor]],
    new: list[dict[str, Tensor]],
    name: str,
    generator: torch.Generator,
) -> None:
    """The last layers: their results themselves, places with an object counting most."""
    wanted = torch.cat([was(value[name]).flatten(2)[0].T for value in old])
    found = torch.cat([value[name].flatten(2)[0].T for value in new])
    weight = 0.02 + wanted.sigmoid().amax(1) if wanted.shape[1] != 5 else 0.02 + wanted[:, 4].sigmoid()
    kernel, offset = least_squares(found, wanted, now.weight.flatten(1), weight)
    now.weight.copy_(kernel.reshape(now.weight.shape))
    assert now.bias is not None
    now.bias.copy_(offset)
