"""A YOLOX in small as an ONNX file, built node by node: slices, depthwise kernels, SiLU, pools, joins, kept head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 96


class Builder:
    """Collects nodes and weights."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(seed)

    def constant(self, values: Sequence[int] | np.ndarray, dtype: type[np.generic] = np.int64) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, gain: float = 1.0
    ) -> str:
        """A bare convolution with random weights."""
        shape = (outputs, inputs // groups, kernel, kernel)
        weight = gain * self._rng.normal(0, (2 * groups / (inputs * kernel**2)) ** 0.5, shape)
        offset = self._rng.normal(0, 0.3, outputs)
        parts = [x, self.constant(weight, np.float32), self.constant(offset, np.float32)]
        return self.node(
            "Conv", parts, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4, group=groups
        )

    def silu(self, x: str) -> str:
        return self.node("Mul", [x, self.node("Sigmoid", [x])])

    def unit(self, x: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> str:
        return self.silu(self.conv(x, inputs, outputs, kernel, stride, groups))

    def focus(self, x: str) -> str:
        """Every second pixel of each row and column as channels."""
        parts = []
        for column in (0, 1):
            for row in (0, 1):
                rows = self._strided(x, 2, row)
                parts.append(self._strided(rows, 3, column))
        return self.node("Concat", parts, axis=1)

    def _strided(self, x: str, axis: int, start: int) -> str:
        bounds = [self.constant([value]) for value in (start, 2**31 - 1, axis, 2)]
        return self.node("Slice", [x, *bounds])


def write_tiny_yolox(path: Path, num_classes: int, seed: int = 1) -> Path:
    """Write the file; 96x96 pictures, levels at the strides 8, 16 and 32."""
    made = Builder(seed)
    # grey levels become numbers near 1, where SiLU is bent
    x = made.silu(made.conv(made.focus("images"), 12, 8, 3, gain=0.01))
    x = made.unit(made.unit(x, 8, 8, 3, 2, groups=8), 8, 16)
    c8 = made.unit(x, 16, 16, 3, 2)
    c16 = made.unit(made.unit(c8, 16, 16, 3, 2, groups=16), 16, 24)
    c32 = made.unit(c16, 24, 32, 3, 2)
    pools = [made.node("MaxPool", [c32], kernel_shape=[size] * 2, pads=[size // 2] * 4) for size in (3, 5)]
    c32 = made.unit(made.node("Concat", [c32, *pools], axis=1), 96, 24)
    c32 = made.node("Add", [c32, made.unit(c32, 24, 24, 3)])
    scales = made.constant([1, 1, 2, 2], np.float32)
    up = made.node(
        "Resize", [c32, "", scales], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    c16 = made.unit(made.node("Concat", [up, c16], axis=1), 48, 24)
    rows = [_level(made, level, width, num_classes) for level, width in ((c8, 16), (c16, 24), (c32, 24))]
    made.nodes.append(helper.make_node("Transpose", [made.node("Concat", rows, axis=2)], ["output"], perm=[0, 2, 1]))
    picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    count = sum((SIDE // stride) ** 2 for stride in (8, 16, 32))
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, count, 5 + num_classes])
    graph = helper.make_graph(made.nodes, "tiny", [picture], [output], made.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def _level(made: Builder, x: str, width: int, num_classes: int) -> str:
    """Rows (1, 5 + C, cells) of one level."""
    stem = made.unit(x, width, 16)
    class_tower, box_tower = made.unit(stem, 16, 16, 3, groups=16), made.unit(stem, 16, 16, 3, groups=16)
    classes = made.node("Sigmoid", [made.conv(class_tower, 16, num_classes)])
    objectness = made.node("Sigmoid", [made.conv(box_tower, 16, 1)])
    whole = made.node("Concat", [made.conv(box_tower, 16, 4, gain=0.05), objectness, classes], axis=1)
    return made.node("Reshape", [whole, made.constant([1, 5 + num_classes, -1])])
