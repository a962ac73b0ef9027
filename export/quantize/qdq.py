"""Inserts explicit Q/DQ nodes into a float ONNX model: symmetric INT8 for TensorRT, or uint8 activations for CPUs.

O output channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calib.clipping import Method
from calib.graph import GraphIndex, Layer
from calib.ranges import RangeTable
from edge.types import Array, Float32, Float64
from export.quantize.placement import Point, default_float_layers, place

Flavour: TypeAlias = Literal["fp32", "fp16", "cpu"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
INT32_LIMIT = 2.0**30
# the smallest positive and the largest FP16 number
LEAST_HALF, LARGEST_HALF = 2.0**-24, np.float32(65504.0)
INT8_MAX = 127.0


@dataclass(frozen=True, slots=True)
class Scheme:
    """How numbers are coded.

    Attributes:
        flavour: ``fp32`` and ``fp16`` symmetric int8 for TensorRT; ``cpu`` uint8 activations with a zero point and
            int32 biases, the form for which x86 and Arm have integer kernels.
        stores_codes: weights are stored as int8 (a quarter of the size) instead of float with a Q node; TensorRT 8.6
            wants the latter.
        method: which clip points of the table.
        float_layers: keys of layers that stay float, the last ones included; None for only those.
    """

    flavour: Flavour = "fp32"
    stores_codes: bool = False
    method: Method = "average"
    float_layers: frozenset[str] | None = None


def scheme_for(flavour: Flavour, method: Method, float_layers: frozenset[str] | None = None) -> Scheme:
    """The usual scheme of a flavour."""
    return Scheme(flavour, flavour in ("fp16", "cpu"), method, float_layers)


def insert_qdq(model: ModelProto, table: RangeTable, scheme: Scheme) -> ModelProto:
    """A copy of the float model with Q/DQ nodes (FP32 scales; ``export.quantize.fp16`` makes the typed FP16 form).

    Raises:
        DataError: the table lacks a tensor, or its range is empty.
        UsageError: a float layer does not exist.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    index = GraphIndex(copy)
    chosen = default_float_layers(index, table) if scheme.float_layers is None else scheme.float_layers
    placement = place(index, chosen, is_for_cpu=scheme.flavour == "cpu")
    writer = _Writer(index, table, scheme)
    for point in placement.points:
        writer.quantize_activation(point)
    for layer in placement.layers:
        writer.quantize_weight(layer)
    return writer.finish()


