"""Q/DQ nodes stand where TensorRT and ONNX Runtime fuse them, are symmetric, and keep the network's answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from calib.clipping import METHODS, Method
from calib.collect import TensorSource, open_session
from calib.graph import GraphIndex
from calib.ranges import RangeTable
from calib.sensitivity import LayerEffect, outputs_of, scan, snr_db
from edge.errors import DataError, UsageError
from export.quantize.cache import Memo
from export.quantize.placement import place
from export.quantize.qdq import Scheme, affine, channel_scales, encode, insert_qdq, scheme_for

PER_TENSOR = "DequantizeLinear"


def fidelity_db(model: ModelProto, other: ModelProto, source: TensorSource) -> float:
    """Signal to noise of the tensor before the sigmoid."""
    names = [GraphIndex(model).layers[-1].output]
    return snr_db(outputs_of(model, names, source), outputs_of(other, names, source))


def initialiser(model: ModelProto, name: str) -> NDArray[Any]:
    values: NDArray[Any] = numpy_helper.to_array(next(i for i in model.graph.initializer if i.name == name))
    return values


def node(model: ModelProto, output: str) -> NodeProto:
    return next(item for item in model.graph.node if output in item.output)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("flavour", ["fp32", "cpu"])
def test_the_quantized_network_answers_nearly_the_same(
    model: ModelProto, table: RangeTable, source: TensorSource, flavour: str, method: Method
) -> None:
    quantized = insert_qdq(model, table, scheme_for(flavour, method))  # type: ignore[arg-type]
    onnx.checker.check_model(quantized, full_check=True)
    assert fidelity_db(model, quantized, source) > 18


def test_tensorrt_flavour_is_symmetric_int8_on_conv_inputs_only(model: ModelProto, table: RangeTable) -> None:
    quantized = insert_qdq(model, table, scheme_for("fp32", "average"))
    zeros = [item for item in quantized.graph.initializer if item.name.endswith("_zero")]
    assert zeros
    assert all(item.data_type == TensorProto.INT8 and not numpy_helper.to_array(item).any() for item in zeros)
    for item in quantized.graph.node:
        if item.op_type == "DequantizeLinear":
            readers = [reader.op_type for reader in quantized.graph.node if item.output[0] in reader.input]
            assert readers == ["Conv"]
        if item.op_type == "Conv":
            assert item.input[2] in {i.name for i in quantized.graph.initializer if i.data_type == TensorProto.FLOAT}


def test_weights_are_coded_per_output_channel_along_the_right_axis(model: ModelProto, table: RangeTable) -> None:
    quantized = insert_qdq(model, table, scheme_for("fp32", "average"))
    weight = initialiser(model, "neck.weight")
    np.testing.assert_allclose(
        initialiser(quantized, "neck.weight_dq_scale"), np.abs(weight).max(axis=(1, 2, 3)) / 127, rtol=1e-6
    )
    attributes = {item.name: item.i for item in node(quantized, "neck.weight_dq").attribute}
    assert attributes["axis"] == 0


@pytest.mark.parametrize(("op", "axis"), [("ConvTranspose", 1), ("Gemm", 1), ("GemmT", 0), ("MatMul", 1)])
def test_each_operator_has_its_own_channel_axis(op: str, axis: int) -> None:
    kind = op.removesuffix("T") if op == "GemmT" else op
    attributes = {"transB": 1} if op == "GemmT" else {}
    item = onnx.helper.make_node(kind, ["x", "w"], ["y"], **attributes)
    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1)[: 4 if kind == "ConvTranspose" else 2], np.float32), "w")
    shape = [1, 4, 4, 4][: 4 if kind == "ConvTranspose" else 2]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([item], "g", [info("x", 1, shape)], [info("y", 1, None)], [weight])
    index = GraphIndex(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))
    assert [layer.axis for layer in index.layers] == [axis]


def test_the_last_bare_layers_stay_float_unless_asked_otherwise(model: ModelProto, table: RangeTable) -> None:
    usual = insert_qdq(model, table, scheme_for("fp32", "average"))
    everything = insert_qdq(model, table, scheme_for("fp32", "average", frozenset()))
    assert node(usual, "head_out").input[1] == "head.weight"
    assert node(everything, "head_out").input[1] == "head.weight_dq"


def test_named_layers_stay_float(model: ModelProto, table: RangeTable) -> None:
    quantized = insert_qdq(model, table, scheme_for("fp32", "average", frozenset({"body.weight"})))
    assert list(node(quantized, "body_out").input) == list(node(model, "body_out").input)


def test_a_float_layer_that_does_not_exist_is_refused(model: ModelProto, table: RangeTable) -> None:
    with pytest.raises(UsageError, match=r"no layer has the weight 'nose\.weight'"):
        insert_qdq(model, table, scheme_for("fp32", "average", frozenset({"nose.weight"})))


def test_a_table_without_a_tensor_is_refused(model: ModelProto, table: RangeTable) -> None:
    poorer = table.model_copy(update={"tensors": {}})
    with pytest.raises(DataError, match="run edge calibrate again"):
        insert_qdq(model, poorer, scheme_for("fp32", "average"))


def test_cpu_flavour_leaves_no_float_convolution_but_the_last(
    model: ModelProto, table: RangeTable, tmp_path: Path
) -> None:
    quantized = insert_qdq(model, table, scheme_for("cpu", "average"))
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(quantized.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(item.op_type for item in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == 3
    assert kinds["QLinearAdd"] == kinds["QLinearConcat"] == 1
    assert kinds["Conv"] + kinds["FusedConv"] == 1
    # nothing is coded at run time: the bytes of the picture are the codes of the first layer
    assert kinds["QuantizeLinear"] == 0


def test_cpu_flavour_reads_the_pictures_bytes_without_rounding(model: ModelProto, table: RangeTable) -> None:
    quantized = insert_qdq(model, table, scheme_for("cpu", "average"))
    assert initialiser(quantized, "picture_scale") == 1
    assert initialiser(quantized, "picture_zero") == 0
    assert "Cast" not in {item.op_type for item in quantized.graph.node}


def test_a_tensor_that_is_only_moved_takes_the_range_of_its_origin(model: ModelProto, table: RangeTable) -> None:
    index = GraphIndex(model)
    by_name = {point.tensor: point.range_of for point in place(index, (), is_for_cpu=True).points}
    assert by_name["picture"] == ("real",)


def test_both_sides_of_a_concat_share_one_scale(model: ModelProto, table: RangeTable) -> None:
    quantized = insert_qdq(model, table, scheme_for("cpu", "average"))
    scales = {float(initialiser(quantized, f"{name}_scale")) for name in ("sum_act", "pooled", "both")}
    assert len(scales) == 1


def test_biases_of_the_cpu_flavour_fit_32_bits(make_net, table: RangeTable) -> None:  # type: ignore[no-untyped-def]
    model = make_net()
    weight = next(item for item in model.graph.initializer if item.name == "body.weight")
    values = np.array(numpy_helper.to_array(weight))
    values[0] = 1e-12
    weight.CopyFrom(numpy_helper.from_array(values, "body.weight"))
    quantized = insert_qdq(model, table, scheme_for("cpu", "average"))
    codes = initialiser(quantized, "body.weight_bias_q").astype(np.int64)
    real = codes * initialiser(quantized, "body.weight_bias_scale").astype(np.float64)
    np.testing.assert_allclose(real, initialiser(model, "body.bias"), atol=1e-4)


def test_stored_codes_equal_what_a_quantizer_would_compute(
    model: ModelProto, table: RangeTable, source: TensorSource
) -> None:
    pair = insert_qdq(model, table, Scheme("fp32", stores_codes=False, method="average"))
    codes = insert_qdq(model, table, Scheme("fp32", stores_codes=True, method="average"))
    results = []
    for variant in (pair, codes):
        session = open_session(variant, optimize=False)
        results.append([session.run(None, {"frames": tensor})[0] for tensor in source.tensors()])
    np.testing.assert_array_equal(results[0], results[1])
    assert len(codes.SerializeToString()) < len(pair.SerializeToString())


def test_layers_that_share_a_weight_get_their_own_codes(model: ModelProto, table: RangeTable) -> None:
    index = GraphIndex(model)
    assert len({layer.key for layer in index.layers}) == len(index.layers)
    names = [node.output[0] for node in insert_qdq(model, table, scheme_for("cpu", "average")).graph.node]
    assert len(names) == len(set(names))


def test_the_float_model_is_not_changed(model: ModelProto, table: RangeTable) -> None:
    before = model.SerializeToString()
    insert_qdq(model, table, scheme_for("cpu", "average"))
    assert model.SerializeToString() == before


@settings(max_examples=examples(80), deadline=None)
@given(low=st.floats(-1e3, 0), high=st.floats(0, 1e3))
def test_codes_cover_the_range_and_zero_is_exact(low: float, high: float) -> None:
    if high - low < 1e-3:
        return
    scale, zero = affine(low, high)
    assert (0 - int(zero)) * scale <= low + scale
    assert (255 - int(zero)) * scale >= high - scale


@settings(max_examples=examples(40), deadline=None)
@given(seed=st.integers(0, 2**16), axis=st.sampled_from([0, 1]))
def test_weight_codes_are_within_half_a_step(seed: int, axis: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((5, 7, 3, 3)).astype(np.float32)
    weight[(slice(None),) * axis + (2,)] = 0
    scales = channel_scales(weight, axis)
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    real = encode(weight, scales, axis) * scales.reshape(shape)
    assert np.all(np.abs(real - weight) <= 0.5001 * scales.reshape(shape))


def test_the_scan_finds_the_layer_that_was_made_fragile(
    model: ModelProto, table: RangeTable, source: TensorSource
) -> None:
    keys = frozenset(layer.key for layer in GraphIndex(model).layers)
    # a clip range far too narrow breaks exactly the layer that reads this tensor
    role = GraphIndex(model).roles["both"]
    narrow = table.tensors[role].model_copy(update={"clip": {"average": (0.0, 0.01)}})
    broken = table.model_copy(update={"tensors": {**table.tensors, role: narrow}})
    effects = scan(
        model, broken, lambda only: insert_qdq(model, broken, scheme_for("fp32", "average", keys - only)), source
    )
    assert effects[0].key == "neck.weight"
    assert effects[0].snr_db < 5 < effects[1].snr_db
    assert effects[0].macs == 32 * 16 * 16 * 16


def test_an_interrupted_scan_goes_on_where_it_was(
    model: ModelProto, table: RangeTable, source: TensorSource, tmp_path: Path
) -> None:
    keys = frozenset(layer.key for layer in GraphIndex(model).layers)
    quantized: list[frozenset[str]] = []

    def quantize_only(only: frozenset[str]) -> ModelProto:
        if len(quantized) == 1 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        quantized.append(only)
        return insert_qdq(model, table, scheme_for("fp32", "average", keys - only))

    def run() -> list[LayerEffect]:
        return scan(model, table, quantize_only, source, remember=Memo(tmp_path / "m.json", "same").value)

    with pytest.raises(KeyboardInterrupt):
        run()
    (tmp_path / "again").touch()
    assert {effect.key for effect in run()} == keys
    assert sorted(quantized, key=sorted) == sorted((frozenset({key}) for key in keys), key=sorted)
