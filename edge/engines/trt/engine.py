"""TensorRT plans on the GPU: two batches in flight, nothing allocated per frame, CUDA graphs per batch size.

Frames go up as they are and are fitted into the input by our own kernel. Shape letters: B batch, H W frame pixels.
Not yet run on a GPU; see docs/gpu.md.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.engines.cuda.build import kernels_for
from edge.engines.cuda.context import Driver, open_driver
from edge.engines.cuda.errors import GpuError
from edge.engines.cuda.launches import can_letterbox
from edge.engines.cuda.library import LOADING
from edge.engines.trt.api import TensorRt, load
from edge.engines.trt.plan_header import read_plan
from edge.engines.trt.preflight import Environment, check_engine, check_input, find_environment
from edge.engines.trt.runtime import LoadedPlan
from edge.engines.trt.slot import BatchSlot, Layout, rows_for
from edge.errors import MissingError
from edge.models.preprocess import Preprocessor

if TYPE_CHECKING:
    from edge.interfaces import TensorInfo
    from edge.models.manifest import Manifest
    from edge.pictures.planes import Planes
    from edge.types import Array, Letterbox, UInt8

log = logging.getLogger(__name__)
BATCHES_IN_FLIGHT = 2


class TrtEngine:
    """A TensorRT plan; see ``edge.interfaces.Engine`` and ``PlaneEngine``. Two batches may be in flight."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        max_batch: int | None = None,
        device: int = 0,
        use_graphs: bool = True,
        environment: Environment | None = None,
        driver: Driver | None = None,
        api: TensorRt | None = None,
        find_kernels: Callable[[str], Path] = kernels_for,
    ) -> None:
        """Check the plan, load it and allocate everything that it will ever need.

        Args:
            max_batch: the most frames of one call, None for the largest that the plan takes.
            device: number of the GPU, as CUDA counts.
            use_graphs: record CUDA graphs.
            environment, driver, api: of this machine; given by tests.
            find_kernels: gives our compiled kernels for a compute capability.

        Raises:
            EngineError: the plan is not for this machine, or does not load.
            ManifestError: the manifest is not the plan's.
            MissingError: no TensorRT, pycuda or GPU.
            GpuError: not enough memory, or the GPU failed.
        """
        header = check_engine(path, manifest, environment or find_environment(device), max_batch)
        self._api = api or load(header.flavour)
        self._driver = driver or open_driver(device)
        self._is_lost = False
        self._slots: list[BatchSlot] = []
        # the first runs and the recording; no other engine loads or closes meanwhile
        with LOADING, self._noting_loss():
            self._load(path, manifest, read_plan(path, header), max_batch, use_graphs, find_kernels)
        self._preprocessor = None if self._slots[0].takes_frames else Preprocessor(manifest.input, self.max_batch)
        self._free = deque(self._slots)
        self._busy: deque[BatchSlot] = deque()

    def _load(
        self,
        path: Path,
        manifest: Manifest,
        data: bytes,
        max_batch: int | None,
        use_graphs: bool,
        find_kernels: Callable[[str], Path],
    ) -> None:
        cache = path.with_name(f"{path.stem}.sm{self._driver.compute_capability.replace('.', '')}.rtxcache")
        flags = manifest.engine.flags if manifest.engine is not None else ()

        def load_plan() -> LoadedPlan:
            return LoadedPlan(self._api, data, path.name, cache, flags=flags, use_graphs=use_graphs)

        plan = load_plan()
        # contexts of one engine that may not share its profile: then each slot has an engine of its own
        self._plans = [plan, plan if plan.shares_profiles else load_plan()]
        self.inputs: Sequence[TensorInfo]
        self.outputs: Sequence[TensorInfo]
        self.inputs, self.outputs = plan.tensors()
        check_input(path, self.inputs, manifest)
        profiles = plan.profiles(self.inputs[0].name)
        self.max_batch = min(max_batch or 1 << 30, max(profile.max_batch for profile in profiles))
        self.is_fixed_batch = all(profile.min_batch == profile.max_batch == self.max_batch for profile in profiles)
        layout = Layout(
            source=self.inputs[0],
            outputs=self.outputs,
            profiles=profiles,
            rows=rows_for(profiles, self.max_batch),
            use_graphs=use_graphs,
            kernels=self._load_kernels(path.name, find_kernels),
            manifest=manifest,
        )
        if layout.kernels is not None and not can_letterbox(manifest.input):
            log.warning("%s: frames are fitted in on the CPU: no kernel does it as the model wants", path.name)
        self._slots = [BatchSlot(self._driver, plan, layout) for plan in self._plans]

    @property
    def name(self) -> str:
        has_graphs = any(slot.has_graphs for slot in self._slots)
        graphs = "CUDA graphs" if has_graphs else "no CUDA graphs"
        return f"{self._api.title}, compute capability {self._driver.compute_capability}, {graphs}"

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        if self._busy:
            raise ValueError(f"{len(self._busy)} batches are in flight; collect them first")
        self.submit(tensor)
        return self.collect()

    def submit(self, tensor: Array) -> None:
        """Start a batch without waiting for it. The tensor may be changed as soon as this returns.

        Raises:
            ValueError: two batches are in flight already, or the batch is empty or too large.
            EngineError: it cannot be started.
        """
        with self._next_slot(len(tensor)) as slot:
            slot.start(tensor)

    @property
    def takes_planes(self) -> bool:
        return True

    def submit_frames(self, images: Sequence[UInt8 | Planes]) -> list[Letterbox]:
        """As ``PlaneEngine.submit_frames``; a picture of two dimensions is NV12, see ``edge.engines.cuda.frames``.

        Raises:
            ValueError: two batches are in flight already, or the batch is empty or too large.
            EngineError: it cannot be started.
        """
        with self._next_slot(len(images)) as slot:
            if self._preprocessor is None:
                return slot.start_frames(images)
            tensor, letterboxes = self._preprocessor.images(images)
            slot.start(tensor)
            return letterboxes

    def collect(self) -> Mapping[str, Array]:
        """Wait for the oldest batch in flight.

        Returns:
            Output name → (B, …); valid until the second ``submit`` from now.

        Raises:
            ValueError: no batch is in flight.
            EngineError: it failed on the GPU; see ``edge.engines.cuda.errors.GpuError.is_sticky``.
        """
        if not self._busy:
            raise ValueError("no batch is in flight; submit one first")
        with self._noting_loss():
            self._driver.attach()
            slot = self._busy.popleft()
            outputs = slot.finish()
        self._free.append(slot)
        return outputs

    def close(self) -> None:
        # in a context that a sticky error destroyed nothing can be freed; the process is to end
        if not self._slots or self._is_lost:
            return
        self._driver.attach()
        while self._busy:
            self._busy.popleft().finish()
        self._plans[0].save_cache()
        with LOADING, self._driver.scope():
            # execution contexts go before their engine, the engine before its runtime
            self._free.clear()
            while self._slots:
                self._slots.pop().close()
            self._plans.clear()
        self._driver.close()

    @contextmanager
    def _next_slot(self, num_frames: int) -> Iterator[BatchSlot]:
        """A slot to start a batch in; it is in flight if the block ends well."""
        if not 0 < num_frames <= self.max_batch:
            raise ValueError(f"expected 1 to {self.max_batch} frames, found {num_frames}")
        if not self._free:
            raise ValueError(f"{BATCHES_IN_FLIGHT} batches are in flight; collect one first")
        with self._noting_loss():
            self._driver.attach()
            slot = self._free.popleft()
            yield slot
        self._busy.append(slot)

    @contextmanager
    def _noting_loss(self) -> Iterator[None]:
        try:
            yield
        except GpuError as error:
            self._is_lost = self._is_lost or error.is_sticky
            raise

    def _load_kernels(self, name: str, find: Callable[[str], Path]) -> Any | None:
        """Our kernels, compiled now if they are not there yet; None, and a line in the log, where they cannot be."""
        try:
            return self._driver.load_kernels(find(self._driver.compute_capability))
        except (MissingError, GpuError) as error:
            if isinstance(error, GpuError) and error.is_sticky:
                raise
            log.warning("%s: frames are fitted in on the CPU: %s", name, error)
            return None
