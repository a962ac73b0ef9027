"""The FP16 form keeps inputs, outputs and answers, and leaves in FP32 what must stay there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from calib.collect import TensorSource, observe, open_session
from calib.graph import GraphIndex
from calib.ranges import RangeTable, make_table
from edge.errors import ModelError
from edge.models.manifest import InputSpec
from export.quantize.exact_engine import ExactEngine
from export.quantize.fp16 import HALF, decode_tensors, fp32_tensors, loud_tensors, overflowing_tensors, to_half
from export.quantize.qdq import insert_qdq, scheme_for


def answers(model: ModelProto, source: TensorSource) -> list[np.ndarray]:  # type: ignore[type-arg]
    session = open_session(model)
    return [session.run(None, {"frames": tensor})[0] for tensor in source.tensors()]


def types(model: ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {item.name: item.type.tensor_type.elem_type for item in [*graph.value_info, *graph.output, *graph.input]}


@pytest.mark.parametrize("keeps_decode", [True, False])
def test_answers_stay_the_same(model: ModelProto, source: TensorSource, keeps_decode: bool) -> None:
    half = to_half(model, decode_tensors(model) if keeps_decode else ())
    onnx.checker.check_model(half, full_check=True)
    np.testing.assert_allclose(answers(half, source), answers(model, source), atol=3e-3)


def test_layers_are_half_and_the_interface_is_not(model: ModelProto) -> None:
    found = types(to_half(model, decode_tensors(model)))
    assert found["body_out"] == found["picture"] == TensorProto.FLOAT16
    assert found["scores"] == TensorProto.FLOAT
    assert found["frames"] == TensorProto.UINT8


def test_a_cast_to_float_inside_becomes_a_cast_to_half(model: ModelProto) -> None:
    half = to_half(model)
    cast = next(node for node in half.graph.node if node.output[0] == "real")
    assert cast.attribute[0].i == TensorProto.FLOAT16


def test_typed_qdq_has_half_scales_at_opset_19(model: ModelProto, table: RangeTable, source: TensorSource) -> None:
    quantized = insert_qdq(model, table, scheme_for("fp16", "average"))
    half = to_half(quantized, decode_tensors(model))
    onnx.checker.check_model(half, full_check=True)
    assert half.opset_import[0].version == 19
    scales = {node.input[1] for node in half.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}}
    by_name = {item.name: item.data_type for item in half.graph.initializer}
    assert {by_name[name] for name in scales} == {TensorProto.FLOAT16}
    np.testing.assert_allclose(answers(half, source), answers(quantized, source), atol=0.05)


def test_scales_too_small_for_fp16_do_not_become_zero(make_net, table: RangeTable) -> None:  # type: ignore[no-untyped-def]
    faint = make_net()
    weight = next(item for item in faint.graph.initializer if item.name == "body.weight")
    values = np.array(numpy_helper.to_array(weight))
    values[0], values[1] = 1e-9, 3e-5
    weight.CopyFrom(numpy_helper.from_array(values, "body.weight"))
    half = to_half(insert_qdq(faint, table, scheme_for("fp16", "average")))
    stored = {item.name: numpy_helper.to_array(item) for item in half.graph.initializer}
    scales = next(values for name, values in stored.items() if name.startswith("body.weight_dq_scale"))
    assert (scales > 0).all()
    codes = stored["body.weight_q"].astype(np.float64) * scales.astype(np.float64)[:, None, None, None]
    # coded with the scale that is stored, so its rounding costs nothing
    np.testing.assert_allclose(codes[1], values[1], rtol=0.01)


def test_named_tensors_stay_float(model: ModelProto) -> None:
    found = types(to_half(model, {"neck_out"}))
    assert found["neck_out"] == TensorProto.FLOAT
    assert found["body_out"] == TensorProto.FLOAT16


def test_tensors_near_the_limit_of_fp16_are_found(make_net, source: TensorSource) -> None:  # type: ignore[no-untyped-def]
    loud = make_net()
    weight = next(item for item in loud.graph.initializer if item.name == "body.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1e6, "body.weight"))
    found = overflowing_tensors(loud, source)
    assert {"body_out", "sum", "sum_act"} <= set(found)
    assert "stem_out" not in found
    assert overflowing_tensors(make_net(), source) == {}


@pytest.fixture(scope="module")
def loud(make_net) -> ModelProto:  # type: ignore[no-untyped-def]
    """The body is louder than FP16 can hold, neck and head read it as much more softly."""
    model = make_net()
    for name, factor in (("body", 1e5), ("neck", 5e-3), ("head", 2e-3)):
        weight = next(item for item in model.graph.initializer if item.name == f"{name}.weight")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), weight.name))
    return model


@pytest.fixture(scope="module")
def loud_table(loud: ModelProto, source: TensorSource, spec: InputSpec) -> RangeTable:
    return make_table(GraphIndex(loud), observe(loud, source), spec, ["a"], model="loud.onnx")


def typed(model: ModelProto, table: RangeTable) -> ModelProto:
    quantized = insert_qdq(model, table, scheme_for("fp16", "minmax"))
    peaks = loud_tensors(GraphIndex(model), table)
    return to_half(quantized, decode_tensors(model) | fp32_tensors(quantized, peaks))


def test_ranges_tell_which_tensors_are_loud(
    loud: ModelProto, loud_table: RangeTable, model: ModelProto, table: RangeTable, source: TensorSource
) -> None:
    found, expected = loud_tensors(GraphIndex(loud), loud_table), overflowing_tensors(loud, source)
    assert found.keys() == expected.keys() == {"body_out", "sum", "sum_act", "pooled", "both"}
    assert found == pytest.approx(expected)
    assert loud_tensors(GraphIndex(model), table) == {}


def test_a_loud_network_answers_in_fp16_as_in_fp32(loud: ModelProto, source: TensorSource) -> None:
    half = to_half(loud, decode_tensors(loud) | fp32_tensors(loud, overflowing_tensors(loud, source)))
    onnx.checker.check_model(half, full_check=True)
    assert types(half)["stem_out"] == TensorProto.FLOAT16
    np.testing.assert_allclose(answers(half, source), answers(loud, source), atol=3e-3)
    # ONNX Runtime leaves out casts to FP16 and back, TensorRT would compute them and get infinity
    cast = {node.input[0] for node in half.graph.node if node.op_type == "Cast" and node.attribute[0].i == HALF}
    assert cast.isdisjoint(overflowing_tensors(loud, source))


def test_a_loud_network_in_typed_int8_keeps_loud_tensors_and_their_scales_in_fp32(
    loud: ModelProto, loud_table: RangeTable, source: TensorSource
) -> None:
    half = typed(loud, loud_table)
    onnx.checker.check_model(half, full_check=True)
    found = types(half)
    assert found["both"] == found["body_out"] == found["neck_out"] == TensorProto.FLOAT
    assert found["stem_out"] == found["neck_act"] == TensorProto.FLOAT16
    index = GraphIndex(half)
    for layer in ("body_out", "neck_out"):
        node = index.nodes[index.producer[layer]]
        # nothing may stand between DQ and layer, and both sides have one type
        makers = [index.nodes[index.producer[name]] for name in node.input[:2]]
        assert [maker.op_type for maker in makers] == ["DequantizeLinear"] * 2
        assert {index.constants[maker.input[1]].data_type for maker in makers} == {TensorProto.FLOAT}
    plain = insert_qdq(loud, loud_table, scheme_for("fp32", "minmax"))
    np.testing.assert_allclose(answers(half, source), answers(plain, source), atol=0.05)


def test_a_scale_that_fp16_cannot_hold_stays_what_it_is(loud: ModelProto, loud_table: RangeTable) -> None:
    role = GraphIndex(loud).roles["both"]
    louder = loud_table.tensors[role].model_copy(update={"high": 1e8, "clip": {"minmax": (0.0, 1e8)}})
    half = typed(loud, loud_table.model_copy(update={"tensors": {**loud_table.tensors, role: louder}}))
    scale = next(numpy_helper.to_array(item) for item in half.graph.initializer if item.name == "both_scale")
    assert scale == pytest.approx(1e8 / 127)


@pytest.mark.engine
def test_tensorrt_takes_the_mix_of_fp32_and_fp16_scales(loud: ModelProto, loud_table: RangeTable) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    data = typed(loud, loud_table).SerializeToString()
    assert parser.parse(data), [parser.get_error(place).desc() for place in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("frames", (1, 32, 32, 3), (1, 32, 32, 3), (4, 32, 32, 3))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


def test_a_weight_beyond_fp16_is_refused(make_net) -> None:  # type: ignore[no-untyped-def]
    loud = make_net()
    weight = next(item for item in loud.graph.initializer if item.name == "body.weight")
    weight.CopyFrom(numpy_helper.from_array(np.full((16, 16, 3, 3), 1e5, np.float32), "body.weight"))
    with pytest.raises(ModelError, match=r"body\.weight"):
        to_half(loud)
    assert to_half(loud, {"body_out"})


def test_scales_of_resize_stay_float() -> None:
    info = helper.make_tensor_value_info
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")]
    graph = helper.make_graph(nodes, "g", [info("x", 1, [1, 1, 4, 4])], [info("y", 1, [1, 1, 8, 8])], [scales])
    half = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    onnx.checker.check_model(half, full_check=True)
    picture = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    assert open_session(half).run(None, {"x": picture})[0].shape == (1, 1, 8, 8)


def test_a_typed_file_is_judged_as_it_is_written(
    model: ModelProto, table: RangeTable, source: TensorSource, tmp_path: Path
) -> None:
    quantized = insert_qdq(model, table, scheme_for("fp16", "average"))
    onnx.save(to_half(quantized, decode_tensors(model)), tmp_path / "typed.onnx")
    engine = ExactEngine(tmp_path / "typed.onnx")
    plain = open_session(quantized, optimize=False)
    for tensor in source.tensors():
        difference = np.abs(engine.infer(tensor)["scores"] - plain.run(None, {"frames": tensor})[0])
        # a value on the edge between two codes may fall to either side, nothing else may differ
        assert difference.mean() < 0.005
    assert (engine.max_batch, engine.is_fixed_batch) == (16, False)
    assert engine.inputs[0].name == "frames"
    engine.close()
