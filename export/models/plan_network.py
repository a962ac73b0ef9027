"""A plan with its modules: the network that was in the file, as torch sees it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edge.errors import ModelError
from export.models.plan import Plan
from export.models.plan_layers import ConvStep, layer


class PlanNetwork(nn.Module):
    """Runs a plan. Modules are named as the plan says: ``s8.conv3``.

    Raises:
        ModelError: the plan needs a step that cannot be read; the message names it.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        for step in plan.steps:
            if step.op == "unreadable":
                raise ModelError(
                    f"{step.settings['what']}: this operator cannot be read into torch; cut the network before it "
                    "(transfer.maps) or export it without"
                )
            stage, _, name = step.name.partition(".")
            if not hasattr(self, stage):
                self.add_module(stage, nn.Module())
            getattr(self, stage).add_module(name, layer(step.op, step.settings))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The plan's outputs for its input."""
        return self.run(x, self.plan.outputs)

    def pair_pixels(self) -> bool:
        """Let the first kernel read 2x2 pixels as channels from now on, if its size and stride are even; whether so.

        Channels are row of the pair, column of the pair, colour.
        """
        first = self.plan.readers(self.plan.input)
        unit = self.get_submodule(first[0].name)
        if len(first) != 1 or not isinstance(unit, ConvStep) or not isinstance(unit.pad, nn.Identity):
            return False
        old = unit.conv
        sizes = (*old.kernel_size, *old.stride, *(int(size) for size in old.padding))
        if any(size % 2 for size in sizes) or old.groups != 1:
            return False
        kernel, stride, padding = (tuple(size // 2 for size in sizes[at : at + 2]) for at in (0, 2, 4))
        new = nn.Conv2d(4 * old.in_channels, old.out_channels, kernel, stride, padding)
        parts = old.weight.data.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        # outputs, colours, rows, row of the pair, columns, column of the pair
        new.weight.data = parts.permute(0, 3, 5, 1, 2, 4).flatten(1, 3).contiguous()
        assert new.bias is not None
        assert old.bias is not None
        new.bias.data = old.bias.data
        unit.conv = new
        return True

    def run(self, x: Tensor, wanted: Sequence[str]) -> tuple[Tensor, ...]:
        """These tensors of the plan."""
        values = {self.plan.input: x}
        for step in self.plan.steps:
            module = self.get_submodule(step.name)
            values[step.output] = module(*(values[name] for name in step.inputs))
        return tuple(values[name] for name in wanted)


def fill(network: PlanNetwork, weights: dict[str, Tensor]) -> None:
    """Load the weights of these steps; others may be among them."""
    own = network.state_dict()
    network.load_state_dict({name: weights.get(name, value) for name, value in own.items()})
