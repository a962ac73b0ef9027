"""From an ONNX graph to a plan and its weights: convolutions, batch norms, activations, pools, joins and arithmetic.

Convolution, batch norm and activation become one unit; a batch norm that was folded away comes back as an identity;
the space-to-depth slices of YOLOX ("focus") become part of the first kernel. What cannot be read is kept as a step
that says so, and only matters where it is needed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from edge.errors import DataError
from edge.files import sha256_of
from edge.models.manifest import Manifest
from edge.types import Array
from export.evaluate.names import match_classes
from export.models.blocks import BN_EPS
from export.models.plan import Plan, Step, named_by_stage
from export.models.plan_network import PlanNetwork, fill
from export.transfer.onnx_file import OnnxFile, attributes, open_onnx_file

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul", "ConvTranspose"})
LEAKY_DEFAULT = 0.01
_PLAIN = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hardswish", "Softplus": "softplus"}
_BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow"}
_UNARY = {"Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Identity": "same", "Dropout": "same"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network read from a file. Attributes: its plan; ``weights`` by the names that the plan's modules give them."""

    plan: Plan
    weights: dict[str, Tensor]

    def network(self) -> PlanNetwork:
        """The whole network with its weights, in evaluation mode.

        Raises:
            ModelError: a step of it cannot be read.
        """
        made = PlanNetwork(self.plan)
        fill(made, self.weights)
        made.eval()
        return made


def read_onnx(path: Path) -> Loaded:
    """Read an ONNX file.

    Raises:
        ModelError: no ONNX file, a quantized one, or one that does not run here.
    """
    return _Reader(open_onnx_file(path)).read()


def source_of(path: Path, manifest: Manifest) -> str:
    """What a manifest says of the file that a network started from."""
    about = manifest.provenance
    parts = (about.source, f"trained on {about.dataset}" if about.dataset else "", about.terms)
    return ", ".join((f"{path.name} (sha256 {sha256_of(path)})", *(part for part in parts if part)))


def partners(known: Sequence[str], wanted: Sequence[str]) -> dict[int, int]:
    """Wanted class → known class of the same name; empty if they have none in common."""
    try:
        match = match_classes(known, wanted)
    except DataError:
        return {}
    return {int(new): old for old, new in enumerate(match.to_data) if new >= 0}


