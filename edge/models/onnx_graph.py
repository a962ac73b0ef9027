"""Facts read from an ONNX file without running it: inputs, outputs, operators, cost, precision."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from edge.errors import ModelError
from edge.interfaces import TensorInfo


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


def read_graph(path: Path) -> GraphFacts:
    """Read an ONNX file.

    Raises:
        ModelError: there is no such file, or it is no ONNX model.
    """
    # weights in other files are not needed, and their paths are not ours to follow
    model = load_onnx(path, has_weights=False)
    graph = model.graph
    if not graph.node or not graph.output:
        raise ModelError(f"{path.name}: not an ONNX model{_what_else(path, '(no nodes in it)')}")
    weights = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node.op_type for node in graph.node for name in node.output}
    return GraphFacts(
        inputs=tuple(_info(value) for value in graph.input if value.name not in weights),
        outputs=tuple(_info(value) for value in graph.output),
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        operators=dict(Counter(node.op_type for node in graph.node).most_common()),
        num_parameters=sum(prod(tensor.dims) for tensor in weights.values()),
        weight_bytes=_bytes_by_type(weights.values()),
        multiply_adds=_multiply_adds(model),
        last_operators=tuple(makers.get(value.name, "") for value in graph.output),
    )


def load_onnx(path: Path, *, has_weights: bool = True) -> Any:
    """The ``ModelProto`` of a file. Args: ``has_weights``: those that lie in other files of its folder too.

    Raises:
        ModelError: there is no such file, it is no ONNX model, or names weights that lie elsewhere.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        return onnx.load(str(path), load_external_data=has_weights)
    except DecodeError:
        raise ModelError(f"{path.name}: cannot be read as ONNX: not an ONNX model{_what_else(path)}") from None
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path.name}: its weights cannot be read ({str(error).splitlines()[0][:200]})") from None


def _info(value: Any) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(size.dim_value if size.dim_value > 0 else None for size in tensor.shape.dim)
    return TensorInfo(value.name, shape, _dtype(tensor.elem_type))


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


def _multiply_adds(model: Any) -> int | None:
    """Multiply-adds of one frame; a dynamic batch counts as 1."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError:
        return None
    values = [*graph.value_info, *graph.input, *graph.output]
    shapes = {value.name: _info(value).shape for value in values}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    sources = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    costs = [
        _cost(node, shapes, sources)
        for node in graph.node
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    ]
    return None if any(cost is None for cost in costs) else sum(cost for cost in costs if cost is not None)


def _cost(node: Any, shapes: dict[str, tuple[int | None, ...]], sources: dict[str, Any]) -> int | None:
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


def _what_else(path: Path, otherwise: str = "(or a damaged one); expected the output of an exporter") -> str:
    """What a file is that is no model, and what to do with it."""
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return ": a Git LFS pointer, the model itself was not fetched; run: git lfs pull"
    if start.lstrip()[:1] == b"<":
        return ": a web page, probably an error that a download was answered with; fetch it again"
    if start.startswith((b"PK\x03\x04", b"\x80\x02")) or path.suffix in (".pt", ".pth"):
        return (
            f": a PyTorch checkpoint; ours: edge export {path.name} --out {path.stem}.onnx; "
            f"Ultralytics': yolo export model={path.name} format=onnx"
        )
    return f" {otherwise}"
