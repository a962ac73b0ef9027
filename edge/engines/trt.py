"""TensorRT plans on the GPU: two batches in flight, nothing allocated per frame, CUDA graphs per batch size.

Shape letters: B batch. Not yet run on a GPU; see docs/gpu.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.cuda.context import Driver, PycudaDriver
from edge.cuda.errors import gpu_error
from edge.cuda.memory import TensorMemory
from edge.cuda.streams import ReplayStream
from edge.errors import EngineError
from edge.interfaces import TensorInfo
from edge.manifest import Manifest, Profile
from edge.trt.api import TensorRt, load
from edge.trt.plan_header import read_plan
from edge.trt.preflight import Environment, check_engine, check_input, find_environment
from edge.trt.runtime import LoadedPlan
from edge.types import Array

BATCHES_IN_FLIGHT = 2


class TrtEngine:
    """A TensorRT plan; see ``edge.interfaces.Engine``. ``submit`` and ``collect`` keep two batches in flight."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        max_batch: int | None = None,
        use_graphs: bool = True,
        environment: Environment | None = None,
        driver: Driver | None = None,
        api: TensorRt | None = None,
    ) -> None:
        """Check the plan, load it and allocate everything that it will ever need.

        Args:
            max_batch: the most frames of one call, None for the largest that the plan takes.
            use_graphs: record CUDA graphs.
            environment, driver, api: of this machine; given by tests.

        Raises:
            EngineError: the plan is not for this machine, or does not load.
            ManifestError: the manifest is not the plan's.
            MissingError: no TensorRT, pycuda or GPU.
            GpuError: not enough memory, or the GPU failed.
        """
        header = check_engine(path, manifest, environment or find_environment(), max_batch)
        self._api = api or load(header.flavour)
        self._driver = driver or PycudaDriver()
        cache = path.with_name(f"{path.stem}.sm{self._driver.compute_capability.replace('.', '')}.rtxcache")
        self._plan = LoadedPlan(self._api, read_plan(path, header), path.name, cache)
        self.inputs: Sequence[TensorInfo]
        self.outputs: Sequence[TensorInfo]
        self.inputs, self.outputs = self._plan.tensors()
        check_input(path, self.inputs, manifest)
        profiles = self._plan.profiles(self.inputs[0].name)
        self.max_batch = min(max_batch or 1 << 30, max(profile.max_batch for profile in profiles))
        self.is_fixed_batch = all(profile.min_batch == profile.max_batch == self.max_batch for profile in profiles)
        self._slots = [
            _Slot(self._driver, self._plan, self.inputs[0], self.outputs, profiles, use_graphs)
            for _ in range(BATCHES_IN_FLIGHT)
        ]
        self._free = deque(self._slots)
        self._busy: deque[_Slot] = deque()

    @property
    def name(self) -> str:
        graphs = "CUDA graphs" if self._slots and self._slots[0].replay.uses_graphs else "no CUDA graphs"
        return f"{self._api.title}, compute capability {self._driver.compute_capability}, {graphs}"

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        self.submit(tensor)
        return self.collect()

    def submit(self, tensor: Array) -> None:
        """Start a batch without waiting for it. The tensor may be changed as soon as this returns.

        Raises:
            ValueError: two batches are in flight already, or the batch is empty or too large.
            EngineError: it cannot be started.
        """
        if not 0 < len(tensor) <= self.max_batch:
            raise ValueError(f"expected 1 to {self.max_batch} frames, found {len(tensor)}")
        if not self._free:
            raise ValueError(f"{BATCHES_IN_FLIGHT} batches are in flight; collect one first")
        self._driver.attach()
        slot = self._free.popleft()
        slot.start(tensor)
        self._busy.append(slot)

    def collect(self) -> Mapping[str, Array]:
        """Wait for the oldest batch in flight.

        Returns:
            Output name → (B, …); valid until the second ``submit`` from now.

        Raises:
            ValueError: no batch is in flight.
            EngineError: it failed on the GPU; see ``edge.cuda.errors.GpuError.is_sticky``.
        """
        if not self._busy:
            raise ValueError("no batch is in flight; submit one first")
        slot = self._busy.popleft()
        outputs = slot.finish()
        self._free.append(slot)
        return outputs

    def close(self) -> None:
        if not self._slots:
            return
        self._driver.attach()
        self._plan.save_cache()
        with self._driver.scope():
            # execution contexts go before their engine, the engine before its runtime
            self._free.clear()
            self._busy.clear()
            while self._slots:
                self._slots.pop().close()
            del self._plan
        self._driver.close()


