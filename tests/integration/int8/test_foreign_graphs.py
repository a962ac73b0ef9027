"""What other exporters write, quantized: halves inside, nodes out of order, layers that read a Gather."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from calib.collect import TensorSource, observe, open_session
from calib.graph import GraphIndex, load_float_model
from calib.ranges import make_table
from edge.models.manifest import InputSpec
from export.quantize.qdq import insert_qdq, scheme_for

HALF = TensorProto.FLOAT16


def halved(model: ModelProto) -> ModelProto:
    """As Ultralytics' ``half=True``: float16 inside, and the Casts of input and output stand at the end."""
    copy = ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    first, *rest = copy.graph.node
    first.attribute[0].i = HALF
    last = rest[-1]
    last.output[0] = "half_scores"
    nodes = [*rest, helper.make_node("Cast", ["half_scores"], ["scores"], to=TensorProto.FLOAT), first]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:], copy.graph.value_info[:]
    copy.graph.node.extend(kept)
    return copy


def behind_a_gather(model: ModelProto) -> ModelProto:
    """A layer whose source is some rows of another's result, reshaped."""
    copy = ModelProto.FromString(model.SerializeToString())
    rng = np.random.default_rng(3)
    values = {
        "rows": np.arange(4),
        "flat": np.array([-1, 4 * 16]),
        "last.weight": rng.standard_normal((64, 3)).astype(np.float32),
        "more.weight": rng.standard_normal((3, 2)).astype(np.float32),
    }
    copy.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in values.items())
    copy.graph.node.extend([
        helper.make_node("Gather", ["neck_act", "rows"], ["taken"], axis=2),
        helper.make_node("Reshape", ["taken", "flat"], ["lines"]),
        helper.make_node("MatMul", ["lines", "last.weight"], ["mixed"]),
        helper.make_node("Relu", ["mixed"], ["mixed_act"]),
        helper.make_node("MatMul", ["mixed_act", "more.weight"], ["more"]),
    ])  # fmt: skip
    copy.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))
    return copy


def from_nothing(model: ModelProto) -> ModelProto:
    """Layers that read zeros and a constant, as a DETR's decoder does first; their results are added to another's."""
    copy = ModelProto.FromString(model.SerializeToString())
    rng = np.random.default_rng(3)
    values = {
        "nil": np.zeros(1, np.float32),
        "fixed": np.zeros((1, 16, 1, 1), np.float32),
        "zeros.weight": rng.standard_normal((16, 16, 1, 1)).astype(np.float32),
    }
    copy.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in values.items())
    place = next(number for number, node in enumerate(copy.graph.node) if node.output[0] == "sum")
    copy.graph.node[place].input[1] = "body_more"
    for node in (
        helper.make_node("Add", ["body_out", "both_zeros"], ["body_more"]),
        helper.make_node("Add", ["zeros_out", "fixed_out"], ["both_zeros"]),
        helper.make_node("Conv", ["fixed", "zeros.weight"], ["fixed_out"], kernel_shape=[1, 1]),
        helper.make_node("Conv", ["zeros", "zeros.weight"], ["zeros_out"], kernel_shape=[1, 1]),
        helper.make_node("Mul", ["stem_act", "nil"], ["zeros"]),
    ):
        copy.graph.node.insert(place, node)
    return copy


@pytest.mark.parametrize("flavour", ["cpu", "fp32"])
@pytest.mark.parametrize("change", [halved, behind_a_gather, from_nothing])
def test_graphs_of_other_exporters_are_quantized_and_stay_near_their_float_results(
    model: ModelProto, source: TensorSource, spec: InputSpec, tmp_path: Path, flavour: str,
    change: Callable[[ModelProto], ModelProto],
) -> None:  # fmt: skip
    path = tmp_path / "foreign.onnx"
    onnx.save(change(model), path)
    floating = load_float_model(path)
    frame_ids = [str(number) for number in range(source.count)]
    table = make_table(GraphIndex(floating), observe(floating, source), spec, frame_ids, model=path.name)
    small = insert_qdq(floating, table, scheme_for(flavour, "minmax"))  # type: ignore[arg-type]
    before, after = open_session(floating), open_session(small)
    for frame in source.tensors():
        for expected, found in zip(
            before.run(None, {"frames": frame}), after.run(None, {"frames": frame}), strict=True
        ):
            assert np.abs(found - expected).max() < 0.05 * max(1.0, np.abs(expected).max())


def test_halves_are_computed_in_float32(model: ModelProto, source: TensorSource, tmp_path: Path) -> None:
    onnx.save(halved(model), tmp_path / "half.onnx")
    floating = load_float_model(tmp_path / "half.onnx")
    assert not [tensor.name for tensor in floating.graph.initializer if tensor.data_type == HALF]
    whole, wide = open_session(model), open_session(floating)
    for frame in source.tensors():
        assert wide.run(None, {"frames": frame})[0] == pytest.approx(whole.run(None, {"frames": frame})[0], abs=2e-3)


def test_inputs_and_outputs_of_float16_stay_so(model: ModelProto, tmp_path: Path) -> None:
    copy = halved(model)
    for value in (copy.graph.input[0], copy.graph.output[0]):
        value.type.tensor_type.elem_type = HALF
    copy.graph.node[-2].attribute[0].i = HALF
    onnx.save(copy, tmp_path / "half.onnx")
    floating = load_float_model(tmp_path / "half.onnx")
    frame = np.full((1, 32, 32, 3), 100, np.float16)
    (scores,) = open_session(floating).run(None, {"frames": frame})
    assert scores.dtype == np.float16
