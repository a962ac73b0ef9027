"""The quantization report: everything that was measured, as JSON and as one HTML file that needs nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from calib.calibrate import histogram_path
from calib.graph import GraphIndex, load_float_model
from calib.observers import TensorObserver
from calib.ranges import load_histograms
from edge.files import write_atomic
from edge.models.preprocess import Preprocessor
from export.lint.lint import LintReport, lint
from export.quantize.gate import main_value
from export.quantize.html import Pairs, render
from export.quantize.latency import Latency, compare_latency
from export.quantize.quantize import QuantizeResult

NUM_BARS = 96
NUM_DRAWN = 24


def report_path(model: Path, suffix: str) -> Path:
    """Where the report of a quantized model lies."""
    return model.with_suffix(f".report{suffix}")


def write_report(result: QuantizeResult, ranges: Path, *, threads: tuple[int, ...] = (1,)) -> dict[str, Any]:
    """Write ``NAME.report.json`` and ``NAME.report.html`` next to the quantized model.

    Args:
        ranges: the table; histograms lie next to it.
        threads: numbers of threads to time with.

    Returns:
        The content of the JSON.
    """
    content = describe(result, ranges, threads)
    write_atomic(report_path(result.out, ".json"), json.dumps(content, indent=1) + "\n")
    write_atomic(report_path(result.out, ".html"), render(content, _pairs(result), result.manifest))
    return content


def describe(result: QuantizeResult, ranges: Path, threads: tuple[int, ...]) -> dict[str, Any]:
    """The report as JSON values."""
    checked = lint(onnx.load(result.out))
    return {
        "model": result.path.name,
        "out": result.out.name,
        "flavour": result.scheme.flavour,
        "method": result.scheme.method,
        "metric": result.before.main_metric,
        "fp32": main_value(result.before),
        "int8": main_value(result.after),
        "drop": result.drop,
        "dataset": {"name": result.before.dataset, "pictures": result.before.num_images},
        "calibration": {"frames": result.table.frames, "origin": result.table.origin},
        "metrics": {"fp32": result.before.metrics, "int8": result.after.metrics},
        "per_class": _per_class(result),
        "bytes": {"fp32": result.path.stat().st_size, "int8": result.out.stat().st_size},
        "latency": _latency(result, threads),
        "engine": f"onnxruntime {ort.__version__} CPU",
        "agreement": result.verdict.agreement,
        "footage_agreement": result.verdict.figures.on_footage,
        "methods": {name: asdict(figures) for name, figures in result.methods.items()},
        "layers": _layers(result),
        "trials": [{"float_layers": len(trial.float_layers), **asdict(trial.figures)} for trial in result.trials],
        "accepted": checked.accepted,
        "num_int8": checked.num_int8,
        "num_layers": len(checked.layers),
        "findings": _findings(checked),
        "histograms": _histograms(result, ranges),
    }


def _pairs(result: QuantizeResult) -> dict[str, Pairs]:
    """Pictures with what the float and the written model find in them, by the title of their section."""
    both = zip(result.shots[0].taken, result.shots[1].taken, strict=False)
    pairs: dict[str, Pairs] = {"Pictures": [(image, before, after) for (image, before), (_, after) in both]}
    if result.verdict.footage is not None:
        pairs["Footage, where they differ most"] = result.verdict.footage.pairs
    return pairs


def _findings(checked: LintReport) -> list[dict[str, Any]]:
    """Findings of one kind together, with the nodes that they are about."""
    groups: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for item in checked.findings:
        groups.setdefault((item.severity, item.rule, item.message, item.targets), []).append(item.node)
    return [
        {"severity": severity, "rule": rule, "message": message, "targets": list(targets), "nodes": nodes}
        for (severity, rule, message, targets), nodes in groups.items()
    ]


def _per_class(result: QuantizeResult) -> list[dict[str, Any]]:
    rows = []
    for name, before in result.before.per_class.items():
        metric = next((key for key in (result.before.main_metric, "ap", "map", "iou", "top1") if key in before), "")
        if metric:
            after = result.after.per_class.get(name, {}).get(metric)
            rows.append({"class": name, "fp32": before[metric], "int8": after})
    return rows


def _latency(result: QuantizeResult, threads: tuple[int, ...]) -> list[dict[str, Any]]:
    image = result.shots[0].taken[0][0]
    tensor, _ = Preprocessor(result.manifest.input, 1).images([image])
    rows = []
    for count in threads:
        found = compare_latency({"fp32": result.path, "int8": result.out}, tensor, threads=count)
        rows.append({"threads": count, **_times(found), "ratio": found["fp32"].median_ms / found["int8"].median_ms})
    return rows


def _times(found: dict[str, Latency]) -> dict[str, float]:
    return {f"{name}_ms": round(latency.median_ms, 3) for name, latency in found.items()}


def _layers(result: QuantizeResult) -> list[dict[str, Any]]:
    floats = result.scheme.float_layers or frozenset()
    return [{**asdict(effect), "is_float": effect.key in floats} for effect in result.effects]


def _histograms(result: QuantizeResult, ranges: Path) -> list[dict[str, Any]]:
    """The inputs of the most sensitive layers; empty where the histograms are not next to the table."""
    path = histogram_path(ranges)
    if not path.is_file():
        return []
    observers = load_histograms(path)
    index = GraphIndex(load_float_model(result.path))
    role_of = {layer.key: index.roles[layer.source] for layer in index.layers}
    drawn: list[dict[str, Any]] = []
    for effect in result.effects:
        role = role_of[effect.key]
        if role in observers and role in result.table.tensors and len(drawn) < NUM_DRAWN:
            clip = result.table.tensors[role].clip
            drawn.append({"layer": effect.key, "tensor": role, "clip": clip, **_bars(observers[role])})
    return drawn


def _bars(seen: TensorObserver) -> dict[str, Any]:
    """The used part of a histogram in 96 bars, as logarithms of counts."""
    edges = np.linspace(seen.low, seen.high if seen.high > seen.low else seen.low + 1, NUM_BARS + 1)
    counts, _ = np.histogram(seen.centres, edges, weights=seen.bins.astype(np.float64))
    return {"low": seen.low, "high": seen.high, "bars": [round(float(value), 3) for value in np.log10(1 + counts)]}
