"""Accuracy, size and speed of our INT8 and FP16 files next to those of onnxruntime.quantization's defaults.

Prints the rows of the table in docs/int8.md: ``pytest tests/bench/test_int8_peers.py -m bench -s``
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from calib.calibrate import calibrate
from calib.clipping import Method
from calib.frames import FrameSet, choose_frames, dataset_candidates
from calib.graph import load_float_model
from calib.ranges import RangeTable
from edge.model import find_manifest
from edge.types import Array
from export.data.open_data import first, open_dataset
from export.data.sample import Dataset
from export.evaluate.evaluate import Report
from export.lint.lint import lint
from export.quantize.convert_fp16 import convert_to_half
from export.quantize.gate import Gate, Remembered, main_value
from export.quantize.latency import compare_latency
from export.quantize.quantize import QuantizeOptions, quantize

pytestmark = [pytest.mark.bench, pytest.mark.shared, pytest.mark.timeout(3600)]
CALIBRATION_FRAMES = 100
STREET = "person,bicycle,car,motorbike,bus,train,cat,dog,horse"
SHIPPED = Path(__file__).parents[2] / "edge" / "models"


@dataclass(frozen=True)
class Case:
    """A model and what it is calibrated on and judged by; ``{}`` is the folder of shared data.

    Attributes:
        methods: what ``--method auto`` chose for flavours ``fp32`` and ``cpu``.
    """

    model: str
    train: str
    val: str
    methods: tuple[Method, Method]


CASES = {
    "yolox_nano_416": Case(
        "{}/models/yolox_nano_416.onnx",
        "coco:{}/detection/voc07/train.json",
        "coco:{}/detection/coco80/instances.json",
        ("entropy", "average"),
    ),
    "nanodet_m_320": Case(
        "{}/models/nanodet_m_320.onnx",
        "coco:{}/detection/voc07/train.json",
        "coco:{}/detection/coco80/instances.json",
        ("average", "mse"),
    ),
    "street-nano": Case(
        f"{SHIPPED}/street-nano.onnx",
        "synthetic:street?seed=5&count=120&size=1280x720&variety=plain",
        "synthetic:street?seed=777000&count=60&size=1280x720&variety=plain",
        ("average", "average"),
    ),
    "real-street": Case(
        f"{SHIPPED}/real-street.onnx",
        f"coco:{{}}/detection/voc07/train.json?only={STREET}",
        f"coco:{{}}/detection/voc07/val.json?only={STREET}",
        ("minmax", "minmax"),
    ),
    "street-segment-nano": Case(
        f"{SHIPPED}/street-segment-nano.onnx",
        "synthetic:street?seed=5&count=120&size=1280x720&variety=plain",
        "synthetic:street?seed=777000&count=60&size=1280x720&variety=plain",
        ("average", "average"),
    ),
    "cifar10-nano": Case(
        f"{SHIPPED}/cifar10-nano.onnx",
        "classes:{}/classification/cifar10/train",
        "classes:{}/classification/cifar10/val",
        ("average", "average"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_int8_beside_the_defaults_of_onnxruntime(name: str, shared_data: Path, tmp_path: Path) -> None:
    case = CASES[name]
    original = Path(case.model.format(shared_data))
    model = Path(shutil.copy(original, tmp_path))
    shutil.copy(original.with_suffix(".json"), tmp_path)
    manifest = find_manifest(model)
    assert manifest.task != "embed"
    task = manifest.task if case.train.startswith("synthetic") else None
    train, val = (open_dataset(uri.format(shared_data), task, on_error="skip") for uri in (case.train, case.val))
    judged = first(val, int(os.environ.get("EDGELOOP_PICTURES", "1000")))
    frames = choose_frames(dataset_candidates(train, 0), manifest.input, CALIBRATION_FRAMES, origin=train.name)
    table = calibrate(model, manifest, frames, tmp_path / "ranges.json").table
    files = {"fp32": model, "ort defaults": _peer(model, frames, tmp_path)}
    gate = Gate(model, manifest, Remembered(judged), threads=1)
    rows = {"fp32": _accuracy(gate.before)}
    rows["ort defaults"] = _accuracy(gate.judge_file(files["ort defaults"]).report)
    half = convert_to_half(model, judged, tmp_path / "half.onnx")
    files["fp16"], rows["fp16"] = half.out, _accuracy(half.after)
    for flavour, method in zip(("fp32", "cpu"), case.methods, strict=True):
        files[f"int8 {flavour}"] = tmp_path / f"int8-{flavour}.onnx"
        rows[f"int8 {flavour}"] = _ours(model, table, judged, files[f"int8 {flavour}"], flavour, method)
    _add_facts(rows, files, next(iter(frames.source(1).tensors())))
    print(f"\n{name} " + json.dumps(rows, indent=1))
    for flavour in ("fp32", "cpu"):
        assert rows[f"int8 {flavour}"]["metric"] >= 0.99 * rows["fp32"]["metric"]
    assert rows["ort defaults"]["metric"] < rows["int8 cpu"]["metric"] + 0.01


def _accuracy(report: Report) -> dict[str, Any]:
    return {"metric": main_value(report), "name": report.main_metric}


def _ours(model: Path, table: RangeTable, judged: Dataset, out: Path, flavour: str, method: Method) -> dict[str, Any]:
    result = quantize(model, table, judged, out, QuantizeOptions(flavour=flavour, method=method, ranks_layers=False))  # type: ignore[arg-type]
    floats = sorted(result.scheme.float_layers or ())
    facts = {"float": f"{len(floats)} of {result.num_layers}", "method": method}
    return _accuracy(result.after) | {"agreement": result.verdict.agreement} | facts


def _peer(model: Path, frames: FrameSet, folder: Path) -> Path:
    """What ``quantize_static`` makes when nothing but the calibration frames is given."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._tensors: Iterator[Array] = iter(frames.source(32).tensors())

        def get_next(self) -> dict[str, Array] | None:
            tensor = next(self._tensors, None)
            return None if tensor is None else {name: tensor.copy()}

    # at the opset that per-channel Q/DQ needs, as its own documentation asks
    prepared = folder / "prepared.onnx"
    onnx.save(load_float_model(model), prepared)
    name = onnx.load(prepared).graph.input[0].name
    quantize_static(prepared, folder / "peer.onnx", Reader())
    return folder / "peer.onnx"


def _add_facts(rows: dict[str, dict[str, Any]], files: dict[str, Path], frame: Array) -> None:
    """Size, TensorRTs that take it, and latency: one and two threads, all files in turn."""
    for name, path in files.items():
        rows[name]["megabytes"] = round(path.stat().st_size / 1e6, 2)
        accepted = lint(onnx.load(path)).accepted
        rows[name]["tensorrt"] = [target for target, is_taken in accepted.items() if is_taken]
    for threads in (1, 2):
        for name, latency in compare_latency(files, frame, threads=threads, runs=20).items():
            rows[name][f"ms_{threads}"] = round(latency.median_ms, 1)
