"""Runs a Q/DQ model on the CPU exactly as it is written, for judging files that are made for TensorRT.

ONNX Runtime's optimiser moves the Q/DQ nodes of FP16 graphs, which costs 6 to 10 dB that TensorRT does not lose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from calib.collect import open_session
from edge.engines.ort import OrtEngine
from edge.interfaces import TensorInfo
from edge.types import Array


class ExactEngine:
    """ONNX Runtime's CPU provider without graph optimisation; see ``edge.interfaces.Engine``."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._usual = OrtEngine(path, threads=threads)
        self._session = open_session(onnx.load(path), threads=threads or 1, optimize=False)
        self._names = [tensor.name for tensor in self._usual.outputs]

    @property
    def name(self) -> str:
        return f"{self._usual.name}, not optimised"

    @property
    def inputs(self) -> Sequence[TensorInfo]:
        return self._usual.inputs

    @property
    def outputs(self) -> Sequence[TensorInfo]:
        return self._usual.outputs

    @property
    def max_batch(self) -> int:
        return self._usual.max_batch

    @property
    def is_fixed_batch(self) -> bool:
        return self._usual.is_fixed_batch

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        values = self._session.run(self._names, {self.inputs[0].name: tensor})
        return dict(zip(self._names, values, strict=True))

    def close(self) -> None:
        self._usual.close()
