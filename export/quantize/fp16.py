"""Casts an ONNX model to FP16, its inputs and outputs unchanged; what FP16 is too coarse or narrow for stays FP32."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calib.collect import Step, TensorSource, observe
from calib.graph import MOVING_OPS, QUANTIZATION_OPS, WEIGHTED_OPS, GraphIndex, with_opset
from calib.ranges import RangeTable
from edge.errors import ModelError
from edge.types import Float32
from export.quantize.qdq import remove_unread_initialisers

MIN_TYPED_QDQ_OPSET = 19
FP16_MAX = 65504.0
HEADROOM = 2.0
FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
# no FP16 variant in the standard
FLOAT_ONLY_OPS = frozenset(
    {"NonMaxSuppression", "Range", "RandomUniform", "RandomNormal", "Multinomial", "If", "Loop", "Scan"}
)
# input slots that are FP32 whatever the data is
FLOAT_SLOTS = {"Resize": frozenset({1, 2}), "Upsample": frozenset({1})}


def decode_tensors(model: ModelProto) -> frozenset[str]:
    """Outputs of the nodes behind the last layers. FP16 has steps of half a pixel above 512, so boxes stay FP32."""
    index = GraphIndex(model)
    return frozenset(name for number in index.decode for name in index.nodes[number].output)


def overflowing_tensors(
    model: ModelProto, source: TensorSource, *, threads: int = 1, step: Step = lambda: None
) -> dict[str, float]:
    """Tensors that come within a factor of two of FP16's limit on these frames: name → largest magnitude."""
    index = GraphIndex(model)
    types = _types(model)
    names = [name for node in index.nodes for name in node.output if types.get(name) == FLOAT]
    seen = observe(model, source, names, threads=threads, step=step)
    peaks = {name: max(abs(stats.low), abs(stats.high)) for name, stats in seen.items() if stats.frames}
    return {name: peak for name, peak in peaks.items() if peak > FP16_MAX / HEADROOM}


def loud_tensors(index: GraphIndex, table: RangeTable) -> dict[str, float]:
    """As ``overflowing_tensors``, from the ranges of this float network instead of frames."""
    peaks: dict[str, float] = {}
    order: list[tuple[tuple[str, ...], str]] = [((), name) for name in index.inputs]
    order += [(tuple(node.input) if _moves(node) else (), name) for node in index.nodes for name in node.output]
    for sources, name in order:
        seen = table.tensors.get(index.roles.get(name, ""))
        # what is only moved was not measured
        moved = max((peaks.get(source, 0.0) for source in sources), default=0.0)
        peaks[name] = max(abs(seen.low), abs(seen.high)) if seen else moved
    return {name: peak for name, peak in peaks.items() if peak > FP16_MAX / HEADROOM}


def fp32_tensors(model: ModelProto, loud: Collection[str]) -> frozenset[str]:
    """What must stay FP32 so that loud tensors do not overflow: they, and all that is made of them.

    A node that reads one computes in FP32, because its input would not survive the cast; a Q node then has an FP32
    scale. A layer, the DQ of its input and the DQ of its weight keep one type, as strongly typed networks want it.

    Args:
        model: the float model, or its Q/DQ form with the same tensor names.
    """
    index = GraphIndex(model)
    # codes stand for the same large values again
    reached = set(loud) | {name for node in index.nodes if _is_loud_dq(index, node) for name in node.output}
    kept = set(reached)
    size = -1
    while size != len(kept):
        size = len(kept)
        for node in index.nodes:
            coded = _coded_inputs(index, node)
            if not reached.isdisjoint(node.input) or not kept.isdisjoint(coded):
                kept.update(node.output)
            if not kept.isdisjoint(node.output):
                kept.update(coded)
    return frozenset(kept)


