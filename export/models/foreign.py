"""What networks that were read from ONNX files have in common: their form, and how pictures come in.

Shape letters: B batch, h w pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from export.models.blocks import GREY_LEVELS, Conv
from export.models.plan import Plan, plan_from_values
from export.models.plan_network import PlanNetwork


@dataclass(frozen=True, slots=True)
class Form:
    """What a foreign network is made of.

    Attributes:
        task: what its head is for.
        plan: the trunk. Outputs of a detector's are, per level, one map for a fresh head, or class and box tower of a
            kept one; of a classifier's the features.
        keeps_head: whether the file's own last layers go on.
        mean, std, is_rgb: the normalisation that the file was trained with, in 0..255.
        source: which file that was, from where and under which licence.
    """

    task: Literal["detect", "classify"]
    plan: Plan
    keeps_head: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_rgb: bool
    source: str = ""

    def to_values(self) -> dict[str, Any]:
        """Plain values, as a checkpoint stores them."""
        return asdict(self)


def form_from_values(values: Mapping[str, Any]) -> Form:
    """The form that ``to_values`` took apart."""
    plan = plan_from_values(values["plan"])
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Form(**{**plain, "plan": plan})


class Normalise(nn.Module):
    """(B, 3, h, w) BGR in [0, 1] to what the file's first layer was trained on."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.is_rgb = form.is_rgb
        self.scale = GREY_LEVELS
        self.register_buffer("mean", torch.tensor(form.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(form.std).reshape(1, 3, 1, 1), persistent=False)
        self.is_folded = False

    def forward(self, x: Tensor) -> Tensor:
        if self.is_folded:
            return x
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        x = x.flip(1) if self.is_rgb else x
        return (x * self.scale - self.mean) / self.std

    def fold(self, trunk: PlanNetwork) -> None:
        """Read bytes from now on: scale and channel order go into the first kernels where that is exact.

        A mean other than 0 stays in the graph: zero padding behind it means the mean colour, and no kernel can say so.
        """
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        self.scale = 1.0
        first = [trunk.get_submodule(step.name) for step in trunk.plan.readers(trunk.plan.input)]
        if self.mean.abs().max() > 0 or not all(isinstance(unit, Conv) for unit in first):
            return
        for unit in first:
            weight = unit.conv.weight.data
            weight /= self.std.to(weight.device)
            if self.is_rgb:
                weight.copy_(weight.flip(1))
        self.is_folded = True
