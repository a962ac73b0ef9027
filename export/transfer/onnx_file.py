"""An ONNX file looked at from all sides: nodes, constants, and what every tensor holds for one random picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from edge.addresses.printable import first_line
from edge.engines.ort import RUN_FAILURES
from edge.errors import ModelError
from edge.types import Array

QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"})
_DTYPES: dict[int, type[np.generic]] = {1: np.float32, 2: np.uint8, 10: np.float16}
DEFAULT_SIDE = 224


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A file and one run of it.

    Attributes:
        nodes: of the graph, in order.
        input: name of the picture's tensor.
        outputs: names of the results.
        values: tensor → what it holds in this run, constants included.
        constant: names of the tensors that do not depend on the picture's pixels.
    """

    nodes: list[onnx.NodeProto]
    input: str
    outputs: tuple[str, ...]
    values: dict[str, Array]
    constant: frozenset[str]


def open_onnx_file(path: Path) -> OnnxFile:
    """Read a file and run it once on a random picture.

    Raises:
        ModelError: no ONNX file, a quantized one, or one that does not run here.
    """
    model = _load(path)
    initial = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in initial]
    if len(inputs) != 1:
        raise ModelError(f"{path.name}: expected one input, a picture, found {len(inputs)}")
    picture = _random_picture(inputs[0], path)
    values = initial | {inputs[0].name: picture} | _run(model, inputs[0].name, picture, path)
    constant = _constants(model, set(initial))
    outputs = tuple(item.name for item in model.graph.output)
    return OnnxFile(list(model.graph.node), inputs[0].name, outputs, values, constant)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    found = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        model = onnx.load(path)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(f"{path}: expected an ONNX file, found: {first_line(error)}") from None
    if not model.graph.node:
        raise ModelError(f"{path}: expected an ONNX file, found one without a graph")
    if found := QUANTIZED & {node.op_type for node in model.graph.node}:
        raise ModelError(
            f"{path.name} is quantized already ({min(found)}): weights on a grid of 256 codes are a poor start; "
            "give the float file that it was made from"
        )
    return model


def _random_picture(tensor: onnx.ValueInfoProto, path: Path) -> Array:
    kind = tensor.type.tensor_type
    sizes = [dim.dim_value for dim in kind.shape.dim]
    if len(sizes) != 4 or 3 not in (sizes[1], sizes[3]) or kind.elem_type not in _DTYPES:
        raise ModelError(f"{path.name}: expected a picture (N,3,H,W or N,H,W,3) as input, found {tensor.name} {sizes}")
    shape = [1, *(size or DEFAULT_SIDE for size in sizes[1:])]
    rng = np.random.default_rng(1)
    if kind.elem_type == onnx.TensorProto.UINT8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.normal(size=shape).astype(_DTYPES[kind.elem_type])


def _run(model: onnx.ModelProto, name: str, picture: Array, path: Path) -> dict[str, Array]:
    """What every node gives for this picture."""
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    made = [output for node in model.graph.node for output in node.output if output]
    seen.graph.output.extend(onnx.ValueInfoProto(name=output) for output in made)
    for item in seen.graph.input:
        if item.name == name:
            item.type.tensor_type.shape.dim[0].dim_value = 1
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(seen.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(made, {name: picture})
    except RUN_FAILURES as error:
        raise ModelError(f"{path.name} does not run: {first_line(error)}") from None
    return dict(zip(made, found, strict=True))


def _constants(model: onnx.ModelProto, initial: set[str]) -> frozenset[str]:
    found = set(initial)
    for node in model.graph.node:
        if node.op_type in ("Constant", "Shape") or all(name in found for name in node.input if name):
            found.update(node.output)
    return frozenset(found)
