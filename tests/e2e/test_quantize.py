"""From a float classifier to a gated INT8 file by the commands that users run: calibrate, quantize, lint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from calib.clipping import Method
from calib.graph import load_float_model
from edge.commands.calibrate import calibrate
from edge.commands.quantize import quantize
from edge.errors import AccuracyError, DataError, ModelError
from edge.models.manifest import InputSpec, Manifest, read_sidecar, write_sidecar
from export.evaluate.bootstrap import Drop
from export.lint.lint import lint
from export.quantize.budget import Figures
from export.quantize.quantize import QuantizeOptions, check_edge

SIZE = 32
CLASSES = ("checker", "columns", "rows", "steps")
Picture = NDArray[np.uint8]


def picture(kind: str, rng: np.random.Generator) -> Picture:
    """A noisy texture of one class."""
    y, x = np.mgrid[:SIZE, :SIZE] + rng.integers(0, 8, 2)[:, None, None]
    pattern = {"rows": y // 4 % 2, "columns": x // 4 % 2, "checker": (x // 4 + y // 4) % 2, "steps": (x + y) // 4 % 2}
    levels = 60 + 120 * pattern[kind][..., None] * rng.uniform(0.4, 1, 3) + rng.normal(0, 12, (SIZE, SIZE, 3))
    return np.clip(levels, 0, 255).astype(np.uint8)


def write_folders(folder: Path, count: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(folder / kind / f"{seed}-{number}.png"), picture(kind, rng))
    return folder


def network(imbalance: float) -> ModelProto:
    """Random features and a linear classifier fitted to them by least squares.

    One channel between the two convolutions is made ``imbalance`` times as loud as the others and read as much more
    softly: the float network computes the same, but one INT8 scale cannot serve both.
    """
    rng = np.random.default_rng(0)
    first = rng.standard_normal((16, 3, 3, 3)).astype(np.float32) / 400
    second = rng.standard_normal((64, 16, 3, 3)).astype(np.float32) / 12
    first[3] *= imbalance
    second[:, 3] /= imbalance
    weights: dict[str, NDArray[Any]] = {
        "first.weight": first,
        "first.bias": np.zeros(16, np.float32),
        "second.weight": second,
    }
    weights |= {"second.bias": np.zeros(64, np.float32), "fc.weight": np.zeros((4, 64), np.float32)}
    weights["fc.bias"] = np.zeros(4, np.float32)
    features = _model(weights, "flat", 64)
    session = _session(features)
    rng = np.random.default_rng(5)
    kinds = [number % 4 for number in range(1000)]
    pictures = np.stack([picture(CLASSES[kind], rng) for kind in kinds])
    rows = session.run(None, {"frames": pictures})[0]
    design = np.hstack([rows, np.ones((len(rows), 1))])
    solution, *_ = np.linalg.lstsq(design, np.eye(4)[kinds] * 8, rcond=None)
    weights["fc.weight"], weights["fc.bias"] = solution[:-1].T.astype(np.float32), solution[-1].astype(np.float32)
    return _model(weights, "probs", 4)


def _session(model: ModelProto):  # type: ignore[no-untyped-def]
    from calib.collect import open_session

    return open_session(model)


def _model(weights: dict[str, NDArray[np.float32]], output: str, width: int) -> ModelProto:
    conv = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}
    nodes = [
        helper.make_node("Cast", ["frames"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["picture"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["picture", "first.weight", "first.bias"], ["c1"], name="first", **conv),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "second.weight", "second.bias"], ["c2"], name="second", **conv),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], name="fc", transB=1),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes if output == "probs" else nodes[:-2],
        "textures",
        [info("frames", TensorProto.UINT8, ["N", SIZE, SIZE, 3])],
        [info(output, TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


class Workshop:
    """A folder with a model, its manifest and two data sets, one of them never used for calibration."""

    def __init__(self, folder: Path, imbalance: float) -> None:
        self.model = folder / "textures.onnx"
        self.ranges = folder / "textures.ranges.json"
        self.train = write_folders(folder / "train", 20, seed=1)
        self.val = write_folders(folder / "val", 25, seed=2)
        onnx.save(network(imbalance), self.model)
        spec = InputSpec(name="frames", width=SIZE, height=SIZE, layout="nhwc", dtype="uint8", colour="bgr")
        write_sidecar(
            Manifest(name="textures", task="classify", head="classify", input=spec, classes=CLASSES), self.model
        )

    def calibrate(self, frames: int = 40) -> None:
        calibrate(self.model, data=[f"classes:{self.train}"], frames=frames, as_json=True)

    def quantize(self, **options: object) -> Path:
        out = self.model.with_name("textures-int8.onnx")
        # of two convolutions, one in float is most of the compute
        options = {"allow_float": True, **options}
        quantize(self.model, data=f"classes:{self.val}", out_path=out, as_json=True, **options)  # type: ignore[arg-type]
        return out


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    shop = Workshop(tmp_path_factory.mktemp("even"), imbalance=1)
    shop.calibrate()
    return shop


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    shop = Workshop(tmp_path_factory.mktemp("uneven"), imbalance=3000)
    shop.calibrate()
    return shop


@pytest.mark.parametrize("flavour", ["fp32", "fp16", "cpu"])
def test_each_flavour_leaves_with_its_measured_accuracy(even: Workshop, flavour: str) -> None:
    out = even.quantize(flavour=flavour, max_drop=0.05)
    manifest = read_sidecar(out)
    assert manifest is not None
    assert manifest.precision == "int8"
    assert manifest.accuracy["fp32"]["top1"] > 0.8
    assert manifest.accuracy["int8"]["top1"] >= 0.95 * manifest.accuracy["fp32"]["top1"]
    assert manifest.calibration is not None
    assert manifest.calibration.float_layers == ("fc.weight",)
    assert manifest.calibration.num_frames == 40


def test_the_report_says_what_was_measured(even: Workshop) -> None:
    out = even.quantize(flavour="cpu", max_drop=0.05)
    report = json.loads(out.with_suffix(".report.json").read_text())
    assert report["num_int8"] == 2
    assert set(report["methods"]) == {"minmax", "average", "percentile", "entropy", "mse"}
    assert [layer["key"] for layer in report["layers"]] and report["histograms"]
    assert report["latency"][0]["int8_ms"] > 0
    page = out.with_suffix(".report.html").read_text()
    assert page.count("data:image/jpeg") == 8
    assert "http" not in page.replace("http-equiv", "")


def test_mixed_precision_frees_the_layer_that_cannot_be_coded(uneven: Workshop) -> None:
    out = uneven.quantize(flavour="fp32", max_drop=0.05, report=False)
    manifest = read_sidecar(out)
    assert manifest is not None
    assert manifest.calibration is not None
    assert "second.weight" in manifest.calibration.float_layers
    assert "first.weight" not in manifest.calibration.float_layers
    assert lint(onnx.load(out)).num_int8 == 1


def test_without_room_nothing_is_written_and_the_layer_is_named(
    uneven: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the budget cannot be held when every float layer still costs accuracy
    from export.quantize import quantize as module

    real = module._Work.measure

    def worse(work: module._Work, method: Method, layers: frozenset[str]) -> Figures:
        found = real(work, method, layers)
        return replace(found, metric=min(0.5, found.metric))

    monkeypatch.setattr(module._Work, "measure", worse)
    out = uneven.model.with_name("textures-int8.onnx")
    out.unlink(missing_ok=True)
    with pytest.raises(AccuracyError, match=r"the layers that cost most: second\.weight"):
        uneven.quantize(max_drop=0.001, report=False)
    assert not out.exists()


def test_footage_without_labels_has_a_budget_of_its_own(uneven: Workshop, tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    footage.mkdir()
    rng = np.random.default_rng(77)
    for number in range(60):
        cv2.imwrite(str(footage / f"{number}.png"), picture(CLASSES[number % 4], rng))
    # the labelled pictures would let everything pass
    options: dict[str, Any] = {"max_drop": 1.0, "method": "minmax", "footage": [str(footage)]}
    manifest = read_sidecar(uneven.quantize(min_agreement=0.0, report=False, **options))
    assert manifest is not None and manifest.calibration is not None
    assert manifest.calibration.float_layers == ("fc.weight",)
    assert manifest.accuracy["int8"]["footage_agreement"] < 0.9
    out = uneven.quantize(min_agreement=0.95, **options)
    manifest = read_sidecar(out)
    assert manifest is not None and manifest.calibration is not None
    assert "second.weight" in manifest.calibration.float_layers
    assert manifest.accuracy["int8"]["footage_agreement"] >= 0.95
    report = json.loads(out.with_suffix(".report.json").read_text())
    assert report["trials"][0]["on_footage"] < 0.95 <= report["footage_agreement"]
    page = out.with_suffix(".report.html").read_text()
    assert page.count("data:image/jpeg") == 16
    assert "Footage, where they differ most" in page


def test_pictures_used_for_calibration_are_not_used_to_judge(even: Workshop) -> None:
    with pytest.raises(DataError, match="were not used for calibration"):
        calibrate(
            even.model, data=[f"classes:{even.val}"], frames=100, ranges=even.ranges.with_name("v.json"), as_json=True
        )
        even.quantize(ranges=even.ranges.with_name("v.json"))


def test_a_quantized_model_is_not_quantized_again(even: Workshop) -> None:
    out = even.quantize(report=False, max_drop=0.05)
    with pytest.raises(ModelError, match="quantized already"):
        quantize(out, data=f"classes:{even.val}", ranges=even.ranges)


def test_a_model_that_recognises_nothing_is_not_quantized(even: Workshop, tmp_path: Path) -> None:
    shuffled = load_float_model(even.model)
    for item in shuffled.graph.initializer:
        if item.name == "fc.bias":
            # class 0 always, and the pictures of class 0 are taken away
            item.CopyFrom(numpy_helper.from_array(np.array([1e6, 0, 0, 0], np.float32), item.name))
    onnx.save(shuffled, tmp_path / "blind.onnx")
    manifest = read_sidecar(even.model)
    assert manifest is not None
    write_sidecar(manifest, tmp_path / "blind.onnx")
    calibrate(tmp_path / "blind.onnx", data=[f"classes:{even.train}"], frames=10, as_json=True)
    data = tmp_path / "data"
    write_folders(data, 4, seed=9)
    for path in (data / "checker").glob("*.png"):
        path.rename(data / "rows" / f"x{path.name}")
    cv2.imwrite(str(data / "checker" / "odd.png"), picture("rows", np.random.default_rng(0)))
    with pytest.raises((DataError, AccuracyError)):
        quantize(tmp_path / "blind.onnx", data=f"classes:{data}", max_drop=-1, as_json=True)


def test_fp16_goes_through_the_same_gate(even: Workshop) -> None:
    out = even.model.with_name("textures-fp16.onnx")
    quantize(even.model, data=f"classes:{even.val}", precision="fp16", out_path=out, as_json=True)
    manifest = read_sidecar(out)
    assert manifest is not None
    assert manifest.precision == "fp16"
    assert out.stat().st_size < 0.7 * even.model.stat().st_size


def test_typed_int8_keeps_in_fp32_what_would_overflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = Workshop(tmp_path, imbalance=1e5)
    shop.calibrate()
    capsys.readouterr()
    out = shop.quantize(flavour="fp16", method="minmax", float_layer=["second.weight"], max_drop=0.05, report=False)
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["kept_fp32"]) == {"c1", "r1"} and facts["kept_fp32"]["r1"] > 65504
    manifest = read_sidecar(out)
    assert manifest is not None and manifest.accuracy["int8"]["top1"] > 0.8


@pytest.mark.engine
@pytest.mark.parametrize("flavour", ["fp32", "fp16"])
def test_tensorrt_builds_the_int8_file(even: Workshop, flavour: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    out = even.quantize(flavour=flavour, max_drop=0.05, report=False)
    assert all(layer.precision == "int8" for layer in lint(onnx.load(out)).layers if layer.op == "Conv")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    net = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(net, logger)
    assert parser.parse(out.read_bytes()), [parser.get_error(place).desc() for place in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("frames", (1, SIZE, SIZE, 3), (1, SIZE, SIZE, 3), (4, SIZE, SIZE, 3))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(net, config)
    assert plan is not None
    assert plan.nbytes > 1000


@pytest.mark.engine
def test_tensorrt_refuses_what_the_linter_refuses(even: Workshop) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    out = even.quantize(flavour="cpu", max_drop=0.05, report=False)
    assert not lint(onnx.load(out)).accepted["tensorrt-rtx"]
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    net = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert not trt.OnnxParser(net, logger).parse(out.read_bytes())


def test_the_drop_comes_with_its_interval_on_pictures_that_chose_nothing(
    even: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    even.quantize(flavour="cpu", max_drop=0.3, confidence=0.95, report=False)
    facts = json.loads(capsys.readouterr().out)
    assert facts["num_judged"] == 66
    loss = facts["drop_interval"]
    assert loss["low"] <= loss["value"] <= loss["high"]
    assert loss["edge"] <= 0.3
    assert 0 < facts["float_share"] < 0.5


def test_too_few_pictures_are_told_how_many_it_takes() -> None:
    options = QuantizeOptions(max_drop=0.01, confidence=0.95)
    loss = Drop(value=0.005, low=-0.01, high=0.02, edge=0.018)
    # from 1.3 to 0.5 points of width: 6.76 times the pictures
    with pytest.raises(AccuracyError, match=r"at worst \+1\.80%.*judge on about 1014 pictures instead of 150"):
        check_edge(Path("x.onnx"), options, loss, 100)
    check_edge(Path("x.onnx"), options, Drop(0.001, -0.004, 0.006, 0.005), 100)


def test_int8_in_name_only_is_refused_unless_asked_for(even: Workshop) -> None:
    layers = {"float_layer": ["second.weight", "first.weight"], "max_drop": 0.05, "method": "minmax", "report": False}
    with pytest.raises(AccuracyError, match="INT8 in name only"):
        even.quantize(flavour="cpu", allow_float=False, **layers)
    manifest = read_sidecar(even.quantize(flavour="cpu", allow_float=True, **layers))
    assert manifest is not None
