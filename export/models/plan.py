"""A network as a list of steps: what is left of an ONNX graph once its weights are taken out. Plain values only.

A checkpoint stores the plan next to the weights, so the ONNX file is not needed again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edge.errors import ModelError


@dataclass(frozen=True, slots=True)
class Step:
    """One operation.

    Attributes:
        op: one of ``export.models.plan_layers``.
        name: of its module, ``s8.conv3``; where it stands tells the stage.
        inputs: names of the tensors it reads.
        output: name of the tensor it makes, as in the ONNX file.
        settings: numbers and words that its module is made from.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """A network without weights.

    Attributes:
        input: name of the tensor that holds the picture.
        outputs: names of the results.
        steps: in an order in which they can run.
        shapes: tensor → its shape for one picture of the file's own size.
    """

    input: str
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    shapes: dict[str, tuple[int, ...]]

    def cut(self, outputs: Sequence[str]) -> Plan:
        """The part that these tensors need.

        Raises:
            ModelError: a tensor is not made here.
        """
        made = {step.output for step in self.steps}
        if missing := [name for name in outputs if name not in made]:
            raise ModelError(f"the graph has no tensor {missing[0]!r}")
        wanted, kept = set(outputs), []
        for step in reversed(self.steps):
            if step.output in wanted:
                kept.append(step)
                wanted.update(step.inputs)
        return replace(self, outputs=tuple(outputs), steps=tuple(reversed(kept)))

    def channels_first(self) -> Plan:
        """The plan behind a cast from bytes and a transpose from channels last, where it begins with them."""
        plan = self
        while len(found := plan.readers(plan.input)) == 1 and found[0].op in ("float", "transpose"):
            steps = tuple(step for step in plan.steps if step is not found[0])
            plan = replace(plan, input=found[0].output, steps=steps)
        return plan

    def readers(self, tensor: str) -> list[Step]:
        """The steps that read a tensor."""
        return [step for step in self.steps if tensor in step.inputs]

    def ancestors(self, tensor: str) -> set[str]:
        """All tensors that a tensor depends on, itself included."""
        found = {tensor}
        for step in reversed(self.steps):
            if step.output in found:
                found.update(step.inputs)
        return found

    def stride(self, tensor: str) -> int:
        """How many picture pixels one cell of a map is wide and high; 0 for what is no map."""
        shape, whole = self.shapes.get(tensor, ()), self._picture()
        if len(shape) != 4 or not shape[2] or not shape[3]:
            return 0
        return whole[0] // shape[2] if whole[0] // shape[2] == whole[1] // shape[3] else 0

    def _picture(self) -> tuple[int, int]:
        shape = self.shapes[self.input]
        return (shape[2], shape[3]) if shape[1] == 3 else (shape[1], shape[2])

    def to_values(self) -> dict[str, Any]:
        """Plain values, as a checkpoint stores them."""
        return asdict(self)


def plan_from_values(values: dict[str, Any]) -> Plan:
    """The plan that ``to_values`` took apart."""
    steps = tuple(_step(value) for value in values["steps"])
    shapes = {name: tuple(shape) for name, shape in values["shapes"].items()}
    return Plan(values["input"], tuple(values["outputs"]), steps, shapes)


def _step(value: dict[str, Any]) -> Step:
    return Step(value["op"], value["name"], tuple(value["inputs"]), value["output"], dict(value["settings"]))


def named_by_stage(plan: Plan) -> tuple[Step, ...]:
    """The plan's steps, each called by the stage it stands in: ``s2`` to ``s32`` on the way down, ``neck`` after it."""
    coarsest, is_neck, named = 0, False, []
    counts: Counter[tuple[str, str]] = Counter()
    for step in plan.steps:
        stride = plan.stride(step.output)
        is_neck = is_neck or 0 < stride < coarsest or step.op == "resize"
        coarsest = max(coarsest, stride)
        stage = "neck" if is_neck else f"s{coarsest or 1}"
        counts[stage, step.op] += 1
        named.append(replace(step, name=f"{stage}.{step.op}{counts[stage, step.op]}"))
    return tuple(named)
