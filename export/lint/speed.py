"""Rules that decide whether an accepted Q/DQ model will be fast in TensorRT."""

from __future__ import annotations

from collections.abc import Iterator

from calib.graph import attribute
from export.lint.graph import QdqGraph, Weighted
from export.lint.targets import Target

Fact = tuple[str, str, str]
ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSwish", "HardSigmoid", "Mul", "Elu", "Mish", "Tanh"}
)
NEVER_QUANTIZED = frozenset({"Sigmoid", "Softmax", "Exp", "Log", "Tanh", "Erf"})
MIN_CHANNELS = 16


def speed_findings(graph: QdqGraph, target: Target) -> Iterator[Fact]:
    """(rule, node, message) for everything that will cost time; rules ending in ``-note`` may or may not."""
    if not graph.quantizers:
        yield "no-qdq", "", "there are no Q/DQ nodes; nothing runs in INT8"
        return
    yield from _halves(graph, target)
    for layer in graph.layers:
        yield from _half_quantized(layer)
        yield from _thin(graph, layer)
    yield from _cut_fusions(graph)
    yield from _float_functions(graph)
    yield from _concats(graph)


def _halves(graph: QdqGraph, target: Target) -> Iterator[Fact]:
    if target.is_typed and not graph.is_typed_half:
        yield (
            "fp32-rest",
            "",
            "the layers outside INT8 run in FP32, because types come from the graph alone; "
            "quantize with --flavour fp16",
        )


def _half_quantized(layer: Weighted) -> Iterator[Fact]:
    if layer.has_int8_input != layer.has_int8_weight:
        side = "weight" if layer.has_int8_input else "input"
        yield "one-side", layer.node.name, f"its {side} is not quantized, so it runs in float and pays for the Q/DQ"


def _thin(graph: QdqGraph, layer: Weighted) -> Iterator[Fact]:
    if layer.op not in {"Conv", "ConvTranspose"} or not layer.has_int8_weight:
        return
    shape = tuple(graph.index.constants[layer.weight].dims)
    groups = attribute(layer.node, "group", 1)
    if groups > 1 and shape[1] == 1:
        yield "depthwise-note", layer.node.name, "depthwise in INT8 is not always faster than FP16; compare both"
    elif groups > 1:
        yield "grouped-note", layer.node.name, f"{groups} groups in INT8 have few kernels; compare with FP16"
    elif min(shape[0], shape[1]) < MIN_CHANNELS and shape[1] != 3:
        yield "thin-note", layer.node.name, f"{shape[1]} → {shape[0]} channels fill an INT8 kernel poorly"


def _cut_fusions(graph: QdqGraph) -> Iterator[Fact]:
    """A Q between a layer and its activation keeps the two from becoming one kernel."""
    for layer in graph.layers:
        for reader in graph.readers(layer.node.output[0]):
            if reader.op_type != "QuantizeLinear":
                continue
            behind = [node for real in graph.readers(reader.output[0]) for node in graph.readers(real.output[0])]
            if any(node.op_type in ACTIVATIONS for node in behind):
                yield "cut-fusion", layer.node.name, "Q/DQ stands between it and its activation; put it behind"


def _float_functions(graph: QdqGraph) -> Iterator[Fact]:
    for node in graph.nodes:
        if node.op_type not in NEVER_QUANTIZED:
            continue
        source = graph.maker(node.input[0])
        if source is not None and source.op_type == "DequantizeLinear":
            yield "float-function", node.name, f"{node.op_type} has no INT8 kernel; the Q/DQ before it only rounds"


def _concats(graph: QdqGraph) -> Iterator[Fact]:
    by_node = {id(item.node): item for item in graph.quantizers}
    for node in graph.nodes:
        if node.op_type != "Concat":
            continue
        makers = [graph.maker(name) for name in node.input]
        scales = [by_node[id(made)].scale for made in makers if made is not None and id(made) in by_node]
        known = {float(scale.reshape(-1)[0]) for scale in scales if scale is not None and scale.size == 1}
        if len(scales) == len(makers) and len(known) > 1:
            yield "concat-scales", node.name, f"its inputs have {len(known)} scales; each costs a requantization"
