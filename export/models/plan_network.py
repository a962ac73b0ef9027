"""A plan with its modules: the network that was in the file, as torch sees it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edge.errors import ModelError
from export.models.plan import Plan
from export.models.plan_layers import layer


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
