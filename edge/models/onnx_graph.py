"""Facts read from an ONNX file without running it: inputs, outputs, operators, cost, precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

from edge.addresses.printable import first_line
from edge.errors import ModelError
from edge.interfaces import TensorInfo
from edge.models.foreign_files import foreign_file
from edge.models.scaling import Scaling, scaling_of

# nodes that move or retype numbers and leave their meaning
MOVING: tuple[str, ...] = ("Transpose", "Reshape", "Identity", "Cast", "Squeeze", "Unsqueeze", "Flatten", "Expand")
MOVING += ("QuantizeLinear", "DequantizeLinear")
MAX_LEVELS = 4
MAX_STEPS_BACK = 60
# to the heat maps it is far: torchvision looks for their peaks and scales these
MAX_STEPS_TO_MAPS = 500

Shapes: TypeAlias = dict[str, tuple[int | None, ...]]
Tell: TypeAlias = Callable[[Any, Shapes], int | None]


@dataclass(frozen=True, slots=True)
class Part:
    """One of the tensors that the end of a graph joins. Attributes: its width along the joint, its last operator."""

    width: int | None
    operator: str


@dataclass(frozen=True, slots=True)
class End:
    """How an output comes to be, behind nodes that only move numbers.

    Attributes:
        operator: kind of the last node that computes.
        joints: parts of the last ``Concat``, of the one that makes its first part, and so on.
        class_width: last size of the nearest scores (N, A, C) before it, None where none was found.
        num_heat_maps: what the nearest transposed convolution before it gives, None where none was found.
    """

    operator: str
    joints: tuple[tuple[Part, ...], ...]
    class_width: int | None
    num_heat_maps: int | None = None

    def parts(self, width: int | None) -> tuple[Part, ...]:
        """The parts that make up this many numbers per object; empty where the graph does not tell."""
        for joint in self.joints:
            if all(part.width for part in joint) and sum(part.width or 0 for part in joint) == width:
                return joint
        return ()


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What stands in an ONNX file.

    Attributes:
        inputs: real inputs, without initialisers that old exporters list there too.
        outputs: the graph's outputs.
        opset: of the default domain.
        metadata: the file's key-value pairs.
        operators: how many nodes of each kind.
        num_parameters: values in all initialisers.
        weight_bytes: bytes per type of initialiser.
        multiply_adds: of the convolutions and matrix products for one frame, None where shapes are not known.
        last_operators: kinds of the nodes that make the outputs.
        ends: output name → how it comes to be.
        scalings: input name → what is done to it first, where it is scaled by constants.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int
    metadata: dict[str, str]
    operators: dict[str, int]
    num_parameters: int
    weight_bytes: dict[str, int]
    multiply_adds: int | None
    last_operators: tuple[str, ...]
    ends: dict[str, End]
    scalings: dict[str, Scaling] = field(default_factory=dict)


def read_graph(path: Path) -> GraphFacts:
    """Read an ONNX file; weights in a file of their own are not read.

    Raises:
        ModelError: there is no such file, it is no ONNX model, or the file with its weights is missing.
    """
    # weights in other files are not needed, and their paths are not ours to follow
    model = load_onnx(path, has_weights=False)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers, constants = _readers(graph), weights | _constants(graph)
    shapes = _shapes(model)
    inputs = tuple(_info(value) for value in graph.input if value.name not in weights)
    # what the file leaves open the graph may tell
    outputs = tuple(_filled(_info(value), shapes) for value in graph.output)
    return GraphFacts(
        inputs=inputs,
        outputs=outputs,
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        operators=dict(Counter(node.op_type for node in graph.node).most_common()),
        num_parameters=sum(prod(tensor.dims) for tensor in weights.values()),
        weight_bytes=_bytes_by_type(weights.values()),
        multiply_adds=_multiply_adds(graph, shapes),
        last_operators=tuple(makers[value.name].op_type if value.name in makers else "" for value in graph.output),
        ends={value.name: _end(value.name, makers, shapes) for value in outputs},
        scalings={one.name: found for one in inputs if (found := scaling_of(one.name, readers, constants)) is not None},
    )


def _readers(graph: Any) -> dict[str, list[Any]]:
    """Tensor's name → the nodes that read it."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in set(node.input):
            readers.setdefault(name, []).append(node)
    return readers


def _constants(graph: Any) -> dict[str, Any]:
    """Tensor's name → what ``Constant`` nodes hold."""
    nodes = [node for node in graph.node if node.op_type == "Constant"]
    held = [(node.output, entry.t) for node in nodes for entry in node.attribute if entry.name == "value"]
    return {name: tensor for names, tensor in held for name in names}


