"""Tables are keyed so that they survive another opset, and are refused for anything else than what they measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from calib.calibrate import calibrate
from calib.collect import TensorSource, groups_of, observe, observed_tensors
from calib.frames import Candidate, FrameSet, choose_frames, spread
from calib.graph import GraphIndex, load_float_model, opset_of, with_opset
from calib.ranges import RangeTable, check_table, load_histograms, load_table, make_table, save_histograms
from edge.errors import DataError, ModelError
from edge.models.manifest import InputSpec, Manifest
from edge.types import UInt8


def candidates(pictures: list[UInt8]) -> list[Candidate]:
    return [Candidate(f"p{number}", picture[0]) for number, picture in enumerate(pictures)]


def test_a_table_reads_back_as_it_was_written(table: RangeTable, tmp_path: Path) -> None:
    table.save(tmp_path / "r.json")
    assert load_table(tmp_path / "r.json") == table


@pytest.mark.parametrize("opset", [13, 17, 19, 20])
def test_one_table_serves_every_opset(make_net, table: RangeTable, spec: InputSpec, opset: int) -> None:  # type: ignore[no-untyped-def]
    other = GraphIndex(make_net(opset))
    check_table(table, other, spec, "tiny.onnx")
    assert {other.roles[layer.source] for layer in other.layers} <= set(table.tensors)


def test_ranges_of_another_network_are_refused(make_net, table: RangeTable, spec: InputSpec) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="another network"):
        check_table(table, GraphIndex(make_net(seed=1)), spec, "retrained.onnx")


def test_another_activation_is_another_network_or_other_tensors(make_net, table: RangeTable, spec: InputSpec) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="another network"):
        check_table(table, GraphIndex(make_net(activation="LeakyRelu")), spec, "leaky.onnx")


def test_ranges_of_another_preprocessing_are_refused(model: ModelProto, table: RangeTable, spec: InputSpec) -> None:
    changed = spec.model_copy(update={"std": (255.0, 255.0, 255.0)})
    with pytest.raises(DataError, match="prepares frames differently"):
        check_table(table, GraphIndex(model), changed, "tiny.onnx")


def test_frames_prepared_for_another_convention_are_caught(
    model: ModelProto, source: TensorSource, spec: InputSpec
) -> None:
    # the manifest promises 0..1, the frames went in as 0..255
    scaled = spec.model_copy(update={"std": (255.0, 255.0, 255.0)})
    foreign = make_table(GraphIndex(model), observe(model, source), scaled, ["a"], model="tiny.onnx")
    with pytest.raises(DataError, match="another normalisation"):
        check_table(foreign, GraphIndex(model), scaled, "tiny.onnx")


def test_nan_in_the_network_is_an_error(make_net, source: TensorSource, spec: InputSpec) -> None:  # type: ignore[no-untyped-def]
    broken = make_net()
    weight = next(item for item in broken.graph.initializer if item.name == "body.weight")
    values = np.array(numpy_helper.to_array(weight))
    values[0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(ModelError, match="NaN or infinite"):
        make_table(GraphIndex(broken), observe(broken, source), spec, ["a"], model="broken.onnx")


def test_a_tensor_that_was_always_zero_has_no_range(table: RangeTable) -> None:
    role = next(iter(table.tensors))
    empty = table.tensors[role].model_copy(update={"clip": {"minmax": (0.0, 0.0)}})
    with pytest.raises(DataError, match="its range is empty"):
        table.model_copy(update={"tensors": {role: empty}}).clip(role, "minmax")


@pytest.mark.parametrize(("content", "message"), [("{", "not a range table"), ('{"schema":2}', "schema")])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(DataError, match=message):
        load_table(tmp_path / "r.json")


def test_a_missing_table_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="edge calibrate"):
        load_table(tmp_path / "none.json")


def test_histograms_read_back_as_they_were_written(model: ModelProto, source: TensorSource, tmp_path: Path) -> None:
    roles = GraphIndex(model).roles
    seen = observe(model, source)
    save_histograms(seen, roles, tmp_path / "h.npz")
    again = load_histograms(tmp_path / "h.npz")
    for name, observer in seen.items():
        np.testing.assert_array_equal(again[roles[name]].bins, observer.bins)
        assert again[roles[name]].shape == observer.shape


def test_tensors_are_observed_in_groups_that_fit_in_memory(
    model: ModelProto, source: TensorSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = observed_tensors(GraphIndex(model))
    whole = observe(model, source, names)
    monkeypatch.setattr("calib.collect.GROUP_BYTES", 20_000)
    assert len(groups_of(model, names)) > 2
    pieces = observe(model, source, names)
    for name in names:
        # other outputs mean other fused kernels, so a value on a bin's edge may fall to either side
        assert np.abs(whole[name].bins - pieces[name].bins).sum() <= 8
        assert whole[name].frames == pieces[name].frames == source.count


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path, net: path.write_bytes(b"no model"), "cannot be read as ONNX|no Conv"),
        (lambda path, net: onnx.save(_quantized(net), path), "quantized already"),
    ],
)
def test_files_that_cannot_be_calibrated_are_refused(model: ModelProto, tmp_path: Path, write, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "m.onnx"
    write(path, model)
    with pytest.raises(ModelError, match=message):
        load_float_model(path)


def _quantized(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.graph.node[0].op_type = "QuantizeLinear"
    return copy


def test_an_opset_without_a_conversion_is_refused(model: ModelProto, tmp_path: Path) -> None:
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.opset_import[0].version = 3
    copy.graph.node[-1].op_type = "Affine"
    onnx.save(copy, tmp_path / "old.onnx")
    with pytest.raises(ModelError, match="opset 3 cannot be converted"):
        load_float_model(tmp_path / "old.onnx")


def test_a_lower_opset_is_a_valid_model() -> None:
    info = onnx.helper.make_tensor_value_info
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    node = onnx.helper.make_node("ReduceMax", ["x", "axes"], ["y"], keepdims=0, noop_with_empty_axes=0)
    graph = onnx.helper.make_graph([node], "g", [info("x", 1, [2, 3])], [info("y", 1, [2])], [axes])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    lowered = with_opset(model, 17, "test")
    onnx.checker.check_model(lowered, full_check=True)
    assert opset_of(lowered) == 17


def test_black_flat_and_repeated_pictures_are_left_out(spec: InputSpec, pictures: list[UInt8]) -> None:
    black, flat = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 90, np.uint8)
    offered = [Candidate("black", black), Candidate("flat", flat), *candidates(pictures), *candidates(pictures)]
    chosen = choose_frames(offered, spec, 16, origin="test")
    assert chosen.frame_ids == [f"p{number}" for number in range(8)]
    assert (chosen.dark, chosen.repeated) == (2, 8)


def test_too_few_usable_frames_are_an_error(spec: InputSpec, pictures: list[UInt8]) -> None:
    black = [Candidate(f"b{number}", np.zeros((32, 32, 3), np.uint8)) for number in range(30)]
    with pytest.raises(DataError, match=r"3 usable calibration frames of 33.*30 black"):
        choose_frames([*black, *candidates(pictures)[:3]], spec, 100, origin="door")


def test_frames_of_a_video_cover_its_whole_length() -> None:
    numbers = spread(1000, 10, seed=3)
    assert [number // 100 for number in numbers] == list(range(10))
    assert numbers == spread(1000, 10, seed=3) != spread(1000, 10, seed=4)


def test_one_frame_is_kept_of_each_stretch_of_a_video(spec: InputSpec, pictures: list[UInt8]) -> None:
    offered = [Candidate(f"v#{number}", picture[0], slot=number // 2) for number, picture in enumerate(pictures)]
    chosen = choose_frames(offered, spec, 8, origin="v", min_frames=1)
    assert chosen.frame_ids == ["v#0", "v#2", "v#4", "v#6"]


def test_kept_frames_enter_the_model_as_the_runtime_would_send_them(spec: InputSpec) -> None:
    from edge.models.preprocess import Preprocessor

    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    floats = spec.model_copy(update={"dtype": "float32", "layout": "nchw", "mean": (100.0,) * 3, "std": (50.0,) * 3})
    frames = FrameSet(floats, 1)
    assert frames.offer(Candidate("a", image))
    expected, _ = Preprocessor(floats, 1).images([image])
    np.testing.assert_array_equal(next(iter(frames.source().tensors())), expected)


def test_a_second_run_adds_to_the_histograms_of_the_first(
    model: ModelProto, spec: InputSpec, pictures: list[UInt8], tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path)
    manifest = Manifest(name="tiny", task="segment", head="semantic", input=spec, classes=("a", "b", "c", "d"))
    halves = [choose_frames(part, spec, 4, origin="t", min_frames=1) for part in _halves(candidates(pictures))]
    whole = choose_frames(candidates(pictures), spec, 8, origin="t")
    calibrate(path, manifest, halves[0], tmp_path / "a.json")
    merged = calibrate(path, manifest, halves[1], tmp_path / "b.json", merge=tmp_path / "a.json").table
    at_once = calibrate(path, manifest, whole, tmp_path / "c.json").table
    assert merged.tensors == at_once.tensors
    assert json.loads((tmp_path / "b.json").read_text())["frames"] == 8


def _halves(items: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    return items[:4], items[4:]
