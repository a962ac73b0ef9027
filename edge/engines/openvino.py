"""OpenVINO: on many Intel and AMD processors faster than ONNX Runtime, on the same ONNX file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov

from edge.engines.openvino_cache import load_compiled, the_core
from edge.errors import EngineError, ModelError
from edge.interfaces import TensorInfo

if TYPE_CHECKING:
    from edge.types import Array

DYNAMIC_MAX_BATCH = 16
CAPABILITIES = "OPTIMIZATION_CAPABILITIES"
OWN_OUTPUTS = ("boxes", "scores", "labels", "class_map", "probs")


class OpenVinoEngine:
    """A model in OpenVINO on the CPU; see ``edge.interfaces.Engine``."""

    def __init__(
        self,
        path: Path,
        *,
        kind: str = "openvino",
        threads: int | None = None,
        max_batch: int | None = None,
        extra: Mapping[str, Sequence[float] | Sequence[Sequence[float]]] | None = None,
    ) -> None:
        """Load the model; the other arguments are those of ``edge.engines.ort.OrtEngine``.

        Args:
            kind: ``openvino``, or ``openvino-bf16`` to compute the model's float layers in bfloat16: up to 1.7 times as
                fast, at the price of a little accuracy (``edge eval --backend openvino-bf16`` tells how much).

        Raises:
            ModelError: no model that OpenVINO can load.
            EngineError: bfloat16 was asked for and this processor has no instructions for it.
        """
        if (is_bfloat16 := kind == "openvino-bf16") and "BF16" not in the_core().get_property("CPU", CAPABILITIES):
            raise EngineError("engine 'openvino-bf16': this processor does not compute in bfloat16; use 'openvino'")
        self._kind = kind
        self._threads = threads or min(4, len(os.sched_getaffinity(0)))
        if not path.is_file():
            raise ModelError(f"{path}: no such model file")
        hints = {
            "INFERENCE_NUM_THREADS": self._threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # left to itself OpenVINO takes bfloat16 for float32 models where the processor can, and says so nowhere
            "INFERENCE_PRECISION_HINT": "bf16" if is_bfloat16 else "f32",
        }
        try:
            compiled, names = load_compiled(path, hints, lambda model: [_name(port) for port in model.outputs])
        except RuntimeError as error:
            raise ModelError(f"{path.name}: OpenVINO cannot load it ({_last_line(error)}); try engine 'ort'") from None
        self._compiled: Any = compiled
        self._request: Any = self._compiled.create_infer_request()
        infos = [_info(port, _name(port)) for port in self._compiled.inputs]
        self.inputs: Sequence[TensorInfo] = [info for info in infos if info.name not in (extra or {})]
        if len(self.inputs) != 1:
            named = ", ".join(info.name for info in infos)
            raise ModelError(f"{path.name}: expected one input, found {len(infos)} ({named})")
        self._image = infos.index(self.inputs[0])
        self._extra = {
            number: np.array([(extra or {})[info.name]], info.dtype)
            for number, info in enumerate(infos)
            if number != self._image
        }
        outputs = zip(self._compiled.outputs, names, strict=True)
        self.outputs: Sequence[TensorInfo] = [_info(port, name) for port, name in outputs]
        batch = self.inputs[0].shape[0]
        self.is_fixed_batch = batch is not None
        self.max_batch = batch if batch is not None else max_batch or DYNAMIC_MAX_BATCH

    @property
    def name(self) -> str:
        return f"{self._kind} {ov.__version__.split('-')[0]} CPU, {self._threads} threads"

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        try:
            extra = {number: np.repeat(row, len(tensor), 0) for number, row in self._extra.items()}
            image = ov.Tensor(np.ascontiguousarray(tensor), shared_memory=True)
            self._request.infer({self._image: image, **extra})
        except RuntimeError as error:
            raise EngineError(f"{self.name}: {_last_line(error)}") from None
        return {info.name: self._request.get_output_tensor(index).data for index, info in enumerate(self.outputs)}

    def close(self) -> None:
        self._request = None
        self._compiled = None


def _info(port: Any, name: str) -> TensorInfo:
    shape = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
    return TensorInfo(name, shape, str(np.dtype(port.get_element_type().to_dtype())))


def _name(port: Any) -> str:
    """The name that the ONNX file gives; OpenVINO keeps names of inner tensors next to it."""
    names = port.get_names()
    own = [name for name in OWN_OUTPUTS if name in names]
    chosen: str = own[0] if own else port.get_any_name()
    return chosen


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip()[:200]