def load_onnx(path: Path, *, has_weights: bool = True) -> Any:
    """The ``ModelProto`` of a file. Args: ``has_weights``: those that lie in other files of its folder too.

    Raises:
        ModelError: there is no such file, it is no ONNX model, or names weights that lie elsewhere.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.exists():
        raise ModelError(f"{path}: no such model file")
    foreign = foreign_file(path)
    if foreign:
        raise ModelError(foreign)
    try:
        model = onnx.load(str(path), load_external_data=False)
        _check_weights(model, path)
        return onnx.load(str(path)) if has_weights else model
    except DecodeError:
        raise ModelError(
            f"{path.name}: cannot be read as ONNX: not an ONNX model (or a damaged one); expected the output of an "
            "exporter"
        ) from None
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path.name}: its weights cannot be read ({first_line(error)})") from None


def _check_weights(model: Any, path: Path) -> None:
    """Refuse a file without a graph, or whose weights lie elsewhere than next to it."""
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path.name}: not an ONNX model (no nodes in it)")
    for name in external_files(model):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"{path.name}: its weights cannot be read (they lie in {name!r:.100}, outside its folder)")
        if not (path.parent / name).is_file():
            raise ModelError(
                f"{path.name}: its weights are in {name}, which is not next to it; copy both, or export the model "
                "into one (torch.onnx.export(…, external_data=False))"
            )


def external_files(model: Any) -> tuple[str, ...]:
    """Names of the files next to an ONNX file that its weights are in."""
    import onnx

    places = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(sorted(places))


def _shapes(model: Any) -> Shapes:
    """Tensor name → shape, as far as it can be told."""
    import onnx

    graph = model.graph
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError):
        # a file of more than 2 GB, or one that contradicts itself
        inferred = graph
    values = [*inferred.value_info, *graph.input, *graph.output, *inferred.output]
    shapes = {value.name: _info(value).shape for value in values}
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _filled(tensor: TensorInfo, shapes: Shapes) -> TensorInfo:
    known = shapes.get(tensor.name, ())
    if len(known) != len(tensor.shape):
        return TensorInfo(tensor.name, tensor.shape or known, tensor.dtype)
    sizes = tuple(size or other for size, other in zip(tensor.shape, known, strict=True))
    return TensorInfo(tensor.name, sizes, tensor.dtype)


def _end(name: str, makers: dict[str, Any], shapes: Shapes) -> End:
    joints: list[tuple[Part, ...]] = []
    node = _computing(name, makers)
    first = node
    while node is not None and node.op_type == "Concat" and len(joints) < MAX_LEVELS:
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 0)
        joints.append(tuple(_part(source, axis, makers, shapes) for source in node.input))
        node = _computing(node.input[0], makers)
    width = _nearest(name, makers, shapes, _width_at, MAX_STEPS_BACK)
    maps = _nearest(name, makers, shapes, _maps_at, MAX_STEPS_TO_MAPS)
    return End(first.op_type if first is not None else "", tuple(joints), width, maps)


def _computing(name: str, makers: dict[str, Any]) -> Any | None:
    node = makers.get(name)
    # a damaged file may go in a circle
    for _ in range(MAX_STEPS_BACK):
        if node is None or node.op_type not in MOVING or not node.input:
            return node
        node = makers.get(node.input[0])
    return None


def _part(name: str, axis: int, makers: dict[str, Any], shapes: Shapes) -> Part:
    shape = shapes.get(name, ())
    width = shape[axis] if -len(shape) <= axis < len(shape) else None
    node = _computing(name, makers)
    return Part(width, node.op_type if node is not None else "")


def _nearest(name: str, makers: dict[str, Any], shapes: Shapes, tell: Tell, most: int) -> int | None:
    """What the nearest of the nodes that an output is made of tells, if it is above one; so many are asked."""
    waiting, seen = [name], 0
    while waiting and seen < most:
        node = makers.get(waiting.pop(0))
        seen += 1
        if node is None:
            continue
        told = tell(node, shapes)
        if told is not None and told > 1:
            return told
        waiting += [source for source in node.input if source]
    return None


def _info(value: Any) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(size.dim_value if size.dim_value > 0 else None for size in tensor.shape.dim)
    return TensorInfo(value.name, shape, _dtype(tensor.elem_type))


@cache
def _dtype(elem_type: int) -> str:
    import onnx

    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except KeyError:
        return f"onnx type {elem_type}"


def _bytes_by_type(weights: Any) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for tensor in weights:
        counted[_dtype(tensor.data_type)] += len(tensor.raw_data) or prod(tensor.dims) * 4
    return dict(counted.most_common())


def _maps_at(node: Any, shapes: Shapes) -> int | None:
    """Number of the maps that a transposed convolution gives, None of other nodes."""
    weight = shapes.get(node.input[1], ()) if node.op_type == "ConvTranspose" else ()
    return weight[1] if len(weight) == 4 else None


def _width_at(node: Any, shapes: Shapes) -> int | None:
    """Number of classes that go through this node, None where it is none that knows."""
    match node.op_type:
        case "Sigmoid" | "Softmax":
            scores, axis = shapes.get(node.output[0], ()), 2
        case "NonMaxSuppression":
            scores, axis = shapes.get(node.input[1], ()), 1
        case "ArgMax":
            scores = shapes.get(node.input[0], ())
            axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 0) % max(1, len(scores))
            return scores[axis] if len(scores) == 4 else None
        case kind if "NMS" in kind and len(node.input) > 1:
            scores, axis = shapes.get(node.input[1], ()), 2
        case _:
            return None
    return scores[axis] if len(scores) == 3 else None


def _multiply_adds(graph: Any, shapes: Shapes) -> int | None:
    """Multiply-adds of one frame; a dynamic batch counts as 1."""
    sources = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    costs = [
        _cost(node, shapes, sources)
        for node in graph.node
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    ]
    return None if any(cost is None for cost in costs) else sum(cost for cost in costs if cost is not None)


def _cost(node: Any, shapes: Shapes, sources: dict[str, Any]) -> int | None:
    weight = shapes.get(node.input[1])
    if weight is None and node.input[1] in sources:
        weight = shapes.get(sources[node.input[1]].input[0])
    moved = shapes.get(node.output[0] if node.op_type != "ConvTranspose" else node.input[0])
    if not weight or not moved or any(size is None for size in (*weight, *moved[1:])):
        return None
    cells = prod(size or 1 for size in moved[1:])
    if node.op_type in ("Conv", "ConvTranspose"):
        return cells * prod(size or 1 for size in weight[1:])
    return cells * (weight[0] or 1)
