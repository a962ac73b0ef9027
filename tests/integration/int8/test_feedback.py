"""Networks that show a decoded map and compute on with it: coarse scores that weigh the next stage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from calib.collect import TensorSource, observe, observed_tensors
from calib.graph import GraphIndex
from calib.ranges import RangeTable, make_table
from calib.sensitivity import outputs_of, snr_db
from edge.models.manifest import InputSpec
from export.quantize.fp16 import decode_tensors, to_half
from export.quantize.qdq import insert_qdq, scheme_for


@pytest.fixture(scope="module")
def staged(make_net: Callable[[], ModelProto]) -> ModelProto:
    """The tiny network, whose output ``scores`` is also read by a second stage with the output ``fine``."""
    model = make_net()
    rng = np.random.default_rng(3)
    for name, shape in (("second", (8, 4, 3, 3)), ("last", (4, 8, 1, 1))):
        weight = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, f"{name}.weight"))
    model.graph.node.extend(
        [
            helper.make_node("Conv", ["scores", "second.weight"], ["second_out"], kernel_shape=[3, 3], pads=[1] * 4),
            helper.make_node("Relu", ["second_out"], ["second_act"]),
            helper.make_node("Conv", ["second_act", "last.weight"], ["last_out"], kernel_shape=[1, 1]),
            helper.make_node("Sigmoid", ["last_out"], ["fine"]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("fine", TensorProto.FLOAT, ["N", 4, 16, 16]))
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="module")
def staged_table(staged: ModelProto, source: TensorSource, spec: InputSpec) -> RangeTable:
    return make_table(GraphIndex(staged), observe(staged, source), spec, ["a"], model="staged.onnx")


def test_what_a_layer_reads_is_measured_though_it_is_an_output(staged: ModelProto) -> None:
    index = GraphIndex(staged)
    assert "scores" in observed_tensors(index)
    assert index.terminal == {"head.weight", "last.weight"}
    assert [index.nodes[place].output[0] for place in index.tail] == ["fine"]


@pytest.mark.parametrize("flavour", ["fp32", "fp16", "cpu"])
def test_every_flavour_quantizes_the_second_stage(
    staged: ModelProto, staged_table: RangeTable, source: TensorSource, flavour: str
) -> None:
    quantized = insert_qdq(staged, staged_table, scheme_for(flavour, "average"))  # type: ignore[arg-type]
    conv = next(node for node in quantized.graph.node if "second_out" in node.output)
    assert list(conv.input[:2]) == ["scores_dq", "second.weight_dq"]
    if flavour == "fp16":
        quantized = to_half(quantized, decode_tensors(staged))
    onnx.checker.check_model(quantized, full_check=True)
    names = ["scores", "fine"]
    assert snr_db(outputs_of(staged, names, source), outputs_of(quantized, names, source)) > 15


def test_shown_values_stay_fp32_in_fp16_files_although_a_layer_reads_them(staged: ModelProto) -> None:
    assert decode_tensors(staged) == {"scores", "fine"}
