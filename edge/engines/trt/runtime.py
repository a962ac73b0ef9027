"""Running a plan with any TensorRT: tensors by name, profiles, execution contexts, the runtime cache of RTX."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.engines.trt.api import FAILURES
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
# of a plan of TensorRT 8.6 whose contexts may share a profile
SHARED_PROFILES = "profile_sharing"


class LoadedPlan:
    """A deserialised engine. The GPU's context must be current in the calling thread."""

    def __init__(
        self,
        api: TensorRt,
        plan: bytes,
        name: str,
        cache: Path | None = None,
        *,
        flags: tuple[str, ...] = (),
        use_graphs: bool = True,
    ) -> None:
        """Load a plan.

        Args:
            name: of the file, for messages.
            cache: file for the kernels that TensorRT for RTX compiles on this GPU; read now, written by ``save_cache``.
            flags: what it was built with, see ``edge.models.manifest.EngineSpec``.
            use_graphs: let TensorRT for RTX record its own CUDA graphs.

        Raises:
            EngineError: TensorRT does not start, or refuses the plan.
        """
        self._api = api
        self._name = name
        self._cache = cache
        self._flags = flags
        self._runtime = api.runtime()
        # every other plan is data: TensorRT refuses one that brings machine code
        self._runtime.engine_host_code_allowed = "version_compatible" in flags
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"{name}: {api.title} refuses the engine ({api.said()}); run: edge build")
        self.records_itself = False
        self._config = self._runtime_config(use_graphs)

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

    @property
    def shares_profiles(self) -> bool:
        """Whether several contexts may use one profile; a plan of one fixed batch has none to share."""
        if not self._api.must_ask_to_share or SHARED_PROFILES in self._flags:
            return True
        return all(size >= 0 for size in self._engine.get_tensor_shape(self._engine.get_tensor_name(0)))

    @property
    def may_record(self) -> bool:
        """Whether runs may be recorded as CUDA graphs: each size needs a context of its own; RTX records itself."""
        return self.shares_profiles and not self._api.is_rtx

    @property
    def activation_bytes(self) -> int:
        """Scratch memory of a context, for the profile that needs most."""
        name = "device_memory_size_v2" if hasattr(self._engine, "device_memory_size_v2") else "device_memory_size"
        return int(getattr(self._engine, name))

    def context(self, profile: int, stream: int, scratch: int) -> Any:
        """An execution context for one profile.

        Args:
            stream: handle of the CUDA stream that it will run on.
            scratch: address of ``activation_bytes``; contexts that never run at the same time may share them.

        Raises:
            EngineError: it cannot be made.
        """
        self._api.messages.clear()
        try:
            context = self._new_context()
            if context is not None:
                self._give_memory(context, scratch)
                if context.set_optimization_profile_async(profile, stream):
                    return context
        except FAILURES as error:
            self._api.messages.append(" ".join(str(error).split()))
        raise EngineError(
            f"{self._name}: no execution context ({self.said()}); close other programs that use the GPU, or build for "
            "a smaller batch"
        )

    def clear_messages(self) -> None:
        """Forget what was said, before something is done whose failure shall be told."""
        self._api.messages.clear()

    def said(self) -> str:
        return self._api.said()

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

    def _new_context(self) -> Any:
        """A context without scratch memory."""
        if self._config is not None:
            return self._engine.create_execution_context(self._config)
        strategies = getattr(self._api.trt, "ExecutionContextAllocationStrategy", None)
        if strategies is None:
            return self._engine.create_execution_context_without_device_memory()
        return self._engine.create_execution_context(strategies.USER_MANAGED)

    def _give_memory(self, context: Any, address: int) -> None:
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(address, self.activation_bytes)
        else:
            context.device_memory = address

    def _runtime_config(self, use_graphs: bool) -> Any:
        """Settings that only TensorRT for RTX has; None elsewhere."""
        if not self._api.is_rtx:
            return None
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._api.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        strategies = getattr(self._api.trt, "CudaGraphStrategy", None)
        if use_graphs and strategies is not None:
            # it knows when its kernels for a shape are compiled; a graph of ours would keep those that come before
            config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE
            self.records_itself = True
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
