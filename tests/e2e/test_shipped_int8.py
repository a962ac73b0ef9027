"""The detector that is shipped in INT8 is small, runs on integer kernels and sees what the float one sees."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort

from edge.models.manifest import read_sidecar
from edge.models.shipped import demo_model
from export.data.open_data import open_dataset
from export.evaluate.evaluate import evaluate_model


def test_its_manifest_carries_the_accuracy_that_was_measured() -> None:
    manifest = read_sidecar(demo_model())
    assert manifest is not None
    assert manifest.precision == "int8"
    assert manifest.calibration is not None
    assert manifest.accuracy["int8"]["map"] >= 0.99 * manifest.accuracy["fp32"]["map"]
    assert demo_model().stat().st_size < 6_000_000


def test_only_its_last_layers_are_float(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(demo_model()), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    manifest = read_sidecar(demo_model())
    assert manifest is not None and manifest.calibration is not None
    assert kinds["Conv"] + kinds["FusedConv"] == len(manifest.calibration.float_layers)
    assert kinds["QLinearConv"] > 8 * kinds["Conv"]
    # nothing is coded while it runs: bytes in, integers through, floats at the last layers
    assert kinds["QuantizeLinear"] == 0


def test_it_sees_pictures_that_nobody_has_used_before() -> None:
    dataset = open_dataset("synthetic:street?seed=770077&count=10&size=1280x720")
    measured = evaluate_model(demo_model(), dataset, engine="ort").metrics["map"]
    manifest = read_sidecar(demo_model())
    assert manifest is not None
    # ten pictures say no more than this
    assert abs(measured - manifest.accuracy["int8"]["map"]) < 0.12