def to_half(model: ModelProto, keep: Collection[str] = ()) -> ModelProto:
    """A copy that computes in FP16.

    Args:
        keep: tensors whose nodes stay FP32.

    Raises:
        ModelError: a weight does not fit FP16, a tensor's type is unknown, or the opset cannot be raised to 19, which
            FP16 scales of Q/DQ nodes need.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    if any(node.op_type in QUANTIZATION_OPS for node in copy.graph.node):
        copy = with_opset(copy, max(MIN_TYPED_QDQ_OPSET, GraphIndex(copy).opset), "the quantized model")
    return _Caster(copy, frozenset(keep)).run()


class _Caster:
    """Rewrites one model in place."""

    def __init__(self, model: ModelProto, keep: frozenset[str]) -> None:
        self._model = model
        self._index = GraphIndex(model)
        self._keep = keep
        self._types = _types(model)
        self._made: dict[str, int] = {}
        self._nodes: list[NodeProto] = []
        self._casts: dict[tuple[str, int], str] = {}
        self._halves: dict[str, TensorProto] = {}

    def run(self) -> ModelProto:
        graph = self._model.graph
        for node in self._index.nodes:
            self._rewrite(node)
        self._restore_outputs()
        nodes = [_copied(node) for node in self._nodes]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.initializer.extend(self._halves.values())
        remove_unread_initialisers(self._model)
        return self._model

    def _rewrite(self, node: NodeProto) -> None:
        is_half = node.op_type not in FLOAT_ONLY_OPS and not any(name in self._keep for name in node.output)
        slots = FLOAT_SLOTS.get(node.op_type, frozenset())
        for slot, name in enumerate(node.input):
            if not name or not self._is_real(name):
                continue
            node.input[slot] = self._as(name, HALF if is_half and slot not in slots else FLOAT)
        if is_half:
            _retype_attributes(node)
        for name in node.output:
            if name and self._type_of(name) == FLOAT:
                self._made[name] = HALF if is_half else FLOAT
        self._nodes.append(node)

    def _is_real(self, name: str) -> bool:
        return name in self._made or self._type_of(name) == FLOAT

    def _type_of(self, name: str) -> int:
        if name in self._index.constants:
            return int(self._index.constants[name].data_type)
        if name not in self._types:
            raise ModelError(f"the type of tensor {name!r} cannot be inferred; simplify the model before casting it")
        return self._types[name]

    def _as(self, name: str, wanted: int) -> str:
        """The tensor in this type, through a Cast where it is made in the other."""
        if name in self._index.constants:
            return self._constant(name) if wanted == HALF else name
        if self._made.get(name, FLOAT) == wanted:
            return name
        if (name, wanted) not in self._casts:
            cast = f"{name}_as_{'fp16' if wanted == HALF else 'fp32'}"
            self._nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=wanted))
            self._casts[name, wanted] = cast
        return self._casts[name, wanted]

    def _constant(self, name: str) -> str:
        half = f"{name}_fp16"
        if half not in self._halves:
            values: Float32 = self._index.constant(name)
            if values.size and float(np.abs(values).max()) > FP16_MAX and np.isfinite(values).all():
                raise ModelError(f"weight {name!r} has values beyond FP16's {FP16_MAX:.0f}; keep its layer in FP32")
            self._halves[half] = numpy_helper.from_array(values.astype(np.float16), half)
        return half

    def _restore_outputs(self) -> None:
        """Outputs keep name and type: a Cast in front of those that are made in FP16."""
        for name in self._index.outputs:
            if self._made.get(name) != HALF:
                continue
            inner = f"{name}_inner"
            for node in self._nodes:
                _rename(node, name, inner)
            self._nodes.append(helper.make_node("Cast", [inner], [name], name=f"{name}_as_fp32", to=FLOAT))


def _rename(node: NodeProto, old: str, new: str) -> None:
    for names in (node.input, node.output):
        for slot, name in enumerate(names):
            if name == old:
                names[slot] = new


def _retype_attributes(node: NodeProto) -> None:
    """Casts to float and constants made of float become half."""
    for item in node.attribute:
        if node.op_type == "Cast" and item.name == "to" and item.i == FLOAT:
            item.i = HALF
        if (
            node.op_type in {"RandomNormalLike", "RandomUniformLike", "EyeLike"}
            and item.name == "dtype"
            and item.i == FLOAT
        ):
            item.i = HALF
        if node.op_type == "ConstantOfShape" and item.name == "value" and item.t.data_type == FLOAT:
            item.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item.t).astype(np.float16)))


def _moves(node: NodeProto) -> bool:
    return node.op_type in MOVING_OPS or node.op_type == "Gather"


def _is_loud_dq(index: GraphIndex, node: NodeProto) -> bool:
    if node.op_type != "DequantizeLinear" or any(name not in index.constants for name in node.input[1:3]):
        return False
    zero_type = int(index.constants[node.input[2]].data_type) if len(node.input) > 2 else 0
    peak = (128.0 if zero_type == TensorProto.INT8 else 255.0) * float(np.max(index.constant(node.input[1])))
    return peak > FP16_MAX / HEADROOM


def _coded_inputs(index: GraphIndex, node: NodeProto) -> list[str]:
    """The inputs of a layer that DQ nodes make."""
    if node.op_type not in WEIGHTED_OPS:
        return []
    made = {name: index.nodes[index.producer[name]].op_type for name in node.input[:2] if name in index.producer}
    return [name for name, op in made.items() if op == "DequantizeLinear"]


def _types(model: ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    found: dict[str, int] = defaultdict(int)
    for item in [*graph.value_info, *graph.input, *graph.output]:
        found[item.name] = int(item.type.tensor_type.elem_type)
    return dict(found)


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
