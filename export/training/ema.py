"""The moving average of the weights: steadier than the weights themselves, and what is judged and exported."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn


class Average:
    """Follows a network. Early it follows closely, later slowly: ``decay * (1 - exp(-step / ema_steps))``."""

    def __init__(self, model: nn.Module, decay: float, ramp_steps: int) -> None:
        self.model = copy.deepcopy(model).eval()
        for value in self.model.parameters():
            value.requires_grad_(False)
        self._decay = decay
        self._ramp_steps = ramp_steps

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step number ``step`` (from 1)."""
        with torch.no_grad():
            self._update(model, step)

    def _update(self, model: nn.Module, step: int) -> None:
        decay = self._decay * (1 - math.exp(-step / self._ramp_steps))
        mine = self.model.state_dict()
        theirs = model.state_dict()
        floats = [name for name, value in mine.items() if value.dtype.is_floating_point]
        torch._foreach_lerp_([mine[name] for name in floats], [theirs[name] for name in floats], 1 - decay)
        for name in mine.keys() - floats:
            mine[name].copy_(theirs[name])
