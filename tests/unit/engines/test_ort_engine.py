"""ONNX Runtime on a device: memory bound once per batch size, and never the CPU when a GPU was asked for.

The device here is the CPU; tests/gpu does the same on a GPU.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edge.engines import ort, ort_providers
from edge.engines.ort import OrtEngine
from edge.engines.ort_binding import MAX_BINDINGS, DeviceRunner
from edge.errors import EngineError, MissingError
from edge.types import UInt8

GPU_PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def write_model(path: Path, *, batch: str | int = "b", finds: bool = False) -> Path:
    """Sums each frame's bytes; with ``finds`` also lists the bytes that are not 0, so an output of unknown size."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats", "axes"], ["sum"], keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [batch])]
    if finds:
        nodes.append(helper.make_node("NonZero", ["floats"], ["places"]))
        outputs.append(helper.make_tensor_value_info("places", TensorProto.INT64, [4, "n"]))
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, [batch, 4, 8, 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    graph = helper.make_graph(nodes, "g", [frames], outputs, [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def frames(count: int, seed: int = 0) -> UInt8:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 8, 3), np.uint8)


def runner_of(engine: OrtEngine) -> DeviceRunner:
    assert engine._runner is not None
    return engine._runner


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "providers_for", lambda kind, wishes: ["CPUExecutionProvider"])
    monkeypatch.setattr(ort, "check_came_up", lambda *_: None)
    monkeypatch.setattr(ort, "DEVICES", {"ort-cuda": "cpu", "ort-tensorrt": "cpu"})


