"""ONNX Runtime: every machine's engine on the CPU, and through its CUDA and TensorRT providers a fallback on GPUs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from edge.engines.ort_binding import DeviceRunner
from edge.engines.ort_providers import DEVICES, check_came_up, load_libraries, providers_for, session_options
from edge.errors import EngineError, ModelError
from edge.interfaces import TensorInfo
from edge.models.onnx_graph import read_graph

if TYPE_CHECKING:
    from edge.types import Array

log = logging.getLogger(__name__)
DYNAMIC_MAX_BATCH = 16
_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}
_LOAD_FAILURES = (
    failures.Fail,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.InvalidArgument,
    failures.NotImplemented,
    failures.RuntimeException,
)
# with memory bound to a device, ONNX Runtime raises plain RuntimeError too
RUN_FAILURES = (*_LOAD_FAILURES, failures.EPFail, failures.EngineError, RuntimeError)


class OrtEngine:
    """A model in ONNX Runtime; see ``edge.interfaces.Engine``."""

    def __init__(
        self,
        path: Path,
        *,
        kind: str = "ort",
        threads: int | None = None,
        max_batch: int | None = None,
        extra: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Load the model.

        Args:
            path: the ONNX file.
            kind: ``ort`` (CPU), ``ort-cuda`` or ``ort-tensorrt``.
            threads: of the CPU provider; None picks one per core, at most four.
            max_batch: largest batch of a model with a dynamic batch; None means 16.
            extra: input beside the picture → what it is given for each frame.

        Raises:
            ModelError: no model that ONNX Runtime can load.
            MissingError: the provider is not in this ONNX Runtime.
        """
        self._threads = threads or min(4, len(os.sched_getaffinity(0)))
        self._kind = kind
        self._session: Any = _load(path, kind, self._threads)
        infos = [_info(value) for value in self._session.get_inputs()]
        self.inputs: Sequence[TensorInfo] = [info for info in infos if info.name not in (extra or {})]
        self._extra = {
            info.name: np.array([(extra or {})[info.name]], info.dtype) for info in infos if info not in self.inputs
        }
        self.outputs: Sequence[TensorInfo] = [_info(value) for value in self._session.get_outputs()]
        if len(self.inputs) != 1:
            names = ", ".join(tensor.name for tensor in self.inputs)
            raise ModelError(f"{path.name}: expected one input, found {len(self.inputs)} ({names})")
        if self._extra and kind in DEVICES:
            raise ModelError(f"{path.name}: {kind} runs models with one input, this one has more; use engine 'ort'")
        batch = self.inputs[0].shape[0]
        self.is_fixed_batch = batch is not None
        self.max_batch = batch if batch is not None else max_batch or DYNAMIC_MAX_BATCH
        self._output_names = [tensor.name for tensor in self.outputs]
        self._runner = self._runner_on(DEVICES[kind]) if kind in DEVICES else None
        if kind == "ort-tensorrt":
            self._build(path)

    @property
    def name(self) -> str:
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        threads = f", {self._threads} threads" if provider == "CPU" else ""
        return f"onnxruntime {ort.__version__} {provider}{threads}"

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        try:
            if self._runner is not None:
                return self._runner.run(tensor)
            extra = {name: np.repeat(row, len(tensor), 0) for name, row in self._extra.items()}
            values = self._session.run(self._output_names, {self.inputs[0].name: tensor, **extra})
        except RUN_FAILURES as error:
            raise EngineError(f"{self.name}: {_first_line(error)}") from None
        return dict(zip(self._output_names, values, strict=True))

    def close(self) -> None:
        if self._runner is not None:
            # what is bound goes before the session that it belongs to
            self._runner.close()
            self._runner = None
        self._session = None

    def _build(self, path: Path) -> None:
        """Run the largest and the smallest batch, so that TensorRT builds for all between before frames wait for it."""
        log.info("%s: TensorRT builds for batches of 1 to %d unless it has done so before", path.name, self.max_batch)
        size = [length or 1 for length in self.inputs[0].shape[1:]]
        for batch in sorted({self.max_batch, self.max_batch if self.is_fixed_batch else 1}, reverse=True):
            self.infer(np.zeros((batch, *size), self.inputs[0].dtype))

    def _runner_on(self, device: str) -> DeviceRunner:
        return DeviceRunner(self._session, self.inputs[0], self.outputs, device)


def _load(path: Path, kind: str, threads: int) -> Any:
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    is_quantized = kind == "ort-tensorrt" and "QuantizeLinear" in read_graph(path).operators
    providers = providers_for(kind, is_quantized=is_quantized)
    load_libraries(kind)
    try:
        # without the flag a GPU that fails while it runs is replaced by the CPU, unasked
        session = ort.InferenceSession(str(path), session_options(threads), providers=providers, enable_fallback=0)
    except RUN_FAILURES as error:
        raise ModelError(
            f"{path.name}: ONNX Runtime cannot load it ({_first_line(error)}); is it an ONNX model?"
        ) from None
    check_came_up(session, kind, path.name)
    return session


def _info(value: Any) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    return TensorInfo(value.name, shape, _DTYPES.get(value.type, value.type))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