class _Reader:
    """Translates the nodes of one file."""

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        self.maker = {output: node for node in file.nodes for output in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in file.nodes:
            for name in node.input:
                self.readers[name].append(node)
        self.done: set[str] = set()
        self.steps: list[Step] = []
        self.weights: list[dict[str, Array]] = []

    def read(self) -> Loaded:
        for node in self.file.nodes:
            if node.output[0] in self.file.constant or node.output[0] in self.done:
                continue
            self._translate(node)
        shapes = {name: value.shape for name, value in self.file.values.items() if name not in self.file.constant}
        plan = Plan(self.file.input, self.file.outputs, tuple(self.steps), shapes)
        weights = {step.output: found for step, found in zip(self.steps, self.weights, strict=True)}
        plan = plan.cut(self.file.outputs)
        plan = replace(plan, steps=named_by_stage(plan))
        tensors = {
            f"{step.name}.{key}": torch.from_numpy(np.array(value))
            for step in plan.steps
            for key, value in weights[step.output].items()
        }
        used = {name for step in plan.steps for name in (*step.inputs, step.output)}
        return Loaded(replace(plan, shapes={name: shapes[name] for name in shapes if name in used}), tensors)

    def _translate(self, node: onnx.NodeProto) -> None:
        translate = _TRANSLATIONS.get(node.op_type)
        if node.op_type in _BINARY:
            self._arithmetic(node)
        elif node.op_type in _UNARY:
            self.add(_UNARY[node.op_type], [node.input[0]], node.output[0])
        elif node.op_type in _PLAIN:
            self._plain_activation(node)
        elif translate is not None:
            translate(self, node)
        else:
            self.refuse(node)

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        output: str,
        settings: dict[str, Any] | None = None,
        weights: dict[str, Array] | None = None,
    ) -> None:
        """Note one step; constants among its inputs become steps of their own."""
        for name in inputs:
            if name in self.file.constant and name not in self.done:
                value = self.file.values[name]
                self.done.add(name)
                self.steps.append(Step("constant", "", (), name, {"shape": list(value.shape)}))
                self.weights.append({"value": value.astype(np.float32)})
        self.steps.append(Step(op, "", tuple(inputs), output, settings or {}))
        self.weights.append(weights or {})
        self.done.add(output)

    def refuse(self, node: onnx.NodeProto) -> None:
        """Keep a node as what it is: something that cannot be read."""
        for output in node.output:
            data = [name for name in node.input if name and name not in self.file.constant]
            self.add("unreadable", data, output, {"what": f"{node.op_type} {node.name or output}"})

    def value(self, node: onnx.NodeProto, index: int) -> Array | None:
        """The constant at this input; None where there is none."""
        if index >= len(node.input) or node.input[index] not in self.file.constant:
            return None
        return self.file.values[node.input[index]]

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.file.values[tensor].shape

    def only_reader(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor, None if there are others or it is a result."""
        found = self.readers[tensor]
        return found[0] if len(found) == 1 and tensor not in self.file.outputs else None

    def pads(self, node: onnx.NodeProto, found: dict[str, Any], kernel: Sequence[int]) -> list[int]:
        """Top, left, bottom, right."""
        mode = found.get("auto_pad", "NOTSET")
        if mode in ("NOTSET", "VALID"):
            return list(found.get("pads", (0, 0, 0, 0))) if mode == "NOTSET" else [0, 0, 0, 0]
        strides, dilations = found.get("strides", (1, 1)), found.get("dilations", (1, 1))
        low, high = [], []
        for axis in range(2):
            size, result = self.shape(node.input[0])[2 + axis], self.shape(node.output[0])[2 + axis]
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            total = max(0, (result - 1) * strides[axis] + reach - size)
            small = total // 2
            low.append(small if mode == "SAME_UPPER" else total - small)
            high.append(total - low[-1])
        return [*low, *high]

    def ending(self, tensor: str) -> tuple[str, str]:
        """The activation that follows a tensor as its only use, and the tensor behind it; ``none`` without one."""
        readers = self.readers[tensor]
        if tensor in self.file.outputs or not 0 < len(readers) <= 2:
            return "none", tensor
        gate = next((node for node in readers if node.op_type in ("Sigmoid", "HardSigmoid")), None)
        product = next((node for node in readers if node.op_type == "Mul"), None)
        if len(readers) == 2:
            if gate is None or product is None or gate.output[0] not in product.input:
                return "none", tensor
            if self.only_reader(gate.output[0]) is None:
                return "none", tensor
            return self._gated(gate), self._take(gate, product)
        kind = _kind_of(readers[0], self)
        return (kind, self._take(readers[0])) if kind else ("none", tensor)

    def _gated(self, gate: onnx.NodeProto) -> str:
        return "silu" if gate.op_type == "Sigmoid" else "hardswish"

    def _take(self, *nodes: onnx.NodeProto) -> str:
        for node in nodes:
            self.done.update(node.output)
        return str(nodes[-1].output[0])

    def leads_to_weights(self, tensor: str) -> bool:
        """Whether some layer with weights comes behind a tensor."""
        seen, waiting = set(), [tensor]
        while waiting:
            for node in self.readers[waiting.pop()]:
                if node.op_type in WEIGHTED and any(name in self.file.constant for name in node.input):
                    return True
                waiting += [name for name in node.output if name not in seen]
                seen.update(node.output)
        return False

    def _arithmetic(self, node: onnx.NodeProto) -> None:
        self.add(_BINARY[node.op_type], node.input, node.output[0])

    def _plain_activation(self, node: onnx.NodeProto) -> None:
        # x * sigmoid(x) behind something that is no convolution
        product = self.only_reader(node.output[0])
        is_gate = node.op_type == "Sigmoid" and product is not None and product.op_type == "Mul"
        if is_gate and product is not None and sorted(product.input) == sorted((node.input[0], node.output[0])):
            self.add("act", [node.input[0]], self._take(node, product), {"kind": "silu"})
        else:
            self.add("act", [node.input[0]], node.output[0], {"kind": _PLAIN[node.op_type]})


def _kind_of(node: onnx.NodeProto, reader: _Reader) -> str | None:
    """The activation that a node is, None if it is none that a unit can hold."""
    if node.op_type in ("Relu", "HardSwish"):
        return _PLAIN[node.op_type]
    if node.op_type == "LeakyRelu":
        return f"leaky:{attributes(node).get('alpha', LEAKY_DEFAULT):.8g}"
    if node.op_type == "Clip" and _limits(node, reader) == (0.0, 6.0):
        return "relu6"
    return None


def _limits(node: onnx.NodeProto, reader: _Reader) -> tuple[float | None, float | None]:
    found = attributes(node)
    low, high = reader.value(node, 1), reader.value(node, 2)
    return (
        float(low) if low is not None else found.get("min"),
        float(high) if high is not None else found.get("max"),
    )


def _conv(reader: _Reader, node: onnx.NodeProto) -> None:
    weight, bias = reader.value(node, 1), reader.value(node, 2)
    if weight is None or weight.ndim != 4:
        reader.refuse(node)
        return
    found = attributes(node)
    outputs = weight.shape[0]
    offset = np.zeros(outputs, np.float32) if bias is None else bias.astype(np.float32)
    settings = {
        "inputs": weight.shape[1] * found.get("group", 1),
        "outputs": outputs,
        "kernel": list(weight.shape[2:]),
        "stride": list(found.get("strides", (1, 1))),
        "pads": reader.pads(node, found, weight.shape[2:]),
        "dilation": list(found.get("dilations", (1, 1))),
        "groups": found.get("group", 1),
    }
    source, weight, settings = _focused(reader, node.input[0], weight.astype(np.float32), settings)
    tensor, norm = node.output[0], reader.only_reader(node.output[0])
    has_norm = norm is not None and norm.op_type == "BatchNormalization"
    statistics = _identity_norm(offset)
    if has_norm:
        assert norm is not None
        statistics = _real_norm(reader, norm, offset)
        tensor = reader._take(norm)
    kind, end = reader.ending(tensor)
    if not has_norm and kind == "none" and not reader.leads_to_weights(tensor):
        reader.add("last", [source], tensor, settings, {"weight": weight, "bias": offset})
        return
    statistics = {f"bn.{key}": value for key, value in statistics.items()}
    reader.add("conv", [source], end, settings | {"act": kind}, {"conv.weight": weight, **statistics})


def _identity_norm(offset: Array) -> dict[str, Array]:
    """A batch norm that does nothing but add the convolution's bias."""
    ones = np.ones_like(offset)
    return {
        "weight": ones * np.float32(math.sqrt(1 + BN_EPS)),
        "bias": offset,
        "running_mean": np.zeros_like(offset),
        "running_var": ones,
    }


def _real_norm(reader: _Reader, norm: onnx.NodeProto, offset: Array) -> dict[str, Array]:
    """The file's batch norm, its weight moved so that our epsilon gives the same numbers."""
    scale, bias, mean, var = (np.asarray(reader.value(norm, index), np.float64) for index in range(1, 5))
    eps = attributes(norm).get("epsilon", 1e-5)
    values = {
        "weight": scale * np.sqrt(var + BN_EPS) / np.sqrt(var + eps),
        "bias": bias,
        "running_mean": mean - offset,
        "running_var": var,
    }
    return {key: value.astype(np.float32) for key, value in values.items()}


def _focused(
    reader: _Reader, tensor: str, weight: Array, settings: dict[str, Any]
) -> tuple[str, Array, dict[str, Any]]:
    """Fold the slices that bring s x s pixels into channels into the kernel; exact where the size divides by s."""
    join = reader.maker.get(tensor)
    if join is None or join.op_type != "Concat" or settings["groups"] != 1 or settings["dilation"] != [1, 1]:
        return tensor, weight, settings
    origins = [_phase(reader, name) for name in join.input]
    if any(origin is None for origin in origins):
        return tensor, weight, settings
    sources = {origin[0] for origin in origins if origin}
    factors = {origin[3] for origin in origins if origin}
    if len(sources) != 1 or len(factors) != 1:
        return tensor, weight, settings
    source, factor = sources.pop(), factors.pop()
    channels = reader.shape(source)[1]
    outputs, _, height, width = weight.shape
    wide = np.zeros((outputs, channels, height * factor, width * factor), np.float32)
    for number, origin in enumerate(origins):
        assert origin is not None
        part = weight[:, number * channels : (number + 1) * channels]
        wide[:, :, origin[1] :: factor, origin[2] :: factor] = part
    grown = {key: [size * factor for size in settings[key]] for key in ("stride", "pads")}
    return source, wide, settings | grown | {"inputs": channels, "kernel": [height * factor, width * factor]}


def _phase(reader: _Reader, tensor: str) -> tuple[str, int, int, int] | None:
    """Source, row, column and step of a map that takes every n-th pixel of another one; None if it is none."""
    starts, steps = {2: 0, 3: 0}, {2: 1, 3: 1}
    while (node := reader.maker.get(tensor)) is not None and node.op_type == "Slice":
        for axis, start, _, step in zip(*_slice_of(reader, node), strict=True):
            if axis not in starts or step < 1 or start < 0:
                return None
            starts[axis] += start * steps[axis]
            steps[axis] *= step
        tensor = node.input[0]
    if steps[2] == 1 or steps[2] != steps[3] or max(starts.values()) >= steps[2]:
        return None
    return tensor, starts[2], starts[3], steps[2]


def _slice_of(reader: _Reader, node: onnx.NodeProto) -> tuple[list[int], list[int], list[int], list[int]]:
    """Axes, starts, ends and steps."""
    found = attributes(node)
    if "starts" in found:
        starts, ends = list(found["starts"]), list(found["ends"])
        axes, steps = list(found.get("axes", range(len(starts)))), [1] * len(starts)
    else:
        parts = [reader.value(node, index) for index in range(1, 5)]
        starts, ends = (np.asarray(part).tolist() for part in parts[:2])
        axes = list(range(len(starts))) if parts[2] is None else parts[2].tolist()
        steps = [1] * len(starts) if parts[3] is None else parts[3].tolist()
    rank = len(reader.shape(node.input[0]))
    return [axis % rank for axis in axes], starts, ends, steps


def _slice(reader: _Reader, node: onnx.NodeProto) -> None:
    axes, starts, ends, steps = _slice_of(reader, node)
    if min(steps) < 1:
        reader.refuse(node)
        return
    settings = {"axes": axes, "starts": starts, "ends": ends, "steps": steps}
    reader.add("slice", [node.input[0]], node.output[0], settings)


def _split(reader: _Reader, node: onnx.NodeProto) -> None:
    axis = attributes(node).get("axis", 0) % len(reader.shape(node.input[0]))
    start = 0
    for output in node.output:
        end = start + reader.shape(output)[axis]
        settings = {"axes": [axis], "starts": [start], "ends": [end], "steps": [1]}
        reader.add("slice", [node.input[0]], output, settings)
        start = end


def _pool(reader: _Reader, node: onnx.NodeProto) -> None:
    found = attributes(node)
    kernel = list(found["kernel_shape"])
    pads = reader.pads(node, found, kernel)
    if len(kernel) != 2 or any(size != 1 for size in found.get("dilations", (1,))) or len(node.output) > 1:
        reader.refuse(node)
        return
    settings = {
        "kernel": kernel,
        "stride": list(found.get("strides", (1, 1))),
        "pads": pads,
        "ceil": bool(found.get("ceil_mode", 0)),
    }
    if node.op_type == "MaxPool":
        reader.add("maxpool", [node.input[0]], node.output[0], settings)
    elif pads[:2] != pads[2:]:
        reader.refuse(node)
    elif kernel == list(reader.shape(node.input[0])[2:]) and not any(pads):
        reader.add("globalpool", [node.input[0]], node.output[0])
    else:
        settings["counts_pad"] = bool(found.get("count_include_pad", 0))
        reader.add("avgpool", [node.input[0]], node.output[0], settings)


def _global_pool(reader: _Reader, node: onnx.NodeProto) -> None:
    reader.add("globalpool", [node.input[0]], node.output[0])


def _concat(reader: _Reader, node: onnx.NodeProto) -> None:
    reader.add("cat", node.input, node.output[0], {"axis": attributes(node)["axis"]})


def _resize(reader: _Reader, node: onnx.NodeProto) -> None:
    found = attributes(node)
    before, after = reader.shape(node.input[0]), reader.shape(node.output[0])
    if len(before) != 4 or before[:2] != after[:2] or found.get("mode", "nearest") not in ("nearest", "linear"):
        reader.refuse(node)
        return
    scale = [after[axis] / before[axis] for axis in (2, 3)]
    align = found.get("coordinate_transformation_mode", "half_pixel") == "align_corners"
    mode = "bilinear" if found.get("mode") == "linear" else "nearest"
    reader.add("resize", [node.input[0]], node.output[0], {"scale": scale, "mode": mode, "align": align})


def _reshape(reader: _Reader, node: onnx.NodeProto) -> None:
    before, after = reader.shape(node.input[0]), reader.shape(node.output[0])
    stated = reader.value(node, 1)
    if node.op_type == "Flatten":
        axis = attributes(node).get("axis", 1)
        stated = np.array([1, -1]) if axis == 1 else None
    if stated is None:
        reader.refuse(node)
        return
    reader.add("reshape", [node.input[0]], node.output[0], {"target": _target(before, after, stated.tolist())})


def _target(before: tuple[int, ...], after: tuple[int, ...], stated: list[int]) -> list[int | str]:
    """The new shape in the sizes of the old one, as far as they are the same: other pictures have other sizes."""
    target: list[int | str] = [int(size) if size == -1 else after[axis] for axis, size in enumerate(stated)]
    if after and before and after[0] == before[0] == 1:
        target[0] = "in0"
    for back in range(1, min(len(before), len(after)) if len(before) == 4 and len(after) > 3 else 1):
        if before[-back] != after[-back] or target[-back] == -1:
            break
        if len(before) - back >= 2:
            target[-back] = f"in{len(before) - back}"
    return target


def _transpose(reader: _Reader, node: onnx.NodeProto) -> None:
    rank = len(reader.shape(node.input[0]))
    order = list(attributes(node).get("perm", range(rank - 1, -1, -1)))
    reader.add("transpose", [node.input[0]], node.output[0], {"order": order})


def _gemm(reader: _Reader, node: onnx.NodeProto) -> None:
    found, weight = attributes(node), reader.value(node, 1)
    if weight is None or weight.ndim != 2 or len(reader.shape(node.input[0])) != 2 or found.get("transA"):
        reader.refuse(node)
        return
    weight = weight.astype(np.float32) * np.float32(found.get("alpha", 1.0))
    weight = weight if found.get("transB") else weight.T
    bias = reader.value(node, 2)
    offset = np.zeros(len(weight), np.float32)
    if bias is not None:
        offset = np.broadcast_to(bias.astype(np.float32) * np.float32(found.get("beta", 1.0)), offset.shape)
    settings = {"inputs": weight.shape[1], "outputs": weight.shape[0]}
    reader.add("linear", [node.input[0]], node.output[0], settings, {"weight": weight, "bias": offset})


def _norm(reader: _Reader, node: onnx.NodeProto) -> None:
    values = [reader.value(node, index) for index in range(1, 5)]
    if any(value is None for value in values):
        reader.refuse(node)
        return
    keys = ("weight", "bias", "running_mean", "running_var")
    weights = {key: np.asarray(value, np.float32) for key, value in zip(keys, values, strict=True)}
    settings = {"channels": len(weights["weight"]), "eps": attributes(node).get("epsilon", 1e-5)}
    reader.add("norm", [node.input[0]], node.output[0], settings, weights)


def _clip(reader: _Reader, node: onnx.NodeProto) -> None:
    low, high = _limits(node, reader)
    if (low, high) == (0.0, 6.0):
        reader.add("act", [node.input[0]], node.output[0], {"kind": "relu6"})
    else:
        reader.add("clip", [node.input[0]], node.output[0], {"low": low, "high": high})


def _leaky(reader: _Reader, node: onnx.NodeProto) -> None:
    kind = f"leaky:{attributes(node).get('alpha', LEAKY_DEFAULT):.8g}"
    reader.add("act", [node.input[0]], node.output[0], {"kind": kind})


def _hard_sigmoid(reader: _Reader, node: onnx.NodeProto) -> None:
    found = attributes(node)
    if abs(found.get("alpha", 0.2) - 1 / 6) > 1e-6 or found.get("beta", 0.5) != 0.5:
        reader.refuse(node)
        return
    reader.add("act", [node.input[0]], node.output[0], {"kind": "hardsigmoid"})


def _softmax(reader: _Reader, node: onnx.NodeProto) -> None:
    rank = len(reader.shape(node.input[0]))
    reader.add("softmax", [node.input[0]], node.output[0], {"axis": attributes(node).get("axis", -1) % rank})


def _axes(reader: _Reader, node: onnx.NodeProto) -> list[int]:
    stated = reader.value(node, 1)
    found = attributes(node).get("axes", []) if stated is None else stated.tolist()
    return [int(axis) for axis in found]


def _mean(reader: _Reader, node: onnx.NodeProto) -> None:
    axes = _axes(reader, node) or list(range(len(reader.shape(node.input[0]))))
    keep = bool(attributes(node).get("keepdims", 1))
    reader.add("mean", [node.input[0]], node.output[0], {"axes": axes, "keep": keep})


def _squeeze(reader: _Reader, node: onnx.NodeProto) -> None:
    shape = reader.shape(node.input[0])
    axes = _axes(reader, node) or [axis for axis, size in enumerate(shape) if size == 1 and axis > 0]
    reader.add("squeeze", [node.input[0]], node.output[0], {"axes": axes})


def _unsqueeze(reader: _Reader, node: onnx.NodeProto) -> None:
    reader.add("unsqueeze", [node.input[0]], node.output[0], {"axes": _axes(reader, node)})


def _pad(reader: _Reader, node: onnx.NodeProto) -> None:
    found = attributes(node)
    stated = reader.value(node, 1)
    pads = list(found.get("pads", [])) if stated is None else stated.tolist()
    rank = len(reader.shape(node.input[0]))
    if found.get("mode", "constant") != "constant" or len(pads) != 2 * rank:
        reader.refuse(node)
        return
    value = reader.value(node, 2)
    sides = [int(pads[axis + side * rank]) for axis in reversed(range(rank)) for side in (0, 1)]
    number = float(found.get("value", 0.0) if value is None else value)
    reader.add("pad", [node.input[0]], node.output[0], {"sides": sides, "value": number})


def _cast(reader: _Reader, node: onnx.NodeProto) -> None:
    if attributes(node)["to"] not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
        reader.refuse(node)
        return
    reader.add("float", [node.input[0]], node.output[0])


_TRANSLATIONS: dict[str, Callable[[_Reader, onnx.NodeProto], None]] = {
    "Conv": _conv,
    "Slice": _slice,
    "Split": _split,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_pool,
    "Concat": _concat,
    "Resize": _resize,
    "Upsample": _resize,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Transpose": _transpose,
    "Gemm": _gemm,
    "BatchNormalization": _norm,
    "Clip": _clip,
    "LeakyRelu": _leaky,
    "HardSigmoid": _hard_sigmoid,
    "Softmax": _softmax,
    "ReduceMean": _mean,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Pad": _pad,
    "Cast": _cast,
}