@pytest.mark.usefixtures("on_device")
def test_bound_memory_gives_the_answers_of_a_plain_run(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx")
    plain, bound = OrtEngine(model), OrtEngine(model, kind="ort-cuda")
    assert plain._runner is None
    for seed, count in enumerate((1, 3, 2, 3, 1, 1)):
        batch = frames(count, seed)
        assert bound.infer(batch)["sum"].tolist() == plain.infer(batch)["sum"].tolist()


@pytest.mark.usefixtures("on_device")
def test_each_batch_size_is_bound_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = 0
    new_value = onnxruntime.OrtValue.ortvalue_from_numpy

    def counted(*arguments: object) -> object:
        nonlocal bound
        bound += 1
        return new_value(*arguments)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", counted)
    engine = OrtEngine(write_model(tmp_path / "m.onnx"), kind="ort-cuda")
    for count in (1, 2, 3) * 20:
        engine.infer(frames(count))
    assert bound == len(runner_of(engine)) == 3


@pytest.mark.usefixtures("on_device")
def test_only_the_batch_sizes_used_last_keep_their_memory(tmp_path: Path) -> None:
    engine = OrtEngine(write_model(tmp_path / "m.onnx"), kind="ort-cuda", max_batch=64)
    for count in range(1, MAX_BINDINGS + 5):
        engine.infer(frames(count))
        engine.infer(frames(1))
    assert len(runner_of(engine)) == MAX_BINDINGS
    sizes = [shape[0] for shape, _ in runner_of(engine)._bindings]
    assert sizes[-1] == 1 and MAX_BINDINGS + 4 in sizes and 2 not in sizes


@pytest.mark.usefixtures("on_device")
def test_the_callers_tensor_is_copied(tmp_path: Path) -> None:
    engine = OrtEngine(write_model(tmp_path / "m.onnx"), kind="ort-cuda")
    tensor = frames(2)
    before = tensor.copy()
    engine.infer(tensor)
    engine.infer(np.zeros_like(tensor))
    assert np.array_equal(tensor, before)


@pytest.mark.usefixtures("on_device")
def test_rows_of_a_larger_tensor_are_taken_as_they_are(tmp_path: Path) -> None:
    engine = OrtEngine(write_model(tmp_path / "m.onnx"), kind="ort-cuda")
    large = frames(6)
    assert engine.infer(large[::2])["sum"].tolist() == large[::2].reshape(3, -1).sum(1).tolist()


@pytest.mark.usefixtures("on_device")
def test_an_output_whose_size_changes_is_given_anew_each_time(tmp_path: Path) -> None:
    engine = OrtEngine(write_model(tmp_path / "m.onnx", finds=True), kind="ort-cuda")
    for count in (3, 7, 0, 5):
        tensor = np.zeros((1, 4, 8, 3), np.uint8)
        tensor.reshape(-1)[:count] = 1
        assert engine.infer(tensor)["places"].shape == (4, count)


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize(
    "tensor", [np.zeros((1, 5, 8, 3), np.uint8), np.zeros((1, 4, 8, 3), np.float32), np.zeros((1, 4), np.uint8)]
)
def test_a_tensor_of_another_kind_is_an_engine_error(tmp_path: Path, tensor: UInt8) -> None:
    engine = OrtEngine(write_model(tmp_path / "m.onnx"), kind="ort-cuda")
    engine.infer(frames(1))
    with pytest.raises(EngineError, match="onnxruntime"):
        engine.infer(tensor)


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize(("batch", "expected"), [("b", [8, 1]), (2, [2])])
def test_tensorrt_builds_for_all_batches_before_the_first_frame(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    batch: str | int,
    expected: list[int],
) -> None:
    ran: list[int] = []
    monkeypatch.setattr(DeviceRunner, "run", lambda self, tensor: ran.append(len(tensor)) or {})
    with caplog.at_level(logging.INFO):
        OrtEngine(write_model(tmp_path / "m.onnx", batch=batch), kind="ort-tensorrt", max_batch=8)
    assert ran == expected
    assert "m.onnx: TensorRT builds for batches of 1 to" in caplog.text


@pytest.mark.parametrize(
    ("kind", "came_up"),
    [
        ("ort-cuda", ["CPUExecutionProvider"]),
        ("ort-tensorrt", ["CPUExecutionProvider"]),
        ("ort-tensorrt", ["CUDAExecutionProvider", "CPUExecutionProvider"]),
    ],
)
def test_a_gpu_that_did_not_come_up_is_never_replaced_unasked(kind: str, came_up: list[str]) -> None:
    session = SimpleNamespace(get_providers=lambda: came_up)
    with pytest.raises(MissingError, match=rf"door.onnx: engine '{kind}' needs .*, which did not come up .*; run: pip"):
        ort_providers.check_came_up(session, kind, "door.onnx")


def test_tensorrt_keeps_what_it_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU_PROVIDERS)
    first, *others = ort_providers.providers_for("ort-tensorrt", ort_providers.Wishes(is_quantized=True))
    assert [name if isinstance(name, str) else name[0] for name in others] == GPU_PROVIDERS[1:]
    assert isinstance(first, tuple)
    name, options = first
    assert name == "TensorrtExecutionProvider"
    assert options["trt_engine_cache_enable"] and options["trt_int8_enable"]
    assert Path(options["trt_engine_cache_path"]).is_dir()
    assert Path(options["trt_engine_cache_path"]).parent == tmp_path
    assert "trt_profile_min_shapes" not in options and not options["trt_fp16_enable"]


def test_cuda_is_told_its_gpu_and_searches_no_kernels_in_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU_PROVIDERS)
    cuda, cpu = ort_providers.providers_for("ort-cuda", ort_providers.Wishes(device=2))
    assert cuda == ("CUDAExecutionProvider", {"device_id": 2, "cudnn_conv_algo_search": "HEURISTIC"})
    assert cpu == "CPUExecutionProvider"


def test_tensorrt_builds_once_for_all_sizes_and_in_fp16_where_the_graph_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU_PROVIDERS)
    wishes = ort_providers.Wishes(device=1, has_float16=True, shapes={"x": [3, 8, 8], "y": [2]}, max_batch=16)
    options = ort_providers.providers_for("ort-tensorrt", wishes)[0][1]
    assert isinstance(options, dict)
    assert (options["device_id"], options["trt_fp16_enable"]) == (1, True)
    shapes = [options[f"trt_profile_{which}_shapes"] for which in ("min", "opt", "max")]
    assert shapes == ["x:1x3x8x8,y:1x2", "x:4x3x8x8,y:4x2", "x:16x3x8x8,y:16x2"]


def test_what_onnx_runtime_prints_while_it_loads_libraries_does_not_reach_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"), raising=False)
    ort_providers.load_libraries("ort-cuda")
    assert capsys.readouterr().out == ""


def test_the_cpu_provider_loads_no_gpu_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: pytest.fail("loaded CUDA"), raising=False)
    ort_providers.load_libraries("ort")
