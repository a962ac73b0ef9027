"""ONNX Runtime: every machine's engine on the CPU, and through its CUDA and TensorRT providers a fallback on GPUs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from edge.errors import EngineError, MissingError, ModelError
from edge.interfaces import TensorInfo
from edge.types import Array

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
_PROVIDERS = {
    "ort": ["CPUExecutionProvider"],
    "ort-cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "ort-tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}
_LOAD_FAILURES = (
    failures.Fail,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.InvalidArgument,
    failures.NotImplemented,
    failures.RuntimeException,
)


class OrtEngine:
    """A model in ONNX Runtime; see ``edge.interfaces.Engine``."""

    def __init__(
        self, path: Path, *, kind: str = "ort", threads: int | None = None, max_batch: int | None = None
    ) -> None:
        """Load the model.

        Args:
            path: the ONNX file.
            kind: ``ort`` (CPU), ``ort-cuda`` or ``ort-tensorrt``.
            threads: of the CPU provider; None picks one per core, at most four.
            max_batch: largest batch of a model with a dynamic batch; None means 16.

        Raises:
            ModelError: no model that ONNX Runtime can load.
            MissingError: the provider is not in this ONNX Runtime.
        """
        self._threads = threads or min(4, len(os.sched_getaffinity(0)))
        self._kind = kind
        self._session: Any = _load(path, _providers(kind), self._threads)
        self.inputs: Sequence[TensorInfo] = [_info(value) for value in self._session.get_inputs()]
        self.outputs: Sequence[TensorInfo] = [_info(value) for value in self._session.get_outputs()]
        if len(self.inputs) != 1:
            names = ", ".join(tensor.name for tensor in self.inputs)
            raise ModelError(f"{path.name}: expected one input, found {len(self.inputs)} ({names})")
        batch = self.inputs[0].shape[0]
        self.is_fixed_batch = batch is not None
        self.max_batch = batch if batch is not None else max_batch or DYNAMIC_MAX_BATCH
        self._output_names = [tensor.name for tensor in self.outputs]

    @property
    def name(self) -> str:
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        threads = f", {self._threads} threads" if provider == "CPU" else ""
        return f"onnxruntime {ort.__version__} {provider}{threads}"

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        try:
            values = self._session.run(self._output_names, {self.inputs[0].name: tensor})
        except (*_LOAD_FAILURES, failures.EPFail, failures.EngineError) as error:
            raise EngineError(f"{self.name}: {_first_line(error)}") from None
        return dict(zip(self._output_names, values, strict=True))

    def close(self) -> None:
        self._session = None


def _providers(kind: str) -> list[str]:
    wanted = _PROVIDERS[kind]
    available = ort.get_available_providers()
    if wanted[0] not in available:
        raise MissingError(
            f"engine {kind!r} needs {wanted[0]}, this onnxruntime has {', '.join(available)}; "
            "run: pip install onnxruntime-gpu"
        )
    return [provider for provider in wanted if provider in available]


def _load(path: Path, providers: list[str], threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # a spinning pool takes the cores from decoding and drawing
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except failures.NoSuchFile:
        raise ModelError(f"{path}: no such model file") from None
    except _LOAD_FAILURES as error:
        raise ModelError(
            f"{path.name}: ONNX Runtime cannot load it ({_first_line(error)}); is it an ONNX model?"
        ) from None


def _info(value: Any) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    return TensorInfo(value.name, shape, _DTYPES.get(value.type, value.type))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
