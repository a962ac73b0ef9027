"""Nodes of an ONNX file that decide whether TensorRT can build it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

INTEGER_OPS = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})


def first_of_kind(path: Path, kind: str) -> str:
    """Name of the first node of a kind that is in the file; of its output where it has no name."""
    found = next(node for node in _load(path).graph.node if node.op_type == kind)
    return str(found.name or found.output[0])


def cpu_quantized_node(path: Path) -> str | None:
    """A node that only CPUs run: uint8 or int32 codes, a zero point, integer operators; None where there is none.

    TensorRT takes symmetric int8 with float biases only.
    """
    from onnx import TensorProto, numpy_helper

    graph = _load(path).graph
    constants = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type in INTEGER_OPS:
            return str(node.name or node.output[0])
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        coded = [constants[name] for name in (node.input[0], *node.input[2:3]) if name in constants]
        if any(item.data_type in (TensorProto.UINT8, TensorProto.INT32) for item in coded):
            return str(node.name or node.output[0])
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is not None and zero.data_type == TensorProto.INT8 and numpy_helper.to_array(zero).any():
            return str(node.name or node.output[0])
    return None


def _load(path: Path) -> Any:
    import onnx

    return onnx.load(str(path), load_external_data=False)
