"""A network small enough for every test, with what quantization must understand: bytes in, a skip, a pool, a concat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calib.collect import TensorSource, observe
from calib.graph import GraphIndex
from calib.ranges import RangeTable, make_table
from edge.models.manifest import InputSpec

SIZE = 32
MakeNet = Callable[..., ModelProto]


class NetBuilder:
    """Adds nodes and random weights."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(self, source: str, name: str, channels: tuple[int, int], *, kernel: int = 3, stride: int = 1) -> str:
        before, after = channels
        scale = np.sqrt(2 / (before * kernel * kernel)) / (100 if source == "picture" else 1)
        weight = self.rng.standard_normal((after, before, kernel, kernel)) * scale
        self.weights.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight"))
        bias = self.rng.standard_normal(after) * 0.1
        self.weights.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}.bias"))
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        pads, strides = [kernel // 2] * 4, [stride] * 2
        return self.add("Conv", inputs, f"{name}_out", kernel_shape=[kernel] * 2, pads=pads, strides=strides)


@pytest.fixture(scope="session")
def make_net() -> MakeNet:
    """``make_net(opset=17, activation="Relu", seed=0)``: uint8 [N,32,32,3] in, scores [N,4,16,16] out."""

    def make(opset: int = 17, activation: str = "Relu", seed: int = 0) -> ModelProto:
        net = NetBuilder(seed)
        real = net.add("Cast", ["frames"], "real", to=TensorProto.FLOAT)
        picture = net.add("Transpose", [real], "picture", perm=[0, 3, 1, 2])
        stem = net.add(activation, [net.conv(picture, "stem", (3, 16), stride=2)], "stem_act")
        body = net.conv(stem, "body", (16, 16))
        joined = net.add(activation, [net.add("Add", [stem, body], "sum")], "sum_act")
        pooled = net.add("MaxPool", [joined], "pooled", kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
        both = net.add("Concat", [pooled, joined], "both", axis=1)
        neck = net.add(activation, [net.conv(both, "neck", (32, 16), kernel=1)], "neck_act")
        net.add("Sigmoid", [net.conv(neck, "head", (16, 4), kernel=1)], "scores")
        graph = helper.make_graph(
            net.nodes,
            "tiny",
            [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", SIZE, SIZE, 3])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4, SIZE // 2, SIZE // 2])],
            net.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model

    return make


@pytest.fixture(scope="session")
def pictures() -> list[NDArray[np.uint8]]:
    """Eight smooth random pictures, (1, 32, 32, 3) uint8 each."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (8, 1, 4, 4, 3), dtype=np.uint8)
    return [np.kron(grid, np.ones((1, 8, 8, 1), np.uint8)) for grid in coarse]


@pytest.fixture(scope="session")
def source(pictures: list[NDArray[np.uint8]]) -> TensorSource:
    return TensorSource(lambda: iter(pictures), len(pictures))


@pytest.fixture(scope="session")
def spec() -> InputSpec:
    return InputSpec(name="frames", width=SIZE, height=SIZE, layout="nhwc", dtype="uint8", colour="bgr")


@pytest.fixture(scope="session")
def model(make_net: MakeNet) -> ModelProto:
    return make_net()


@pytest.fixture(scope="session")
def table(model: ModelProto, source: TensorSource, spec: InputSpec) -> RangeTable:
    """Ranges of ``model`` on ``pictures``."""
    frame_ids = [str(number) for number in range(source.count)]
    return make_table(GraphIndex(model), observe(model, source), spec, frame_ids, model="tiny.onnx")
