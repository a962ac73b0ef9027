"""The linter refuses what TensorRT refuses, and the parser that is installed here agrees with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calib.ranges import RangeTable
from edge.errors import ModelError, UsageError
from export.lint.lint import LintReport, lint
from export.lint.targets import TARGETS, target_named
from export.quantize.fp16 import decode_tensors, to_half
from export.quantize.qdq import Scheme, insert_qdq, scheme_for


def rules(report: LintReport) -> set[str]:
    return {finding.rule for finding in report.findings}


@pytest.fixture(scope="module")
def clean(model: ModelProto, table: RangeTable) -> ModelProto:
    return insert_qdq(model, table, scheme_for("fp32", "average"))


def changed(model: ModelProto, change: Callable[[ModelProto], None]) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    change(copy)
    return copy


def replace(model: ModelProto, name: str, values: np.ndarray) -> None:  # type: ignore[type-arg]
    item = next(item for item in model.graph.initializer if item.name == name)
    item.CopyFrom(numpy_helper.from_array(values, name))


def asymmetric(model: ModelProto) -> None:
    replace(model, "both_zero", np.array(3, np.int8))


def unsigned(model: ModelProto) -> None:
    replace(model, "both_zero", np.array(0, np.uint8))


def zero_scale(model: ModelProto) -> None:
    replace(model, "both_scale", np.array(0, np.float32))


def per_channel(model: ModelProto) -> None:
    replace(model, "both_scale", np.full(32, 0.1, np.float32))
    replace(model, "both_zero", np.zeros(32, np.int8))


def wrong_axis(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.output[0] in {"body.weight_q", "body.weight_dq"}:
            node.attribute[0].i = 1


def without_zero_points(model: ModelProto, op: str, **attributes: int) -> None:
    for node in model.graph.node:
        if node.op_type == op:
            del node.input[2:]
            node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


@pytest.mark.parametrize("stores_codes", [False, True])
def test_a_dequantizer_without_a_zero_point_has_the_type_of_its_codes(
    model: ModelProto, table: RangeTable, stores_codes: bool
) -> None:
    quantized = insert_qdq(model, table, Scheme("fp32", stores_codes=stores_codes, method="average"))
    bare = changed(quantized, lambda copy: without_zero_points(copy, "DequantizeLinear"))
    onnx.checker.check_model(bare, full_check=True)
    assert lint(bare).accepted == lint(quantized).accepted
    assert "uint8" not in rules(lint(bare))


def test_the_output_type_of_a_dequantizer_is_not_that_of_its_codes(make_net, table: RangeTable) -> None:  # type: ignore[no-untyped-def]
    quantized = insert_qdq(make_net(23), table, scheme_for("fp32", "average"))
    for values in ({"output_dtype": int(TensorProto.FLOAT)}, {}):
        bare = changed(quantized, lambda copy: without_zero_points(copy, "DequantizeLinear", **values))  # noqa: B023
        onnx.checker.check_model(bare)
        assert "uint8" not in rules(lint(bare))


def test_codes_of_a_quantizer_without_a_zero_point_are_unsigned_unless_it_says_otherwise(
    make_net: Callable[[int], ModelProto],
    table: RangeTable,
) -> None:
    quantized = insert_qdq(make_net(21), table, scheme_for("fp32", "average"))

    def bare(**attributes: int) -> ModelProto:
        copy = changed(quantized, lambda copy: without_zero_points(copy, "QuantizeLinear", **attributes))
        return changed(copy, lambda copy: without_zero_points(copy, "DequantizeLinear"))

    assert "uint8" in rules(lint(bare()))
    assert "uint8" not in rules(lint(bare(output_dtype=int(TensorProto.INT8))))


def half_scale(model: ModelProto) -> None:
    replace(model, "both_scale", np.array(0.1, np.float16))


def transposed_bytes(model: ModelProto) -> None:
    cast, transpose = model.graph.node[0], model.graph.node[1]
    for node in model.graph.node:
        if "frames" in node.input:
            cast = node
        if "real" in node.input:
            transpose = node
    transpose.input[0], cast.input[0] = "frames", "moved"
    transpose.output[0], cast.output[0] = "moved", "picture"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (asymmetric, "zero-point"),
        (unsigned, "uint8"),
        (zero_scale, "scale"),
        (per_channel, "per-channel"),
        (wrong_axis, "weight-axis"),
        (half_scale, "fp16-scale"),
        (transposed_bytes, "uint8-input"),
    ],
)
def test_what_no_tensorrt_takes_is_refused_for_all(clean: ModelProto, change, rule: str) -> None:  # type: ignore[no-untyped-def]
    report = lint(changed(clean, change))
    assert rule in rules(report)
    assert not any(report.accepted.values())


def test_our_fp32_flavour_is_taken_by_all(clean: ModelProto) -> None:
    report = lint(clean)
    assert all(report.accepted.values())
    assert [layer.precision for layer in report.layers] == ["int8", "int8", "int8", "fp32"]
    # typed versions run the rest in FP32, and the report says so
    slow = {name for finding in report.findings if finding.rule == "fp32-rest" for name in finding.targets}
    assert slow == {target.name for target in TARGETS if target.is_typed}


def test_our_fp16_flavour_is_taken_by_typed_versions(model: ModelProto, table: RangeTable) -> None:
    half = to_half(insert_qdq(model, table, scheme_for("fp16", "average")), decode_tensors(model))
    report = lint(half)
    assert report.accepted == {
        "tensorrt-8.6": False, "tensorrt-10.3": True, "tensorrt-10.13": True, "tensorrt-11": True, "tensorrt-rtx": True,
    }  # fmt: skip
    assert rules(report) == {"opset", "stored-codes"}
    assert [layer.precision for layer in report.layers] == ["int8", "int8", "int8", "fp16"]


def test_the_cpu_flavour_is_for_cpus_only(model: ModelProto, table: RangeTable) -> None:
    report = lint(insert_qdq(model, table, scheme_for("cpu", "average")))
    assert not any(report.accepted.values())
    assert {"uint8", "int32-bias"} <= rules(report)


def test_a_float_model_is_taken_but_nothing_is_int8(model: ModelProto) -> None:
    report = lint(model)
    assert all(report.accepted.values())
    assert report.num_int8 == 0
    assert rules(report) == {"no-qdq"}


def test_a_q_between_layer_and_activation_is_slow(clean: ModelProto) -> None:
    def cut(model: ModelProto) -> None:
        scale, zero = "both_scale", "both_zero"
        from onnx import helper

        for node in model.graph.node:
            if node.op_type == "Relu" and node.input[0] == "neck_out":
                node.input[0] = "neck_out_dq"
        model.graph.node.append(helper.make_node("QuantizeLinear", ["neck_out", scale, zero], ["neck_out_q"]))
        model.graph.node.append(helper.make_node("DequantizeLinear", ["neck_out_q", scale, zero], ["neck_out_dq"]))

    assert "cut-fusion" in rules(lint(changed(clean, cut)))


def test_different_scales_into_a_concat_are_noted(clean: ModelProto) -> None:
    def code_both_sides(model: ModelProto) -> None:
        nodes = list(model.graph.node)
        (concat,) = (node for node in nodes if node.op_type == "Concat")
        before = nodes.index(concat)
        for slot, name in enumerate(list(concat.input)):
            scale = numpy_helper.from_array(np.float32(0.1 * (slot + 1)), f"{name}_side_scale")
            zero = numpy_helper.from_array(np.int8(0), f"{name}_side_zero")
            model.graph.initializer.extend([scale, zero])
            codes = helper.make_node("QuantizeLinear", [name, scale.name, zero.name], [f"{name}_side_q"])
            real = helper.make_node("DequantizeLinear", [codes.output[0], scale.name, zero.name], [f"{name}_side_dq"])
            concat.input[slot] = real.output[0]
            nodes[before:before] = [codes, real]
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)

    report = lint(changed(clean, code_both_sides))
    assert "concat-scales" in rules(report)
    assert report.accepted["tensorrt-10.3"]


def test_an_unknown_target_has_no_row() -> None:
    assert target_named("tensorrt-7") is None
    assert target_named("tensorrt-10.3") is not None


def test_the_command_fails_for_a_target_that_refuses(
    model: ModelProto, table: RangeTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    import onnx

    from edge.commands.lint import lint as command

    path = tmp_path / "cpu.onnx"
    onnx.save(insert_qdq(model, table, scheme_for("cpu", "average")), path)
    with pytest.raises(ModelError, match=r"tensorrt-10\.3 will not take it"):
        command(path, target="tensorrt-10.3", as_json=True)
    assert json.loads(capsys.readouterr().out)["num_layers"] == 4
    with pytest.raises(UsageError, match="expected one of"):
        command(path, target="tensorrt-7")
