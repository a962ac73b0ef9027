"""A Q/DQ graph as the linter sees it: parameters of each Q and DQ, and layers behind them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from calib.graph import QUANTIZATION_OPS, WEIGHTED_OPS, GraphIndex, attribute, channel_axis, hoist_constants
from edge.types import Array


@dataclass(frozen=True, slots=True)
class Quantizer:
    """One Q or DQ node.

    Attributes:
        scale, zero: parameters, None where they are not constant.
        zero_type: ONNX element type of the codes.
        is_weight: it works on a constant.
        axis: of a per-channel scale, None for one scale.
    """

    node: NodeProto
    scale: Array | None
    zero: Array | None
    zero_type: int
    scale_type: int
    is_weight: bool
    axis: int | None


@dataclass(frozen=True, slots=True)
class Weighted:
    """A convolution or matrix product. ``axis``: the channel axis that its weight must be quantized along."""

    key: str
    op: str
    node: NodeProto
    has_int8_input: bool
    has_int8_weight: bool
    weight: str
    axis: int


class QdqGraph:
    """Look-ups for the rules. Works on a copy."""

    def __init__(self, model: ModelProto) -> None:
        copy = ModelProto()
        copy.CopyFrom(model)
        hoist_constants(copy)
        self.index = GraphIndex(copy)
        self.opset = self.index.opset
        self.nodes = self.index.nodes

    def maker(self, name: str) -> NodeProto | None:
        """The node that makes a tensor."""
        place = self.index.producer.get(name)
        return None if place is None else self.nodes[place]

    def readers(self, name: str) -> list[NodeProto]:
        return [self.nodes[place] for place, _ in self.index.readers[name]]

    @cached_property
    def quantizers(self) -> list[Quantizer]:
        return [self._quantizer(node) for node in self.nodes if node.op_type in QUANTIZATION_OPS]

    def _quantizer(self, node: NodeProto) -> Quantizer:
        constants = self.index.constants
        scale = self.index.constant(node.input[1]) if node.input[1] in constants else None
        has_zero = len(node.input) > 2 and node.input[2] in constants
        zero_name = node.input[2] if has_zero else ""
        zero_type = int(constants[zero_name].data_type) if has_zero else self._code_type(node)
        axis = attribute(node, "axis", 1) if scale is not None and scale.size > 1 else None
        return Quantizer(
            node,
            scale,
            _zero_values(constants[zero_name]) if has_zero else None,
            zero_type,
            int(constants[node.input[1]].data_type) if scale is not None else 0,
            self.is_from_constant(node.input[0]),
            axis,
        )

    def _code_type(self, node: NodeProto) -> int:
        """Element type of the codes of a node without a zero point."""
        if node.op_type == "QuantizeLinear":
            return int(attribute(node, "output_dtype", 0)) or int(TensorProto.UINT8)
        # output_dtype of a DQ node (opset 23) is the type of the real values
        maker = self.maker(node.input[0])
        if maker is not None and maker.op_type == "QuantizeLinear":
            return self._quantizer(maker).zero_type
        return self.types.get(node.input[0], int(TensorProto.UINT8))

    def is_from_constant(self, name: str) -> bool:
        """Whether a tensor is a constant, seen through Q."""
        node = self.maker(name)
        if node is not None and node.op_type == "QuantizeLinear":
            name = node.input[0]
        return name in self.index.constants

    @cached_property
    def layers(self) -> list[Weighted]:
        found = []
        for node in self.nodes:
            if node.op_type not in WEIGHTED_OPS or len(node.input) < 2:
                continue
            weight, is_quantized = self._weight_of(node)
            if not weight:
                continue
            source = self.maker(node.input[0])
            has_input = source is not None and source.op_type == "DequantizeLinear"
            found.append(Weighted(weight, node.op_type, node, has_input, is_quantized, weight, channel_axis(node)))
        return found

    def _weight_of(self, node: NodeProto) -> tuple[str, bool]:
        """Name of the constant behind a layer's weight ("" where it is computed), and whether it is quantized."""
        name = node.input[1]
        is_quantized = False
        while (made := self.maker(name)) is not None and made.op_type in QUANTIZATION_OPS:
            is_quantized, name = True, made.input[0]
        if name not in self.index.constants:
            return "", False
        return name, is_quantized

    @cached_property
    def types(self) -> dict[str, int]:
        """Element types by tensor, as far as they can be inferred."""
        graph = onnx.shape_inference.infer_shapes(self.index.model).graph
        values = [*graph.value_info, *graph.input, *graph.output]
        found = {item.name: int(item.type.tensor_type.elem_type) for item in values}
        return found | {name: int(item.data_type) for name, item in self.index.constants.items()}

    def is_half(self, layer: Weighted) -> bool:
        return bool(self.types.get(layer.node.output[0]) == TensorProto.FLOAT16)

    @property
    def is_typed_half(self) -> bool:
        """Whether any layer computes in FP16."""
        return any(self.types.get(name) == TensorProto.FLOAT16 for node in self.nodes for name in node.output)


def _zero_values(tensor: TensorProto) -> Array | None:
    values: Array = np.asarray(onnx.numpy_helper.to_array(tensor))
    return values.astype(np.float32)
