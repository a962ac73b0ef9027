"""ONNX Runtime: every machine's engine on the CPU, and through its CUDA and TensorRT providers a fallback on GPUs."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from edge.addresses.printable import first_line
from edge.engines.cuda.library import LOADING, prepare_context
from edge.engines.ort_binding import DeviceRunner
from edge.engines.ort_providers import (
    DEVICES,
    DISABLED_OPTIMIZERS,
    Wishes,
    check_came_up,
    load_libraries,
    providers_for,
    session_options,
)
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
# part of what ONNX Runtime says → what helps
LOAD_HINTS = {
    "not a registered function/op": "it has operators of another runtime, such as a plugin's NMS: export it without "
    "them",
    "find an implementation": "the operator takes other types of numbers here: export the model all in float32, or "
    "with another opset",
}
# with memory bound to a device, ONNX Runtime raises plain RuntimeError too
RUN_FAILURES = (*_LOAD_FAILURES, failures.EPFail, failures.EngineError, RuntimeError)


class OrtEngine:
    """A model in ONNX Runtime; see ``edge.interfaces.Engine`` and ``GivesAway``."""

    def __init__(
        self,
        path: Path,
        *,
        kind: str = "ort",
        threads: int | None = None,
        max_batch: int | None = None,
        device: int = 0,
        extra: Mapping[str, Sequence[float] | Sequence[Sequence[float]]] | None = None,
    ) -> None:
        """Load the model.

        Args:
            path: the ONNX file.
            kind: ``ort`` (CPU), ``ort-cuda`` or ``ort-tensorrt``.
            threads: of the CPU provider; None picks one per core, at most four.
            max_batch: largest batch of a model with a dynamic batch; None means 16.
            device: number of the GPU of ``ort-cuda`` and ``ort-tensorrt``.
            extra: input next to the picture → what it is given for each frame.

        Raises:
            ModelError: no model that ONNX Runtime can load.
            MissingError: the provider is not in this ONNX Runtime.
        """
        self._threads = threads or min(4, len(os.sched_getaffinity(0)))
        self._kind = kind
        self._device = device
        # no other engine on a GPU records its work meanwhile
        with LOADING if kind in DEVICES else contextlib.nullcontext():
            self._session: Any = _load(path, kind, self._threads, device, max_batch)
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

    @property
    def gives_away(self) -> bool:
        """Memory that is bound to a device is used again; without, every run has outputs of its own."""
        return self._runner is None

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        try:
            if self._runner is not None:
                return self._runner.run(tensor)
            extra = {name: np.repeat(row, len(tensor), 0) for name, row in self._extra.items()}
            values = self._session.run(self._output_names, {self.inputs[0].name: tensor, **extra})
        except RUN_FAILURES as error:
            raise EngineError(f"{self.name}: {first_line(error)}") from None
        return dict(zip(self._output_names, values, strict=True))

    def close(self) -> None:
        if self._runner is not None:
            # what is bound goes before the session that it belongs to
            self._runner.close()
            self._runner = None
        # freeing memory of a GPU waits for it, which would break what another engine records
        with LOADING if self._kind in DEVICES else contextlib.nullcontext():
            self._session = None

    def _build(self, path: Path) -> None:
        """Run the largest and the smallest batch, so that TensorRT builds for all between before frames wait for it."""
        log.info("%s: TensorRT builds for batches of 1 to %d unless it has done so before", path.name, self.max_batch)
        size = [length or 1 for length in self.inputs[0].shape[1:]]
        with LOADING:
            for batch in sorted({self.max_batch, self.max_batch if self.is_fixed_batch else 1}, reverse=True):
                self.infer(np.zeros((batch, *size), self.inputs[0].dtype))

    def _runner_on(self, device: str) -> DeviceRunner:
        return DeviceRunner(self._session, self.inputs[0], self.outputs, device, self._device)


def _load(path: Path, kind: str, threads: int, device: int, max_batch: int | None) -> Any:
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    wishes = _wishes(path, device, max_batch) if kind == "ort-tensorrt" else Wishes(device)
    providers = providers_for(kind, wishes)
    load_libraries(kind)
    if kind in DEVICES:
        prepare_context(device)
    try:
        # without the flag a GPU that fails while it runs is replaced by the CPU, unasked
        session = ort.InferenceSession(
            str(path),
            session_options(threads),
            providers=providers,
            disabled_optimizers=list(DISABLED_OPTIMIZERS),
            enable_fallback=0,
        )
    except RUN_FAILURES as error:
        hint = next((text for part, text in LOAD_HINTS.items() if part in str(error)), "is it an ONNX model?")
        raise ModelError(f"{path.name}: ONNX Runtime cannot load it ({first_line(error)}); {hint}") from None
    check_came_up(session, kind, path.name)
    return session


def _wishes(path: Path, device: int, max_batch: int | None) -> Wishes:
    facts = read_graph(path)
    tensors = (*facts.inputs, *facts.outputs)
    has_float16 = "float16" in facts.weight_bytes or any(info.dtype == "float16" for info in tensors)
    # a size that is dynamic next to the batch cannot be told before
    is_known = bool(facts.inputs) and all(
        info.shape and info.shape[0] is None and None not in info.shape[1:] for info in facts.inputs
    )
    shapes = {info.name: [size or 1 for size in info.shape[1:]] for info in facts.inputs} if is_known else {}
    is_quantized = "QuantizeLinear" in facts.operators
    return Wishes(device, is_quantized, has_float16, shapes, max_batch or DYNAMIC_MAX_BATCH)


def _info(value: Any) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    return TensorInfo(value.name, shape, _DTYPES.get(value.type, value.type))
