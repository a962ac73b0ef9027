"""What a graph itself does to the numbers of its picture before its first layer, and so which numbers it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from edge.types import Float64

# what a step makes of gain and offset
STEPS: dict[str, Callable[[Float64, Float64, Float64], tuple[Float64, Float64]]] = {
    "Add": lambda gain, offset, by: (gain, offset + by),
    "Sub": lambda gain, offset, by: (gain, offset - by),
    "Mul": lambda gain, offset, by: (gain * by, offset * by),
    "Div": lambda gain, offset, by: (gain / by, offset / by),
}
# no network was trained on larger numbers, or on pictures that hardly differ: next to each other, or to what was added
MOST_STEPS = 60
MOST, LEAST_RANGE, LEAST_SHARE = 300.0, 0.9, 0.3


@dataclass(frozen=True, slots=True)
class Scaling:
    """Per channel: times ``gain``, plus ``offset``."""

    gain: tuple[float, ...]
    offset: tuple[float, ...]

    @property
    def takes(self) -> float | None:
        """The largest number of the pictures that the graph takes, 1 or 255; None where both may be."""
        fitting = [white for white in (1.0, 255.0) if self._is_usual(white)]
        return fitting[0] if len(fitting) == 1 else None

    def _is_usual(self, white: float) -> bool:
        """Whether pictures from 0 to ``white`` become what networks are trained on."""
        width, offset = np.array(self.gain) * white, np.array(self.offset)
        least = np.maximum(LEAST_RANGE, LEAST_SHARE * np.abs(offset))
        return bool((np.abs(width) >= least).all() and (np.abs([offset, width + offset]) <= MOST).all())


def scaling_of(name: str, readers: Mapping[str, Sequence[Any]], constants: Mapping[str, Any]) -> Scaling | None:
    """What is done to an input first: steps by constants, one after the other; None where there are none.

    Args:
        name: of the input.
        readers: tensor's name → the nodes that read it.
        constants: tensor's name → the ``TensorProto`` that it is.
    """
    gain, offset, num_steps = np.ones(3), np.zeros(3), 0
    # a damaged file may go in a circle
    for _ in range(MOST_STEPS):
        nodes = readers.get(name, ())
        if len(nodes) != 1 or not nodes[0].output:
            break
        node = nodes[0]
        if node.op_type not in ("Cast", "Identity", "Transpose"):
            by = _step_by(node, name, constants)
            if by is None:
                break
            gain, offset = STEPS[node.op_type](gain, offset, by)
            num_steps += 1
        name = node.output[0]
    return Scaling(tuple(gain.tolist()), tuple(offset.tolist())) if num_steps else None


def _step_by(node: Any, name: str, constants: Mapping[str, Any]) -> Float64 | None:
    """What a step adds, takes off, multiplies or divides by; None of a node that does nothing of it by a constant."""
    if node.op_type not in STEPS or (node.op_type in ("Sub", "Div") and node.input[0] != name):
        return None
    others = [other for other in node.input if other != name]
    by = _numbers(constants.get(others[0])) if len(others) == 1 else None
    is_possible = by is not None and np.isfinite(by).all() and (node.op_type != "Div" or by.all())
    return by if is_possible else None


def _numbers(tensor: Any) -> Float64 | None:
    """One number, or one of each channel; None of anything else."""
    import onnx

    if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL or prod(tensor.dims) not in (1, 3):
        return None
    return np.asarray(onnx.numpy_helper.to_array(tensor), np.float64).ravel()
