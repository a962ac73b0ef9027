"""Rules that decide whether a TensorRT's parser and builder take a Q/DQ model."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from calib.graph import QUANTIZED_OPS
from export.lint.graph import QdqGraph, Quantizer
from export.lint.targets import Target

Fact = tuple[str, str, str]
HALF_SCALE_OPSET = 19
FLOAT8 = frozenset({int(TensorProto.FLOAT8E4M3FN)})


def parse_findings(graph: QdqGraph, target: Target) -> Iterator[Fact]:
    """(rule, node, message) for everything that this target refuses."""
    yield from _opset(graph, target)
    yield from _operators(graph, target)
    yield from _byte_input(graph)
    for quantizer in graph.quantizers:
        yield from _codes(quantizer, target)
        yield from _scales(graph, quantizer)
    yield from _weights(graph, target)


def _opset(graph: QdqGraph, target: Target) -> Iterator[Fact]:
    if not target.min_opset <= graph.opset <= target.max_opset:
        yield (
            "opset",
            "",
            f"opset {graph.opset}, {target.min_opset} to {target.max_opset} are parsed; "
            "export the network again inside that range and quantize it with the same ranges.json",
        )


def _operators(graph: QdqGraph, target: Target) -> Iterator[Fact]:
    for node in graph.nodes:
        if node.op_type in target.refused_ops:
            yield "operator", node.name, f"{node.op_type} has no implementation; keep it out of the graph"
        if node.op_type in QUANTIZED_OPS:
            yield "operator", node.name, f"{node.op_type} is not taken; use the Q/DQ form"
        if node.domain not in {"", "ai.onnx"}:
            yield "domain", node.name, f"operator {node.domain}.{node.op_type} is not standard ONNX"


def _byte_input(graph: QdqGraph) -> Iterator[Fact]:
    """Bytes may enter, but only a Cast can read them."""
    types = graph.types
    for name in graph.index.inputs:
        if types.get(name) != TensorProto.UINT8:
            continue
        for node in graph.readers(name):
            if node.op_type not in {"Cast", "Identity"}:
                yield "uint8-input", node.name, f"{node.op_type} reads the uint8 input {name!r}; Cast it first"


def _codes(quantizer: Quantizer, target: Target) -> Iterator[Fact]:
    node = quantizer.node
    if quantizer.zero_type == TensorProto.INT32:
        yield "int32-bias", node.name, "int32 codes are not taken; leave the bias in float"
        return
    if quantizer.zero_type in FLOAT8:
        if not target.is_typed:
            yield "float8", node.name, "float8 needs a strongly typed network"
        return
    if quantizer.zero_type != TensorProto.INT8:
        yield "uint8", node.name, "unsigned codes are not taken; quantize symmetrically to int8"
    if quantizer.zero is not None and quantizer.zero.any():
        yield "zero-point", node.name, "the zero point is not 0; quantize symmetrically"


def _scales(graph: QdqGraph, quantizer: Quantizer) -> Iterator[Fact]:
    node = quantizer.node
    if quantizer.scale is None:
        yield "dynamic-scale", node.name, "its scale is not a constant"
        return
    if not (quantizer.scale > 0).all():
        yield "scale", node.name, "a scale is not positive"
    if quantizer.axis is not None and not quantizer.is_weight:
        yield "per-channel", node.name, "activations are quantized per channel; only weights may be"
    if quantizer.scale_type == TensorProto.FLOAT16 and graph.opset < HALF_SCALE_OPSET:
        yield (
            "fp16-scale",
            node.name,
            f"FP16 scales need opset {HALF_SCALE_OPSET}, found {graph.opset}; use the fp32 flavour or raise the opset",
        )


def _weights(graph: QdqGraph, target: Target) -> Iterator[Fact]:
    for layer in graph.layers:
        dequantize = graph.maker(layer.node.input[1])
        if not layer.has_int8_weight or dequantize is None:
            continue
        quantizer = next(item for item in graph.quantizers if item.node is dequantize)
        if quantizer.axis is not None and quantizer.axis != layer.axis:
            yield (
                "weight-axis",
                layer.node.name,
                f"its weight is quantized along axis {quantizer.axis}, {layer.op} needs axis {layer.axis}",
            )
        stored = dequantize.input[0] in graph.index.constants
        if stored and not target.takes_codes:
            yield (
                "stored-codes",
                layer.node.name,
                "its weight is stored as codes; float weights behind Q and DQ are wanted (flavour fp32)",
            )
