"""Where Q/DQ nodes go, the way TensorRT and ONNX Runtime fuse them. Decides only; ``export.quantize.qdq`` inserts.

The rules, with their sources, are in docs/int8.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from onnx import NodeProto

from calib.graph import GraphIndex, Layer
from calib.ranges import RangeTable
from edge.errors import UsageError

# integer kernels exist, or the operator only moves values; with both sides in INT8 no float is left between
ARITHMETIC_OPS = frozenset({"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool"})
CARRIED_OPS = frozenset({"MaxPool", "Resize", "Transpose", "Reshape", "Slice", "Split", "Flatten", "Squeeze"})
FUSED_OPS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True, slots=True)
class Point:
    """One tensor to be quantized.

    Attributes:
        tensor: its name.
        range_of: the tensors whose common range it takes; others than itself where values are only moved, or
            concatenated: with one scale on all sides an integer concatenation is a copy.
        readers: (node index, input slot) that get the quantized tensor; None for all.
    """

    tensor: str
    range_of: tuple[str, ...]
    readers: tuple[tuple[int, int], ...] | None


@dataclass(frozen=True, slots=True)
class Placement:
    """What to quantize: activations and the weights of these layers."""

    points: tuple[Point, ...]
    layers: tuple[Layer, ...]


def place(index: GraphIndex, float_layers: Collection[str], *, is_for_cpu: bool) -> Placement:
    """Decide what is quantized.

    Args:
        float_layers: keys of the layers that stay float.
        is_for_cpu: every tensor between INT8 layers, so that ONNX Runtime and OpenVINO find integer kernels; otherwise
            the inputs of layers only.

    Raises:
        UsageError: a float layer does not exist.
    """
    known = {layer.key for layer in index.layers}
    if missing := sorted(set(float_layers) - known):
        raise UsageError(f"no layer has the weight {missing[0]!r}; edge lint MODEL.onnx lists them")
    layers = tuple(layer for layer in index.layers if layer.key not in float_layers)
    if is_for_cpu:
        return Placement(tuple(_integer_points(index, layers)), layers)
    readers: dict[str, list[tuple[int, int]]] = {}
    for layer in layers:
        readers.setdefault(layer.source, []).append((layer.index, 0))
    points = (Point(name, (moved_from(index, name),), tuple(sorted(places))) for name, places in readers.items())
    return Placement(tuple(points), layers)


def default_float_layers(index: GraphIndex, table: RangeTable) -> frozenset[str]:
    """What always stays float.

    The last bare layers: one scale over boxes and scores would round the scores away. And those that read or make
    nothing but 0, or a constant, as the first ones of a DETR's decoder do: there is no range to code them by.
    """
    found = set(index.terminal)
    for layer in index.layers:
        names = (moved_from(index, layer.source), _fused_output(index, layer.output))
        # what has no role is a constant
        if any(name not in index.roles or table.is_silent(index.roles[name]) for name in names):
            found.add(layer.key)
    return frozenset(found)


def moved_from(index: GraphIndex, name: str) -> str:
    """The tensor that a chain of moving operators started from: same values, same range."""
    while name in index.producer:
        node = index.nodes[index.producer[name]]
        if not is_carried(node) or node.op_type == "MaxPool":
            return name
        name = node.input[0]
    return name


def is_carried(node: NodeProto) -> bool:
    """Whether the operator moves values without new ones (Resize: nearest only)."""
    if node.op_type != "Resize":
        return node.op_type in CARRIED_OPS
    mode = next((item.s for item in node.attribute if item.name == "mode"), b"nearest")
    return mode == b"nearest"


def _integer_points(index: GraphIndex, layers: tuple[Layer, ...]) -> list[Point]:
    """All tensors that integer layers read or make, and those between two quantized ones."""
    wanted = {layer.source for layer in layers} | {_fused_output(index, layer.output) for layer in layers}
    useful = _leading_to(index, {layer.source for layer in layers})
    # two sweeps reach a tensor that becomes quantized because of one further on
    for _ in range(2):
        for number, node in enumerate(index.nodes):
            if number in index.tail:
                continue
            sources = [name for name in node.input[:1] if name] if is_carried(node) else _data_inputs(index, node)
            if not sources or not all(name in wanted for name in sources):
                continue
            if not useful.isdisjoint(node.output) and node.op_type in ARITHMETIC_OPS:
                wanted.add(_fused_output(index, node.output[0]))
            elif not useful.isdisjoint(node.output) and is_carried(node):
                wanted.update(node.output)
    behind = {name for number in index.tail for name in index.nodes[number].output}
    order = [*index.inputs, *(name for node in index.nodes for name in node.output)]
    # a layer may read what is shown as an output too; the output itself stays float
    found = wanted - behind - (set(index.outputs) - {layer.source for layer in layers})
    groups = _concatenated(index, found)
    return [Point(name, groups.get(name, (moved_from(index, name),)), None) for name in order if name in found]


def _concatenated(index: GraphIndex, quantized: set[str]) -> dict[str, tuple[str, ...]]:
    """Tensor → all tensors that must share its range: both sides of concatenations whose tensors are all quantized."""
    groups: dict[str, set[str]] = {}
    for number, node in enumerate(index.nodes):
        sides = {*node.input, *node.output}
        if node.op_type != "Concat" or number in index.tail or not sides <= quantized:
            continue
        sides |= {origin for name in node.input for origin in _origins(index, name)} & quantized
        joined = sides.union(*(groups.get(name, set()) for name in sides))
        groups.update(dict.fromkeys(joined, joined))
    return {name: tuple(sorted(moved_from(index, member) for member in group)) for name, group in groups.items()}


def _origins(index: GraphIndex, name: str) -> list[str]:
    """The tensors from which this one came by moving alone: they must have its scale, or moving would mean recoding."""
    found = []
    while name in index.producer and is_carried(index.nodes[index.producer[name]]):
        name = str(index.nodes[index.producer[name]].input[0])
        found.append(name)
    return found


def _leading_to(index: GraphIndex, sources: set[str]) -> set[str]:
    """Tensors from which one of these is reached without another layer in between."""
    found = set(sources)
    for node in reversed(index.nodes):
        if node.op_type in ARITHMETIC_OPS | FUSED_OPS | CARRIED_OPS and not found.isdisjoint(node.output):
            found.update(node.input)
    return found


def _data_inputs(index: GraphIndex, node: NodeProto) -> list[str]:
    return [name for name in node.input if name and name not in index.constants]


def _fused_output(index: GraphIndex, name: str) -> str:
    """What a layer makes once the activation that its kernel applies for free is done."""
    users = index.readers[name]
    if len(users) == 1 and index.nodes[users[0][0]].op_type in FUSED_OPS:
        return str(index.nodes[users[0][0]].output[0])
    return name
