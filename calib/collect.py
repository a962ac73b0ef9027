"""Runs a float model over calibration frames and observes its inner tensors, a bounded group of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import ModelProto, helper

from calib.graph import MOVING_OPS, GraphIndex
from calib.observers import TensorObserver
from edge.addresses.printable import first_line
from edge.engines.ort_providers import session_options
from edge.errors import ModelError
from edge.types import Array

GROUP_BYTES = 256 << 20
UNKNOWN_BYTES = 16 << 20
Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class TensorSource:
    """Calibration inputs that can be read again. ``tensors()`` gives (1, …) arrays, one per frame."""

    tensors: Callable[[], Iterable[Array]]
    count: int


def observed_tensors(index: GraphIndex) -> list[str]:
    """The float tensors between the input and the last layers, in the order in which they are made."""
    sources = {name for layer in index.layers for name in (layer.source, _origin(index, layer.source))}
    names = [name for name in index.inputs if index.readers[name]]
    for place, node in enumerate(index.nodes):
        if place in index.tail:
            continue
        for name in node.output:
            if name in sources or _is_worth_observing(index, place, name):
                names.append(name)
    types = _element_types(index.model)
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    return [name for name in names if types.get(name, onnx.TensorProto.FLOAT) in floats or name in index.inputs]


def _origin(index: GraphIndex, name: str) -> str:
    """Where the values of a layer's source come from, when they were moved only: their range is measured there."""
    while name in index.producer and (node := index.nodes[index.producer[name]]).op_type in MOVING_OPS - {"MaxPool"}:
        name = node.input[0]
    return name


def _is_worth_observing(index: GraphIndex, place: int, name: str) -> bool:
    node = index.nodes[place]
    if not name or node.op_type in MOVING_OPS - {"MaxPool"} or node.op_type in {"Shape", "Gather", "Constant"}:
        return False
    return bool(index.readers[name]) or name in index.outputs


def observe(
    model: ModelProto,
    source: TensorSource,
    tensors: Sequence[str] | None = None,
    *,
    threads: int = 1,
    step: Step = lambda: None,
) -> dict[str, TensorObserver]:
    """Run the model over all frames and observe its tensors.

    Memory is bounded: tensors are split into groups of about 256 MiB per frame, one pass over the frames each.

    Args:
        model: a float model with one input.
        source: the frames, as the model's input tensors.
        tensors: which; None takes those that quantization may need.
        step: called after every frame of every group.

    Returns:
        Tensor name → statistics.

    Raises:
        ModelError: ONNX Runtime cannot run it, or a layer's tensor does not depend on the frames.
    """
    index = GraphIndex(model)
    names = list(tensors) if tensors is not None else observed_tensors(index)
    observers = {name: TensorObserver() for name in names}
    for group in groups_of(model, names):
        session = open_session(with_outputs(model, group), threads=threads)
        fetched = [name for name in group if name not in index.inputs]
        for tensor in source.tensors():
            values = session.run(fetched, {index.inputs[0]: tensor}) if fetched else []
            for name, value in zip(fetched, values, strict=True):
                observers[name].observe(value)
            for name in set(group) & set(index.inputs):
                observers[name].observe(tensor)
            step()
    return observers


def groups_of(model: ModelProto, names: Sequence[str]) -> list[list[str]]:
    """Split tensors into groups that fit in memory together."""
    sizes = _sizes(model)
    groups: list[list[str]] = [[]]
    room = GROUP_BYTES
    for name in names:
        size = sizes.get(name, UNKNOWN_BYTES)
        if size > room and groups[-1]:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(name)
        room -= size
    return [group for group in groups if group]


def with_outputs(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """A copy of the model that also gives these tensors."""
    copy = ModelProto()
    copy.CopyFrom(model)
    present = {item.name for item in copy.graph.output} | {item.name for item in copy.graph.input}
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    return copy


def open_session(model: ModelProto, *, threads: int = 1, optimize: bool = True) -> Any:
    """An ONNX Runtime CPU session of a model in memory.

    Raises:
        ModelError: ONNX Runtime refuses it.
    """
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    options = session_options(threads)
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except (failures.Fail, failures.InvalidGraph, failures.InvalidArgument, failures.NotImplemented) as error:
        raise ModelError(f"ONNX Runtime refuses the model ({first_line(error)})") from None


def _inferred(model: ModelProto) -> ModelProto:
    return onnx.shape_inference.infer_shapes(model)


def _element_types(model: ModelProto) -> dict[str, int]:
    graph = _inferred(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {item.name: int(item.type.tensor_type.elem_type) for item in values}


def _sizes(model: ModelProto) -> dict[str, int]:
    """Bytes of one frame's float32 tensors, where the shapes are known; a dynamic batch counts as 1."""
    found = {}
    for item in _inferred(model).graph.value_info:
        size = 4
        for place, dim in enumerate(item.type.tensor_type.shape.dim):
            size *= dim.dim_value or (1 if place == 0 else 64)
        found[item.name] = size
    return found
