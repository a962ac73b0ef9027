"""Compares the speed of ONNX models on this CPU: runs take turns, so that a busy moment hits all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edge.engines.ort_providers import DISABLED_OPTIMIZERS, session_options
from edge.types import Array

WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds per frame. Attributes: ``median_ms``, ``p99_ms``, ``threads``, ``runs``."""

    median_ms: float
    p99_ms: float
    threads: int
    runs: int


def compare_latency(models: Mapping[str, Path], frame: Array, *, threads: int, runs: int = 30) -> dict[str, Latency]:
    """Time single frames in ONNX Runtime's CPU provider.

    Args:
        models: name → ONNX file; all have the same input.
        frame: (1, …) input tensor.
        threads: of ONNX Runtime.
        runs: per model.
    """
    sessions = {name: _session(path, threads) for name, path in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(WARM_UP + runs):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(None, {session.get_inputs()[0].name: frame})
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    return {
        name: Latency(float(np.median(taken)) * 1e3, float(np.percentile(taken, 99)) * 1e3, threads, runs)
        for name, taken in seconds.items()
    }


def _session(path: Path, threads: int) -> Any:
    return ort.InferenceSession(
        str(path),
        session_options(threads),
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(DISABLED_OPTIMIZERS),
    )
