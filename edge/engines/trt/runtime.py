"""Running a plan with any TensorRT: tensors by name, profiles, execution contexts, the runtime cache of RTX."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EngineError
from edge.files import atomic_path
from edge.interfaces import TensorInfo
from edge.models.manifest import Profile

if TYPE_CHECKING:
    from edge.engines.trt.api import TensorRt

log = logging.getLogger(__name__)

DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


class LoadedPlan:
    """A deserialised engine. The GPU's context must be current in the calling thread."""

    def __init__(
        self, api: TensorRt, plan: bytes, name: str, cache: Path | None = None, *, has_host_code: bool = False
    ) -> None:
        """Load a plan.

        Args:
            name: of the file, for messages.
            has_host_code: let the plan bring machine code for this processor, as plans do that run on later releases.
            cache: file for the kernels that TensorRT for RTX compiles on this GPU; read now, written by ``save_cache``.

        Raises:
            EngineError: TensorRT refuses the plan.
        """
        self._api = api
        self._name = name
        self._cache = cache
        self._runtime = api.trt.Runtime(api.logger)
        self._runtime.engine_host_code_allowed = has_host_code
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"{name}: {api.title} refuses the engine ({api.last_message()}); run: edge build")
        self._config = self._runtime_config()

    def tensors(self) -> tuple[list[TensorInfo], list[TensorInfo]]:
        """Inputs and outputs, in the engine's order."""
        engine = self._engine
        inputs: list[TensorInfo] = []
        outputs: list[TensorInfo] = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
            info = TensorInfo(name, shape, self._dtype_name(engine.get_tensor_dtype(name), name))
            is_input = engine.get_tensor_mode(name) == self._api.trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(info)
        return inputs, outputs

    def profiles(self, input_name: str) -> tuple[Profile, ...]:
        """Batch sizes of each optimisation profile."""
        found = []
        for index in range(self._engine.num_optimization_profiles):
            low, likely, high = (int(shape[0]) for shape in self._engine.get_tensor_profile_shape(input_name, index))
            found.append(Profile(min_batch=low, opt_batch=likely, max_batch=high))
        return tuple(found)

    def context(self, profile: int, stream: int) -> Any:
        """An execution context for one profile.

        Args:
            stream: handle of the CUDA stream that it will run on.

        Raises:
            EngineError: there is not enough memory for it.
        """
        if self._config is None:
            context = self._engine.create_execution_context()
        else:
            context = self._engine.create_execution_context(self._config)
        if context is None or not context.set_optimization_profile_async(profile, stream):
            raise EngineError(
                f"{self._name}: no execution context ({self._api.last_message()}); close other programs that use the "
                "GPU, or build for a smaller batch"
            )
        return context

    def can_capture(self, context: Any, stream: int) -> bool:
        """Whether the next run may be recorded as a CUDA graph; RTX cannot while it compiles kernels."""
        return not hasattr(context, "is_stream_capturable") or bool(context.is_stream_capturable(stream))

    def last_message(self) -> str:
        return self._api.last_message()

    def save_cache(self) -> None:
        """Keep the kernels that RTX compiled, so that the next start is fast; a folder without write access is fine."""
        if self._config is None or self._cache is None:
            return
        data = bytes(self._config.get_runtime_cache().serialize())
        if self._cache.is_file() and self._cache.read_bytes() == data:
            return
        try:
            with atomic_path(self._cache) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            log.info("%s: compiled kernels are not kept (%s)", self._cache, error.strerror)

    def _runtime_config(self) -> Any:
        """Settings that only TensorRT for RTX has; None elsewhere."""
        if not self._api.is_rtx:
            return None
        config = self._engine.create_runtime_config()
        cache = config.create_runtime_cache()
        if self._cache is not None and self._cache.is_file() and not cache.deserialize(self._cache.read_bytes()):
            log.info("%s: made by another driver or GPU, kernels are compiled again", self._cache)
        config.set_runtime_cache(cache)
        return config

    def _dtype_name(self, dtype: Any, tensor: str) -> str:
        for member, name in DTYPES.items():
            # 8.6 knows no INT64
            if getattr(self._api.trt.DataType, member, None) == dtype:
                return name
        raise EngineError(
            f"{self._name}: tensor {tensor!r} has type {dtype}, expected one of {', '.join(DTYPES.values())}"
        )