class _Slot:
    """All that one batch in flight owns: stream, memory, an execution context per profile, graphs per batch size."""

    def __init__(
        self,
        driver: Driver,
        plan: LoadedPlan,
        source: TensorInfo,
        outputs: Sequence[TensorInfo],
        profiles: Sequence[Profile],
        use_graphs: bool,
    ) -> None:
        self._plan = plan
        self._profiles = profiles
        self._source = source
        rows = max(profile.max_batch for profile in profiles)
        self.replay = ReplayStream(driver, use_graphs)
        self._input = TensorMemory(driver, _shape(source, rows), source.dtype)
        self._outputs = {info.name: TensorMemory(driver, _shape(info, rows), info.dtype) for info in outputs}
        self._contexts = [plan.context(index, self.replay.handle) for index in range(len(profiles))]
        for context in self._contexts:
            self._bind(context)
        self._batch = 0

    def start(self, tensor: Array) -> None:
        """Copy a batch in and issue its work."""
        self._batch = len(tensor)
        np.copyto(self._input.host[: self._batch], tensor)
        profile = choose_profile(self._profiles, self._batch)
        # rows beyond the batch are whatever was there before; nobody reads what comes of them
        rows = max(self._batch, self._profiles[profile].min_batch)
        context = self._contexts[profile]
        self.replay.run(
            (profile, rows),
            lambda: self._issue(context, rows),
            lambda: self._plan.can_capture(context, self.replay.handle),
        )

    def finish(self) -> dict[str, Array]:
        """Wait, and give the outputs: views of this slot's memory."""
        self.replay.wait()
        return {name: memory.host[: self._batch] for name, memory in self._outputs.items()}

    def close(self) -> None:
        self.replay.close()
        self._contexts.clear()

    def _issue(self, context: Any, rows: int) -> None:
        stream = self.replay.stream
        self._input.upload(rows, stream)
        context.set_input_shape(self._source.name, (rows, *self._input.host.shape[1:]))
        if not context.execute_async_v3(self.replay.handle):
            raise gpu_error("TensorRT could not run the batch", self._plan.last_message())
        for memory in self._outputs.values():
            memory.download(rows, stream)

    def _bind(self, context: Any) -> None:
        addresses = {self._source.name: self._input.address}
        addresses |= {name: memory.address for name, memory in self._outputs.items()}
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise EngineError(f"tensor {name!r} cannot be bound ({self._plan.last_message()}); run: edge build")


def choose_profile(profiles: Sequence[Profile], batch: int) -> int:
    """Index of the profile whose most likely batch is nearest among those that take this many frames."""
    fitting = [index for index, profile in enumerate(profiles) if batch <= profile.max_batch]
    return min(fitting, key=lambda index: abs(profiles[index].opt_batch - batch))


def _shape(info: TensorInfo, rows: int) -> tuple[int, ...]:
    """The tensor's shape for the largest batch.

    Raises:
        EngineError: a size other than the batch is not known before the run.
    """
    inner = info.shape[1:]
    if not info.shape or info.shape[0] not in (None, rows) or any(size is None for size in inner):
        raise EngineError(
            f"tensor {info.name!r} has shape {info.shape}, expected the batch first and fixed sizes behind it; "
            "export the model with outputs of fixed size"
        )
    return (rows, *(size for size in inner if size is not None))
