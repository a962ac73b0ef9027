"""Engines built for real with TensorRT for RTX, ahead of time and without a GPU."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from edge.engines.trt import api as trt_api
from edge.engines.trt.api import TensorRt
from edge.engines.trt.plan_header import read_header
from edge.engines.trt.preflight import Environment, check_engine
from edge.errors import EdgeError, EngineError, MissingError, UsageError
from edge.model import find_manifest
from edge.models.manifest import ONNX_KEY, InputSpec, Manifest, Precision, Profile, read_sidecar
from export.build.engine import build_engine, default_out, identity, parse_batch
from export.build.failures import explain, find_layer
from export.build.options import BuildOptions
from export.build.report import count_precisions

pytestmark = pytest.mark.engine
MODELS = Path(__file__).parents[2] / "edge" / "models"
ADA = BuildOptions(targets=("8.9",))
CHANNELS = (16, 32, 32)


@pytest.fixture(scope="module")
def api() -> TensorRt:
    return trt_api.load("tensorrt_rtx")


def manifest_of(real: str) -> Manifest:
    spec = InputSpec(name="images", width=32, height=32, layout="nchw", dtype=real, colour="rgb")  # type: ignore[arg-type]
    classes = tuple(f"class {index}" for index in range(CHANNELS[-1]))
    return Manifest(name="tiny", task="classify", head="classify", input=spec, classes=classes)


def write_model(path: Path, kind: str = "fp32", batch: int | str = "n") -> Path:
    """Three convolutions with ReLU and a pooling; ``int8`` has Q/DQ with FP32 scales, ``int8-fp16`` with FP16 ones."""
    is_half = kind.endswith("fp16")
    real, real_type = (np.float16, TensorProto.FLOAT16) if is_half else (np.float32, TensorProto.FLOAT)
    random = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[Any] = []
    source, fan_in = "images", 3
    for index, width in enumerate(CHANNELS):
        values = (random.standard_normal((width, fan_in, 3, 3)) * 0.1).astype(real)
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        weight = f"w{index}"
        if "int8" in kind:
            source = _add_qdq(nodes, weights, source, f"x{index}", np.array(0.02, real), None)
            weight = _add_qdq(nodes, weights, weight, f"k{index}", np.full(width, 0.003, real), 0)
        nodes.append(helper.make_node("Conv", [source, weight], [f"c{index}"], name=f"conv{index}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"))
        source, fan_in = f"r{index}", width
    nodes.append(helper.make_node("GlobalAveragePool", [source], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["probs"], name="flatten"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", real_type, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info("probs", real_type, [batch, CHANNELS[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    manifest = manifest_of("float16" if is_half else "float32")
    helper.set_model_props(model, {ONNX_KEY: manifest.to_json()})
    onnx.save(model, str(path))
    return path


def _add_qdq(
    nodes: list[Any], weights: list[Any], source: str, name: str, scale: np.ndarray[Any, Any], axis: int | None
) -> str:
    zero = np.zeros(scale.shape, np.int8)
    weights += [numpy_helper.from_array(scale, f"{name}s"), numpy_helper.from_array(zero, f"{name}z")]
    options = {} if axis is None else {"axis": axis}
    nodes.append(helper.make_node("QuantizeLinear", [source, f"{name}s", f"{name}z"], [f"{name}q"], **options))
    nodes.append(helper.make_node("DequantizeLinear", [f"{name}q", f"{name}s", f"{name}z"], [f"{name}d"], **options))
    return f"{name}d"


@pytest.mark.parametrize(
    ("kind", "precision", "layers"),
    [
        ("fp32", "fp32", {"tf32": 3}),
        ("fp16", "fp16", {"fp16": 3}),
        ("int8", "int8", {"int8": 3}),
        ("int8-fp16", "int8", {"int8": 3}),
    ],
)
def test_an_engine_and_its_manifest_are_built_with_a_dynamic_batch(
    tmp_path: Path, api: TensorRt, kind: str, precision: str, layers: dict[str, int]
) -> None:
    model = write_model(tmp_path / "tiny.onnx", kind)
    options = BuildOptions(targets=("8.9", "12.0"), profiles=(parse_batch("1:4:16"),))
    result = build_engine(model, tmp_path / "tiny-gpu.engine", options, api)
    assert count_precisions(result.layers) == layers
    manifest = read_sidecar(result.engine)
    assert manifest == result.manifest
    assert manifest is not None and manifest.engine is not None
    assert manifest.precision == precision
    assert manifest.engine.profiles == (Profile(min_batch=1, opt_batch=4, max_batch=16),)
    assert manifest.engine.compute_capabilities == ("8.9", "12.0")
    header = read_header(result.engine)
    assert (header.flavour, header.version) == ("tensorrt_rtx", api.version)
    assert header.num_bytes == result.engine.stat().st_size == result.num_bytes


def test_what_is_built_here_passes_the_preflight_of_an_ada_machine_and_of_no_other(
    tmp_path: Path, api: TensorRt
) -> None:
    result = build_engine(write_model(tmp_path / "tiny.onnx"), tmp_path / "x.engine", ADA, api)
    check_engine(result.engine, result.manifest, Environment({"tensorrt_rtx": api.version}, {}, "8.9", True), 16)
    with pytest.raises(EngineError, match=r"built for compute capability 8.9, this GPU has 12.0"):
        check_engine(result.engine, result.manifest, Environment({"tensorrt_rtx": api.version}, {}, "12.0", True))


def test_the_same_inputs_give_the_same_identity(tmp_path: Path, api: TensorRt) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    first = build_engine(model, tmp_path / "a.engine", ADA, api)
    again = build_engine(model, tmp_path / "b.engine", ADA, api)
    other = build_engine(model, tmp_path / "c.engine", BuildOptions(targets=("8.9",), optimization_level=0), api)
    assert identity(first.manifest) == identity(again.manifest)
    assert identity(first.manifest) != identity(other.manifest)
    assert first.manifest.engine and again.manifest.engine and other.manifest.engine
    assert first.manifest.engine.inputs_sha256 == again.manifest.engine.inputs_sha256
    assert first.manifest.engine.inputs_sha256 != other.manifest.engine.inputs_sha256


def test_a_fixed_batch_needs_no_profile(tmp_path: Path, api: TensorRt) -> None:
    model = write_model(tmp_path / "tiny.onnx", batch=2)
    result = build_engine(model, tmp_path / "x.engine", ADA, api)
    assert result.manifest.engine
    assert result.manifest.engine.profiles == (Profile(min_batch=2, opt_batch=2, max_batch=2),)
    with pytest.raises(UsageError, match="has a fixed batch of 2; leave --batch out"):
        build_engine(model, tmp_path / "y.engine", BuildOptions(targets=("8.9",), profiles=(parse_batch("4"),)), api)


class Phases:
    """Hears a build; acts at one step."""

    def __init__(self, at_step: int = 0, action: Any = None) -> None:
        self.started: list[str] = []
        self.finished: list[str] = []
        self.steps = 0
        self._at_step, self._action = at_step, action

    def phase_start(self, name: str, parent: str | None, num_steps: int) -> None:
        self.started.append(name)

    def step(self, name: str, done: int) -> bool:
        self.steps += 1
        return not (self._action and self.steps == self._at_step) or bool(self._action())

    def phase_finish(self, name: str) -> None:
        self.finished.append(name)


def test_progress_is_told_by_phase_and_step(tmp_path: Path, api: TensorRt) -> None:
    phases = Phases()
    build_engine(write_model(tmp_path / "tiny.onnx"), tmp_path / "x.engine", ADA, api, listener=phases)
    assert phases.steps > 20
    assert sorted(phases.started) == sorted(phases.finished)


def test_a_cancelled_build_writes_nothing(tmp_path: Path, api: TensorRt) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    with pytest.raises(EngineError, match=r"tiny.onnx: the build was cancelled; nothing was written"):
        build_engine(model, tmp_path / "x.engine", ADA, api, listener=Phases(10, lambda: False))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.onnx"]


def test_ctrl_c_cancels_a_build_cleanly(tmp_path: Path, api: TensorRt) -> None:
    def press() -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return True

    model = write_model(tmp_path / "tiny.onnx")
    # a shell that starts a program in the background has it ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(EngineError, match="the build was cancelled"):
            build_engine(model, tmp_path / "x.engine", ADA, api, listener=Phases(5, press))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "x.engine").exists()


def test_a_failed_build_keeps_the_engine_that_was_there(tmp_path: Path, api: TensorRt) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    before = build_engine(model, tmp_path / "x.engine", ADA, api)
    content = before.engine.read_bytes()
    with pytest.raises(EngineError):
        build_engine(model, before.engine, ADA, api, listener=Phases(10, lambda: False))
    assert before.engine.read_bytes() == content
    assert read_sidecar(before.engine) == before.manifest


def single_node(path: Path, kind: str, inputs: dict[str, list[int]], output: list[int | None], **weights: Any) -> Path:
    """A graph of one node, which reads a picture first so that it passes for a model."""
    picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])
    names = ["images", *weights]
    nodes = [helper.make_node(kind, names, ["probs"], name="head.odd", domain="com.example" if "My" in kind else "")]
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    output_type = TensorProto.INT64 if kind == "NonZero" else TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("probs", output_type, output)]
    graph = helper.make_graph(nodes, "odd", [picture], outputs, values)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def test_an_operation_without_a_kernel_is_named_with_its_node(tmp_path: Path, api: TensorRt) -> None:
    model = single_node(tmp_path / "odd.onnx", "MyOp", {}, [1, 3, 32, 32])
    message = r"odd.onnx: TensorRT for RTX .* takes no MyOp as in node 'head.odd' .*; export the model without it"
    with pytest.raises(EngineError, match=message):
        build_engine(model, tmp_path / "x.engine", ADA, api, manifest=manifest_of("float32"))


def test_nonzero_is_refused_before_the_parser_sees_it(tmp_path: Path, api: TensorRt) -> None:
    model = single_node(tmp_path / "odd.onnx", "NonZero", {}, [4, None])
    with pytest.raises(EngineError, match=r"node 'head.odd' is NonZero, which TensorRT for RTX .* cannot build; its"):
        build_engine(model, tmp_path / "x.engine", ADA, api, manifest=manifest_of("float32"))


def test_nms_in_the_graph_is_refused_with_what_to_do(tmp_path: Path, api: TensorRt) -> None:
    model = onnx.load(str(write_model(tmp_path / "tiny.onnx", batch=1)))
    constants = {"axes0": np.array([0]), "scores": np.ones((1, 2, 1), np.float32), "most": np.array([5])}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 4), np.float32), "corners"))
    nms = helper.make_node("NonMaxSuppression", ["corners", "scores", "most"], ["kept"], name="head.nms")
    model.graph.node.append(nms)
    model.graph.output.append(helper.make_tensor_value_info("kept", TensorProto.INT64, [None, 3]))
    onnx.save(model, str(tmp_path / "tiny.onnx"))
    with pytest.raises(EngineError, match=r"node 'head.nms' is NonMaxSuppression, .*the runtime's head does the NMS"):
        build_engine(tmp_path / "tiny.onnx", tmp_path / "x.engine", ADA, api)


def test_asymmetric_int8_is_refused_by_name(tmp_path: Path, api: TensorRt) -> None:
    path = write_model(tmp_path / "tiny.onnx", "int8")
    model = onnx.load(str(path))
    zero = next(item for item in model.graph.initializer if item.name == "x1z")
    zero.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), "x1z"))
    onnx.save(model, str(path))
    message = r"is quantized for CPUs \(node 'x1q'\), TensorRT takes symmetric int8 .* edge quantize .* --flavour fp16"
    with pytest.raises(EngineError, match=message):
        build_engine(path, tmp_path / "x.engine", ADA, api)


def test_too_little_workspace_says_what_to_raise(tmp_path: Path, api: TensorRt) -> None:
    api.messages.clear()
    api.messages.append("Error Code 1: Myelin (no tactics to implement the operation within workspace limit.)")
    message = explain("tiny.onnx", api, ["conv0"])
    assert "raise --workspace-mb or leave it out" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Assertion failed. head.nms_0 has no runners that implement it In getSupportedFormats", "head.nms"),
        (
            "Error Code 10: Internal Error (Could not find any implementation for node neck.up + neck.cat.)",
            "neck.up + neck.cat",
        ),
        (
            "could not find any implementation for node {ForeignNode[conv1]} due to insufficient workspace.",
            "{ForeignNode[conv1]}",
        ),
        ("Tactic Device request: 5000MB in node 'conv1' out of memory", "conv1"),
        ("conv1: kernel weights has count 3 but 4 was expected", "conv1"),
        ("nothing of use", None),
    ],
)
def test_the_layer_is_found_in_what_tensorrt_says(text: str, expected: str | None) -> None:
    assert find_layer(text, ["conv0", "conv1", "head.nms"]) == expected


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("Error Code 2: OutOfMemory (no further information)", "try a smaller --batch, --workspace-mb or"),
        ("Could not find any implementation for node conv1.", "keep it out of INT8"),
        ("CHECK(status == CUDA_SUCCESS) failed", "the GPU is missing or failed; run: edge doctor"),
        ("Network has dynamic inputs, but no optimization profile has been defined", "add --batch"),
        ("gibberish", "run again with --debug"),
    ],
)
def test_a_failure_says_what_to_try(api: TensorRt, text: str, advice: str) -> None:
    api.messages.clear()
    api.messages.append(text)
    assert advice in explain("tiny.onnx", api, ["conv1"])


@pytest.mark.parametrize(("text", "expected"), [("1:4:16", (1, 4, 16)), ("8", (8, 8, 8)), ("2:2:2", (2, 2, 2))])
def test_batches_are_written_as_three_numbers_or_one(text: str, expected: tuple[int, int, int]) -> None:
    profile = parse_batch(text)
    assert (profile.min_batch, profile.opt_batch, profile.max_batch) == expected


@pytest.mark.parametrize("text", ["", "0", "4:1:16", "1:2", "a:b:c", "1:2:3:4", "-1", "1:4:"])
def test_what_is_no_batch_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected SMALLEST:LIKELY:LARGEST"):
        parse_batch(text)


def test_an_engine_may_not_take_the_manifest_of_its_onnx_file(tmp_path: Path, api: TensorRt) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    with pytest.raises(UsageError, match=r"tiny.engine and tiny.onnx would share the manifest tiny.json"):
        build_engine(model, tmp_path / "tiny.engine", ADA, api)
    assert default_out(model, ("8.9", "12.0")).name == "tiny-sm89-sm120.engine"


def test_the_command_builds_and_reports(tmp_path: Path) -> None:
    import typer

    from edge.commands.build import build

    app = typer.Typer()
    app.command()(build)
    model = write_model(tmp_path / "tiny.onnx", "int8")
    arguments = [str(model), "--target", "sm89", "--batch", "1:2:4", "--rtx"]
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    report = json.loads(done.stdout)
    assert report["precisions"] == {"int8": 3}
    assert report["engine"].endswith("tiny-sm89.engine")
    assert report["manifest"]["engine"]["profiles"] == [{"min_batch": 1, "opt_batch": 2, "max_batch": 4}]
    assert "layers without Q/DQ run in FP32" in report["notes"][0]
    text = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert "layers with weights: 3 int8" in text
    refused = CliRunner().invoke(app, [str(model), "--precision", "int4"])
    assert isinstance(refused.exception, UsageError)


def test_a_tensorrt_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"TensorRT or TensorRT for RTX is not installed; run: .*pip install"):
        trt_api.load()
    with pytest.raises(MissingError, match="on a Jetson make the venv with --system-site-packages"):
        trt_api.load("tensorrt")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["yolox_nano_416", "nanodet_m_320"])
def test_foreign_models_build(tmp_path: Path, shared_data: Path, api: TensorRt, name: str) -> None:
    model = shared_data / "models" / f"{name}.onnx"
    result = build_engine(model, tmp_path / "x.engine", ADA, api)
    assert result.manifest.head == name.split("_", maxsplit=1)[0]
    assert set(count_precisions(result.layers)) == {"tf32"}
    check_engine(result.engine, result.manifest, Environment({"tensorrt_rtx": api.version}, {}, "8.9", True), 1)


def with_dynamic_batch(path: Path, out: Path) -> Path:
    """A model whose batch is one as exported, made dynamic: reshapes keep the size of the first axis."""
    model = onnx.load(str(path))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    weights |= {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    for node in model.graph.node:
        if node.op_type == "Reshape":
            shape = numpy_helper.to_array(weights[node.input[1]]).copy()
            shape[0] = 0 if shape[0] == 1 else shape[0]
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(shape, node.input[1]))
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in weights:
            value.type.tensor_type.shape.dim[0].dim_param = "n"
    del model.graph.value_info[:]
    onnx.save(model, str(out))
    return out


@pytest.mark.shared
@pytest.mark.parametrize("name", ["yolox_nano_416", "nanodet_m_320"])
def test_foreign_models_build_with_a_dynamic_batch(tmp_path: Path, shared_data: Path, api: TensorRt, name: str) -> None:
    foreign = shared_data / "models" / f"{name}.onnx"
    model = with_dynamic_batch(foreign, tmp_path / f"{name}.onnx")
    options = BuildOptions(targets=("8.9", "12.0"), profiles=(parse_batch("1:4:8"),))
    result = build_engine(model, tmp_path / "x.engine", options, api, manifest=find_manifest(foreign))
    assert result.manifest.engine
    assert result.manifest.engine.profiles == (Profile(min_batch=1, opt_batch=4, max_batch=8),)
    assert read_sidecar(result.engine) == result.manifest
    for capability in ("8.9", "12.0"):
        here = Environment({"tensorrt_rtx": api.version}, {}, capability, True)
        check_engine(result.engine, result.manifest, here, 8)
        with pytest.raises(EngineError, match="takes at most 8 frames a batch, 9 were asked for"):
            check_engine(result.engine, result.manifest, here, 9)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["mobilenet_v2_224_int8", "deeplabv3_mnv2_dm05_int8"])
def test_asymmetric_foreign_models_fail_with_a_sentence(
    tmp_path: Path, shared_data: Path, api: TensorRt, name: str
) -> None:
    with pytest.raises(EdgeError) as caught:
        build_engine(shared_data / "models" / f"{name}.onnx", tmp_path / "x.engine", ADA, api)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def shipped(precision: str, folder: Path) -> Path:
    """The model that comes with the package; its FP16 form is cast as ``edge export`` does."""
    name = "street-nano-int8-trt.onnx" if precision == "int8" else "street-nano.onnx"
    model = MODELS / name
    assert model.is_file(), f"{name} is to be shipped"
    if precision != "fp16":
        return model
    from export.quantize.fp16 import decode_tensors, to_half

    changed = onnx.load(str(model))
    out = folder / "street-nano-fp16.onnx"
    onnx.save(to_half(changed, decode_tensors(changed)), str(out))
    return out


def quantized_convolutions(path: Path) -> set[str]:
    """Names of the convolutions whose input and weight both come out of a DequantizeLinear."""
    nodes = onnx.load(str(path)).graph.node
    dequantized = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    return {node.name for node in nodes if node.op_type == "Conv" and dequantized.issuperset(node.input[:2])}


def test_the_shipped_int8_model_is_for_tensorrt_or_says_how_to_make_one(tmp_path: Path, api: TensorRt) -> None:
    model = MODELS / "street-nano-int8.onnx"
    assert model.is_file(), f"{model.name} is to be shipped"
    try:
        result = build_engine(model, tmp_path / "x.engine", ADA, api)
    except EngineError as error:
        assert "is quantized for CPUs" in str(error) and "edge quantize MODEL.onnx --flavour fp16" in str(error)
    else:
        assert count_precisions(result.layers)["int8"] > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_shipped_models_build_with_a_dynamic_batch(tmp_path: Path, api: TensorRt, precision: Precision) -> None:
    options = BuildOptions(targets=("8.9", "12.0"), profiles=(parse_batch("1:4:16"),), precision=precision)
    result = build_engine(shipped(precision, tmp_path), tmp_path / "x.engine", options, api)
    counts = count_precisions(result.layers)
    assert precision in counts
    found = {layer.name for layer in result.layers if layer.kind == "convolution" and layer.precision == "int8"}
    # exactly the convolutions that the graph quantizes, and no other
    assert found == quantized_convolutions(shipped(precision, tmp_path))
    assert bool(found) == (precision == "int8")
    assert result.manifest.engine and result.manifest.engine.profiles[0].max_batch == 16
    assert result.manifest.precision == precision
    assert read_sidecar(result.engine) == result.manifest
    here = Environment({"tensorrt_rtx": api.version}, {}, "12.0", True)
    check_engine(result.engine, result.manifest, here, 16)


@pytest.mark.shared
@pytest.mark.parametrize(("asked", "expected"), [(None, "tf32"), ("fp32", "fp32")])
def test_tf32_is_named_and_can_be_had_without(
    tmp_path: Path, shared_data: Path, api: TensorRt, asked: Any, expected: str
) -> None:
    model = shared_data / "models" / "nanodet_m_320.onnx"
    options = replace(ADA, precision=asked)
    result = build_engine(model, tmp_path / "x.engine", options, api)
    assert set(count_precisions(result.layers)) == {expected}
    assert result.manifest.engine is not None and ("tf32" in result.manifest.engine.flags) == (asked is None)
    # what graphs of TensorRT for RTX need; it refuses the flag for a network that cannot keep to it
    assert "REQUIRE_USER_ALLOCATION" in result.manifest.engine.flags