class _Writer:
    """Collects the new nodes and initialisers of one model."""

    def __init__(self, index: GraphIndex, table: RangeTable, scheme: Scheme) -> None:
        self._index = index
        self._table = table
        self._scheme = scheme
        self._after: dict[int, list[NodeProto]] = {}
        self._scales: dict[str, float] = {}
        self._new: dict[str, TensorProto] = {}

    def quantize_activation(self, point: Point) -> None:
        """Put Q and DQ behind a tensor and hand the result to its readers."""
        clips = [self._table.clip(self._index.roles[name], self._scheme.method) for name in point.range_of]
        low, high = min(low for low, _ in clips), max(high for _, high in clips)
        name = point.tensor
        scale, zero = affine(low, high) if self._scheme.flavour == "cpu" else (max(-low, high) / INT8_MAX, np.int8(0))
        scale = float(self._storable(np.array([scale], np.float32))[0])
        first = self._index.producer.get(name, -1)
        byte_chain = self._byte_chain(name) if self._scheme.flavour == "cpu" else []
        if byte_chain:
            # the input is bytes already: the codes are the bytes, nothing is rounded
            scale, zero, codes = 1.0, np.uint8(0), self._move_bytes(byte_chain, first)
        else:
            codes = f"{name}_q"
            self._add(first, _node("QuantizeLinear", [name, *self._parameters(name, scale, zero)], codes))
        real = f"{name}_dq"
        self._add(first, _node("DequantizeLinear", [codes, *self._parameters(name, scale, zero)], real))
        self._scales[name] = scale
        places = point.readers if point.readers is not None else tuple(self._index.readers[name])
        for number, slot in places:
            self._index.nodes[number].input[slot] = real

    def _byte_chain(self, name: str) -> list[NodeProto]:
        """The nodes between uint8 graph input and this tensor, last one first: a Cast and what moves its values.

        Empty where the tensor is something else.
        """
        types = {item.name: item.type.tensor_type.elem_type for item in self._index.model.graph.input}
        chain: list[NodeProto] = []
        while name in self._index.producer:
            node = self._index.nodes[self._index.producer[name]]
            if node.op_type not in {"Transpose", "Reshape", "Cast", "Identity"}:
                return []
            chain.append(node)
            name = node.input[0]
        return chain if chain and types.get(name) == TensorProto.UINT8 else []

    def _move_bytes(self, chain: list[NodeProto], after: int) -> str:
        """Repeat the moves on the bytes; gives the tensor of bytes that arrives."""
        name = str(chain[-1].input[0])
        for node in reversed(chain):
            if node.op_type in {"Transpose", "Reshape"}:
                moved = _copy(node)
                moved.name, moved.input[0], moved.output[0] = f"{node.name}_bytes", name, f"{node.output[0]}_bytes"
                self._add(after, moved)
                name = str(moved.output[0])
        return name

    def quantize_weight(self, layer: Layer) -> None:
        """Put DQ (and Q, where codes are not stored) before a layer's weight, per output channel."""
        weight: Float32 = self._index.constant(layer.weight).astype(np.float32)
        scales = self._storable(channel_scales(weight, layer.axis))
        source_scale = self._scales.get(layer.source)
        bias: Float64 | None = self._index.constant(layer.bias).astype(np.float64) if layer.bias else None
        is_cpu = self._scheme.flavour == "cpu"
        if is_cpu and bias is not None and source_scale is not None:
            # the bias is coded with both scales and must fit 32 bits
            scales = np.maximum(scales, np.abs(bias) / (INT32_LIMIT * source_scale)).astype(np.float32)
        node = self._index.nodes[layer.index]
        node.input[1] = self._write_weight(layer, weight, scales)
        if is_cpu and bias is not None and source_scale is not None:
            node.input[2] = self._write_bias(layer, bias, scales.astype(np.float64) * source_scale)

    def _storable(self, scales: Float32) -> Float32:
        """Scales as they will be stored: rounded before anything is coded with them, and never to 0."""
        if self._scheme.flavour != "fp16":
            return scales
        # what FP16 cannot hold belongs to tensors that stay FP32, and their scales with them
        halves = np.minimum(scales, LARGEST_HALF).astype(np.float16).astype(np.float32)
        rounded: Float32 = np.where(scales > LARGEST_HALF, scales, np.maximum(halves, np.float32(LEAST_HALF)))
        return rounded

    def _write_weight(self, layer: Layer, weight: Float32, scales: Float32) -> str:
        codes, real = f"{layer.key}_q", f"{layer.key}_dq"
        zeros = np.zeros(len(scales), np.int8)
        parameters = [self._store(f"{real}_scale", scales), self._store(f"{real}_zero", zeros)]
        if self._scheme.stores_codes:
            self._store(codes, encode(weight, scales, layer.axis))
        else:
            self._add(-1, _node("QuantizeLinear", [layer.weight, *parameters], codes, layer.axis))
        self._add(-1, _node("DequantizeLinear", [codes, *parameters], real, layer.axis))
        return real

    def _write_bias(self, layer: Layer, bias: Float64, scales: Float64) -> str:
        name = f"{layer.key}_bias"
        codes = np.round(bias / scales).astype(np.int32)
        parameters = [self._store(f"{name}_scale", scales.astype(np.float32))]
        parameters.append(self._store(f"{name}_zero", np.zeros(len(bias), np.int32)))
        self._store(f"{name}_q", codes)
        self._add(-1, _node("DequantizeLinear", [f"{name}_q", *parameters], f"{name}_dq", 0))
        return f"{name}_dq"

    def _parameters(self, name: str, scale: float, zero: np.generic) -> list[str]:
        return [self._store(f"{name}_scale", np.float32(scale)), self._store(f"{name}_zero", zero)]

    def _store(self, name: str, values: Array | np.generic) -> str:
        self._new.setdefault(name, numpy_helper.from_array(np.asarray(values), name))
        return name

    def _add(self, after: int, node: NodeProto) -> None:
        self._after.setdefault(after, []).append(node)

    def finish(self) -> ModelProto:
        """The model with the new nodes in running order and without initialisers that nobody reads."""
        graph = self._index.model.graph
        ordered = list(self._after.get(-1, []))
        for number, node in enumerate(self._index.nodes):
            ordered += [node, *self._after.get(number, [])]
        kept = [_copy(node) for node in ordered]
        del graph.node[:]
        graph.node.extend(kept)
        remove_dead_nodes(self._index.model)
        graph.initializer.extend(self._new.values())
        remove_unread_initialisers(self._index.model)
        return self._index.model


def affine(low: float, high: float) -> tuple[float, np.uint8]:
    """Scale and zero point of unsigned 8-bit codes; 0 is exact."""
    scale = (high - low) / 255
    return scale, np.uint8(np.clip(round(-low / scale), 0, 255))


def channel_scales(weight: Float32, axis: int) -> Float32:
    """(O,) symmetric scales that make the largest weight code 127; a channel of zeros gets 1."""
    others = tuple(place for place in range(weight.ndim) if place != axis)
    peak = np.abs(weight).max(axis=others)
    scales: Float32 = np.where(peak > 0, peak / INT8_MAX, 1.0).astype(np.float32)
    return scales


def encode(weight: Float32, scales: Float32, axis: int) -> Array:
    """Signed 8-bit codes, rounded half to even as TensorRT and ONNX Runtime do."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.clip(np.round(weight / scales.reshape(shape)), -127, 127).astype(np.int8)


def remove_unread_initialisers(model: ModelProto) -> None:
    """Drop what no node reads, in place: float weights that were replaced by codes."""
    read = {name for node in model.graph.node for name in node.input} | {item.name for item in model.graph.output}
    kept = [item for item in model.graph.initializer if item.name in read]
    names = {item.name for item in model.graph.initializer} - {item.name for item in kept}
    inputs = [item for item in model.graph.input if item.name not in names]
    del model.graph.initializer[:], model.graph.input[:]
    model.graph.initializer.extend(kept)
    model.graph.input.extend(inputs)


def remove_dead_nodes(model: ModelProto) -> None:
    """Drop nodes whose outputs nobody reads, in place: a Cast of bytes that are read as codes."""
    needed = {item.name for item in model.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(node.input)
    kept.reverse()
    copies = [_copy(node) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _node(op: str, inputs: list[str], output: str, axis: int | None = None) -> NodeProto:
    extra = {} if axis is None else {"axis": axis}
    return helper.make_node(op, inputs, [output], name=f"{output}_{op}", **extra)
