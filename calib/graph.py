"""An ONNX graph as calibration sees it: who makes and who reads a tensor, and which layers have weights.

A *role* is a tensor's name made of weight names and operators, so that a table measured on one opset fits another.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from calib.widen import sort_nodes, widen_halves
from edge.addresses.printable import first_line
from edge.errors import ModelError
from edge.models.onnx_graph import load_onnx
from edge.types import Array

WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
QUANTIZATION_OPS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# these move values about without changing them, so their output has the range of their input
MOVING_OPS = frozenset({"MaxPool", "Transpose", "Reshape", "Slice", "Split", "Flatten", "Squeeze", "Unsqueeze"})
QUANTIZED_OPS = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})
MIN_QDQ_OPSET = 13
MAX_ROLE_LENGTH = 96
# the file version that goes with opset 17; older parsers check it
OLD_OPSET, OLD_IR_VERSION = 17, 8
# exporters write them with their default values
NEWER_ATTRIBUTES = frozenset({"noop_with_empty_axes", "antialias", "keep_aspect_ratio_policy"})


@dataclass(frozen=True, slots=True)
class Layer:
    """A node with weights.

    Attributes:
        key: name of its weight; ``name#2`` for the second user of a shared one. Stable across opsets.
        index: of the node in ``graph.node``.
        op: operator.
        source: the tensor that it reads.
        weight, bias: initialisers; bias is "" where there is none.
        output: the tensor that it makes.
        axis: output channel axis of the weight.
    """

    key: str
    index: int
    op: str
    source: str
    weight: str
    bias: str
    output: str
    axis: int


class GraphIndex:
    """Look-ups over one model. The model must not change while the index is in use."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.constants: dict[str, TensorProto] = {item.name: item for item in model.graph.initializer}
        self.inputs = tuple(item.name for item in model.graph.input if item.name not in self.constants)
        self.outputs = tuple(item.name for item in model.graph.output)
        self.producer = {name: place for place, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, node in enumerate(self.nodes):
            for slot, name in enumerate(node.input):
                self.readers[name].append((place, slot))

    @property
    def opset(self) -> int:
        return opset_of(self.model)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All nodes with constant float weights, in the order in which they run."""
        seen: dict[str, int] = defaultdict(int)
        found = []
        for place, node in enumerate(self.nodes):
            if not self._is_weighted(node):
                continue
            weight = node.input[1]
            seen[weight] += 1
            key = weight if seen[weight] == 1 else f"{weight}#{seen[weight]}"
            bias = node.input[2] if len(node.input) > 2 and node.input[2] in self.constants else ""
            found.append(
                Layer(key, place, node.op_type, node.input[0], weight, bias, node.output[0], channel_axis(node))
            )
        return tuple(found)

    @cached_property
    def terminal(self) -> frozenset[str]:
        """Keys of the layers from which an output is made without another layer: a head's last ones, a classifier."""
        by_output = {layer.output: layer.key for layer in self.layers}
        found = {by_output[name] for name in self._last_tensors if name in by_output}
        return frozenset(found)

    @cached_property
    def decode(self) -> frozenset[int]:
        """Indices of the nodes between these layers and the outputs: decode, softmax, top-K."""
        by_output = {layer.output for layer in self.layers}
        return frozenset(self.producer[n] for n in self._last_tensors if n in self.producer and n not in by_output)

    @cached_property
    def tail(self) -> frozenset[int]:
        """Those of ``decode`` behind which no layer comes: some networks feed boxes back, or show inner maps."""
        reached = {layer.index for layer in self.layers}
        todo = list(reached)
        while todo:
            node = self.nodes[todo.pop()]
            if node.op_type != "Shape":
                before = {self.producer[name] for name in node.input if name in self.producer} - reached
                reached |= before
                todo.extend(before)
        return self.decode - reached

    @cached_property
    def _last_tensors(self) -> frozenset[str]:
        """What is reached by walking back from the outputs, stopping at layers (theirs included) and shapes."""
        by_output = {layer.output for layer in self.layers}
        todo, seen = list(self.outputs), set[str]()
        while todo:
            name = todo.pop()
            if name in seen or not name:
                continue
            seen.add(name)
            if name in by_output or name not in self.producer:
                continue
            node = self.nodes[self.producer[name]]
            if node.op_type != "Shape":
                todo.extend(node.input)
        return frozenset(seen)

    @cached_property
    def roles(self) -> dict[str, str]:
        """Tensor name → role."""
        names = {name: f"input:{name}" for name in self.inputs}
        taken: dict[str, int] = defaultdict(int)
        by_index = {layer.index: layer.key for layer in self.layers}
        for place, node in enumerate(self.nodes):
            sources = [names[name] for name in node.input if name in names]
            base = by_index.get(place) or _role(node.op_type, sources)
            for slot, output in enumerate(node.output):
                if node.op_type == "Identity" and sources:
                    names[output] = sources[0]
                    continue
                role = base if slot == 0 else f"{base}.{slot}"
                taken[role] += 1
                names[output] = role if taken[role] == 1 else f"{role}@{taken[role]}"
        return names

    def constant(self, name: str) -> Array:
        """The values of an initialiser."""
        values: Array = numpy_helper.to_array(self.constants[name])
        return values

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, weights and wiring of all layers: the same for one network at two opsets."""
        digest = hashlib.sha256()
        for layer in sorted(self.layers, key=lambda item: item.key):
            digest.update(f"{layer.key}|{layer.op}|{self.roles.get(layer.source, '')}|".encode())
            for name in (layer.weight, layer.bias):
                if name:
                    digest.update(np.ascontiguousarray(self.constant(name).astype(np.float32)).tobytes())
        return digest.hexdigest()

    def _is_weighted(self, node: NodeProto) -> bool:
        if node.op_type not in WEIGHTED_OPS or len(node.input) < 2 or node.domain not in {"", "ai.onnx"}:
            return False
        weight = self.constants.get(node.input[1])
        return (
            weight is not None and weight.data_type in {TensorProto.FLOAT, TensorProto.FLOAT16} and len(weight.dims) > 1
        )


def _role(op: str, sources: list[str]) -> str:
    if len(sources) == 1 and len(sources[0]) + len(op) < MAX_ROLE_LENGTH:
        return f"{sources[0]}>{op}"
    return f"{op}#{hashlib.sha256('|'.join(sources).encode()).hexdigest()[:10]}"


def channel_axis(node: NodeProto) -> int:
    """The weight's axis along which output channels lie."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}[node.op_type]


def attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def attribute_ints(node: NodeProto, name: str) -> tuple[int, ...]:
    """An integer list attribute of a node, empty where it is not given."""
    return next((tuple(item.ints) for item in node.attribute if item.name == name), ())


def opset_of(model: ModelProto) -> int:
    """Version of the standard operator set."""
    return next((int(item.version) for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)


def is_quantized(model: ModelProto) -> bool:
    """Whether the graph has quantization nodes already."""
    return any(node.op_type in QUANTIZATION_OPS | QUANTIZED_OPS for node in model.graph.node)


def load_float_model(path: Path) -> ModelProto:
    """Read a float ONNX file in float32, with its constants as initialisers, at an opset that has per-channel Q/DQ.

    Raises:
        ModelError: no ONNX file, quantized already, without layers, or of an opset that cannot be converted.
    """
    model: ModelProto = load_onnx(path)
    if is_quantized(model):
        raise ModelError(f"{path}: is quantized already; calibrate and quantize the float model that it was made of")
    model = with_opset(model, max(opset_of(model), MIN_QDQ_OPSET), str(path))
    hoist_constants(model)
    widen_halves(model)
    sort_nodes(model)
    drop_empty_roi(model)
    if not GraphIndex(model).layers:
        raise ModelError(
            f"{path}: has no Conv, ConvTranspose, Gemm or MatMul with constant weights; nothing to quantize"
        )
    return model


def with_opset(model: ModelProto, opset: int, where: str) -> ModelProto:
    """The model at this opset.

    Raises:
        ModelError: ONNX has no conversion for one of its operators.
    """
    if opset_of(model) == opset:
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    if opset < opset_of(model):
        _drop_newer_attributes(copy)
    try:
        converted: ModelProto = onnx.version_converter.convert_version(copy, opset)
        if opset < opset_of(model) and opset <= OLD_OPSET:
            converted.ir_version = min(converted.ir_version, OLD_IR_VERSION)
        onnx.checker.check_model(converted)
        return converted
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{where}: opset {opset_of(model)} cannot be converted to {opset} ({first_line(error)}); "
            f"export the network again at opset {opset}"
        ) from None


def _drop_newer_attributes(model: ModelProto) -> None:
    """Leave out attributes that came with opset 18, in place; the converter keeps them and so makes invalid models."""
    for node in model.graph.node:
        kept = [item for item in node.attribute if item.name not in NEWER_ATTRIBUTES]
        del node.attribute[:]
        node.attribute.extend(kept)


def hoist_constants(model: ModelProto) -> None:
    """Turn Constant nodes into initialisers, in place: weights are then found in one spot."""
    kept = []
    for node in model.graph.node:
        value = next((item.t for item in node.attribute if item.name == "value"), None)
        if node.op_type != "Constant" or value is None:
            kept.append(node)
            continue
        tensor = TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def drop_empty_roi(model: ModelProto) -> None:
    """Leave out the region of interest of a Resize where it is an empty tensor, in place.

    ONNX Runtime 1.32 permutes it when it moves a Transpose past an integer Resize, and fails on its missing entries.
    """
    empty = {item.name for item in model.graph.initializer if 0 in item.dims}
    for node in model.graph.node:
        if node.op_type == "Resize" and len(node.input) > 1 and node.input[1] in empty:
            node.input[1] = ""
