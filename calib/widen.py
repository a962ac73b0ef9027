"""A float16 network in float32, from which calibration and Q/DQ start: layers that stay float are exact."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)


def widen_halves(model: ModelProto) -> None:
    """Turn float16 into float32, in place; inputs and outputs keep their type, with a Cast behind or before them."""
    graph = model.graph
    if not any(tensor.data_type == HALF for tensor in graph.initializer):
        return
    for tensor in graph.initializer:
        _widen(tensor)
    for node in graph.node:
        for entry in node.attribute:
            if node.op_type == "Cast" and entry.name == "to" and entry.i == HALF:
                entry.i = FLOAT
            elif entry.HasField("t"):
                _widen(entry.t)
    # what is known of inner tensors speaks of halves
    del graph.value_info[:]
    before = [_cast_input(model, item.name) for item in graph.input if item.type.tensor_type.elem_type == HALF]
    after = [_cast_output(model, item.name) for item in graph.output if item.type.tensor_type.elem_type == HALF]
    nodes = [*before, *graph.node, *after]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == HALF:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _cast_input(model: ModelProto, name: str) -> NodeProto:
    for node in model.graph.node:
        for slot, source in enumerate(node.input):
            if source == name:
                node.input[slot] = f"{name}_wide"
    return helper.make_node("Cast", [name], [f"{name}_wide"], name=f"{name}_widen", to=FLOAT)


def _cast_output(model: ModelProto, name: str) -> NodeProto:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for slot, tensor in enumerate(names):
                if tensor == name:
                    names[slot] = f"{name}_wide"
    return helper.make_node("Cast", [f"{name}_wide"], [name], name=f"{name}_narrow", to=HALF)


def sort_nodes(model: ModelProto) -> None:
    """Bring the nodes into an order in which they can run, in place: some converters append theirs at the end."""
    graph = model.graph
    makers = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    needs = {
        number: [makers[name] for name in _read_by(node) if name in makers] for number, node in enumerate(graph.node)
    }
    if all(other < number for number, others in needs.items() for other in others):
        return
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError:
        # a damaged file, which no engine takes
        return
    kept = [NodeProto.FromString(graph.node[number].SerializeToString()) for number in order]
    del graph.node[:]
    graph.node.extend(kept)


def _read_by(node: NodeProto) -> list[str]:
    """All that a node reads, in its subgraphs too."""
    inner = [entry.g for entry in node.attribute if entry.HasField("g")]
    return [*node.input, *(name for graph in inner for one in graph.node for name in _read_by(one))]
