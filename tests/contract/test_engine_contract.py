"""What every engine promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kserve_server import KserveServer
from onnx import TensorProto, helper, numpy_helper

from edge.config.remote import RemoteSettings
from edge.engines import ort
from edge.engines.ahead import AheadEngine
from edge.engines.choose import open_engine
from edge.engines.kserve import KserveEngine
from edge.engines.kserve_link import Place
from edge.errors import EdgeError, EngineError, MissingError, ModelError, UsageError
from edge.interfaces import Engine, GivesAway
from edge.models.manifest import InputSpec, Manifest

SPEC = InputSpec(name="frames", width=8, height=4, layout="nhwc", dtype="uint8", colour="bgr")
MANIFEST = Manifest(name="m", task="detect", head="edgenet", input=SPEC, classes=("x",))


def write_model(path: Path, batch: str | int = "batch") -> Path:
    """A model that adds up each frame's bytes."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["floats", "axes"], ["sum"], keepdims=0),
        ],
        "g",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, [batch, 4, 8, 3])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [batch])],
        [helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine for CUDA do all that it does on the CPU provider, with memory bound to the device ``cpu``."""
    monkeypatch.setattr(ort, "providers_for", lambda kind, wishes: ["CPUExecutionProvider"])
    monkeypatch.setattr(ort, "check_came_up", lambda *_: None)
    monkeypatch.setattr(ort, "DEVICES", {"ort-cuda": "cpu"})


class SumServer(KserveServer):
    """Adds up each frame's bytes, as the model does."""

    inputs = (("frames", "UINT8", [-1, 4, 8, 3]),)
    outputs = (("sum", "FP32", [-1]),)

    def values(self, request: Any) -> dict[str, Any]:
        shape = tuple(request.inputs[0].shape)
        if shape[1:] != (4, 8, 3):
            raise ValueError(f"unexpected shape {shape}")
        frames = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(shape[0], -1)
        return {"sum": frames.sum(1).astype(np.float32)}


def on_server(request: pytest.FixtureRequest) -> KserveEngine:
    server = SumServer()
    server.start()
    request.addfinalizer(server.stop)
    engine = KserveEngine(Place.of(server.url, "tiny"), RemoteSettings(timeout_ms=5000), SPEC, 4)
    engine.connect(lambda inputs, outputs: None, may_wait=False)
    return engine


@pytest.fixture(params=["ort", "openvino", "ort-cuda", "kserve", "ahead-ort", "ahead-openvino", "ahead-kserve"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    if request.param.endswith("kserve"):
        there: Engine = on_server(request)
        there = AheadEngine(there, SPEC) if request.param.startswith("ahead-") else there
        request.addfinalizer(there.close)
        return there
    if request.param == "ort-cuda":
        on_cpu(monkeypatch)
    kind = request.param.removeprefix("ahead-")
    opened = open_engine(write_model(tmp_path / "m.onnx"), MANIFEST, kind=kind, threads=1, max_batch=4)
    if kind != request.param:
        opened = AheadEngine(opened, SPEC)
    request.addfinalizer(opened.close)
    return opened


def test_it_says_what_it_takes_and_gives(engine: Engine) -> None:
    assert engine.inputs[0].name == "frames"
    assert engine.inputs[0].shape == (None, 4, 8, 3)
    assert engine.inputs[0].dtype == "uint8"
    assert engine.outputs[0].name == "sum"
    assert (engine.max_batch, engine.is_fixed_batch) == (4, False)
    assert engine.name


@pytest.mark.parametrize("count", [1, 3, 4, 2])
def test_it_runs_any_batch_up_to_its_largest(engine: Engine, count: int) -> None:
    frames = np.random.default_rng(count).integers(0, 256, (count, 4, 8, 3), np.uint8)
    assert engine.infer(frames)["sum"].tolist() == frames.reshape(count, -1).sum(1).tolist()


def test_outputs_that_an_engine_gives_away_stay_what_they_are(engine: Engine) -> None:
    frames = np.random.default_rng(7).integers(0, 256, (2, 4, 8, 3), np.uint8)
    first = engine.infer(frames)["sum"]
    before = first.copy()
    assert engine.infer(255 - frames)["sum"].tolist() != before.tolist()
    is_given = isinstance(engine, GivesAway) and engine.gives_away
    assert not is_given or first.tolist() == before.tolist()


def test_a_tensor_of_another_shape_is_an_engine_error(engine: Engine) -> None:
    with pytest.raises(EngineError):
        engine.infer(np.zeros((1, 5, 5, 3), np.uint8))


def test_closing_twice_is_fine(engine: Engine) -> None:
    engine.close()
    engine.close()


def test_a_fixed_batch_is_known(tmp_path: Path) -> None:
    opened = open_engine(write_model(tmp_path / "m.onnx", batch=2), MANIFEST, kind="ort", threads=1)
    assert (opened.max_batch, opened.is_fixed_batch) == (2, True)


@pytest.mark.parametrize(
    ("kind", "name", "error", "expected"),
    [
        ("warp", "m.onnx", UsageError, "no engine is called 'warp'; choose from: auto, ort"),
        ("trt", "m.onnx", UsageError, "engine 'trt' cannot run m.onnx"),
        ("ort", "m.engine", UsageError, "engine 'ort' cannot run m.engine"),
        ("ort-cuda", "m.onnx", MissingError, "needs CUDAExecutionProvider, this onnxruntime has"),
        ("ort", "nowhere.onnx", ModelError, "no such model file"),
    ],
)
def test_what_cannot_run_is_one_sentence(
    tmp_path: Path, kind: str, name: str, error: type[EdgeError], expected: str
) -> None:
    write_model(tmp_path / "m.onnx")
    with pytest.raises(error, match=expected):
        open_engine(tmp_path / name, MANIFEST, kind=kind)


def test_the_null_engine_finds_nothing_and_breaks_when_told() -> None:
    from edge.engines.null import NullEngine

    engine = NullEngine(SPEC, fail_at=1)
    assert engine.infer(np.zeros((2, 4, 8, 3), np.uint8))["scores"].shape == (2, 1)
    with pytest.raises(EngineError, match="broke at batch 1"):
        engine.infer(np.zeros((2, 4, 8, 3), np.uint8))


def write_convolutions(path: Path) -> Path:
    """Three convolutions of 32 channels over a picture, in float32."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Cast", ["frames"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    weights = []
    for number, channels in enumerate((3, 32, 32)):
        values = (rng.standard_normal((32, channels, 3, 3)) / np.sqrt(9 * channels)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        nodes.append(helper.make_node("Conv", [f"x{number}", f"w{number}"], [f"x{number + 1}"], pads=[1] * 4))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 32, 32, 3])],
        [helper.make_tensor_value_info("x3", TensorProto.FLOAT, ["N", 32, 32, 32])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def test_a_float32_model_is_computed_in_float32_unless_asked_otherwise(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = write_convolutions(tmp_path / "m.onnx")
    frames = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), np.uint8)

    def difference(kind: str) -> float:
        opened, exact = (open_engine(path, MANIFEST, kind=name, threads=1) for name in (kind, "ort"))
        found, expected = opened.infer(frames)["x3"], exact.infer(frames)["x3"]
        return float(np.abs(found - expected).max() / np.abs(expected).max())

    assert difference("openvino") < 1e-5
    try:
        assert 1e-4 < difference("openvino-bf16") < 0.05
    except EngineError as error:
        assert "does not compute in bfloat16" in str(error)
