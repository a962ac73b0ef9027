"""All that one batch in flight owns: a stream, memory on both sides, and an execution context for each size of batch.

Sizes are few: batches are filled up to the next power of two. A context never changes its shape, and has its own CUDA
graph (TensorRT developer guide: one context per captured graph). Shape letters: B batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.engines.cuda.errors import gpu_error
from edge.engines.cuda.frames import FrameFitter
from edge.engines.cuda.launches import can_letterbox
from edge.engines.cuda.memory import TensorMemory
from edge.engines.cuda.streams import ReplayStream
from edge.engines.cuda.suppress import Suppressor, can_suppress
from edge.engines.trt.api import FAILURES
from edge.errors import EngineError

if TYPE_CHECKING:
    from edge.engines.cuda.context import Driver
    from edge.engines.trt.runtime import LoadedPlan
    from edge.interfaces import TensorInfo
    from edge.models.manifest import Manifest, Profile
    from edge.pictures.planes import Planes
    from edge.types import Array, Letterbox, UInt8


@dataclass(frozen=True, slots=True)
class Layout:
    """What all slots of an engine share.

    Attributes:
        source: the only input.
        profiles: batch sizes of the plan's profiles.
        rows: frames of the largest batch.
        use_graphs: whether work is recorded and replayed.
        kernels: our own, loaded; None where there are none, and then frames are fitted in on the CPU.
        manifest: of the engine.
    """

    source: TensorInfo
    outputs: Sequence[TensorInfo]
    profiles: Sequence[Profile]
    rows: int
    use_graphs: bool
    kernels: Any | None
    manifest: Manifest


@dataclass(slots=True)
class _Shaped:
    """An execution context. Attributes: rows: of the shape that it was given, 0 before."""

    context: Any
    rows: int = 0


class BatchSlot:
    """One batch in flight; ``start`` or ``start_frames``, then ``finish``."""

    def __init__(self, driver: Driver, plan: LoadedPlan, layout: Layout) -> None:
        """Take all memory that tensors of up to the largest batch will need, run every size once and record it.

        Raises:
            EngineError: not enough memory, or TensorRT cannot run it.
        """
        self._driver, self._plan, self._layout = driver, plan, layout
        self.replay = ReplayStream(driver)
        self._input = TensorMemory(driver, shape_of(layout.source, layout.rows), layout.source.dtype)
        self._outputs = {
            info.name: TensorMemory(driver, shape_of(info, layout.rows), info.dtype) for info in layout.outputs
        }
        # a slot runs one batch at a time, so its contexts may all use the same scratch memory
        self._scratch = driver.device_memory(plan.activation_bytes)
        self._contexts: dict[int, _Shaped] = {}
        self._fitter: FrameFitter | None = None
        self._suppressor: Suppressor | None = None
        if layout.kernels is not None:
            self._use_kernels(driver, layout.kernels)
        self._batch = 0
        self._sizes = sizes_of(layout.profiles, layout.rows)
        self._prepare()

    @property
    def takes_frames(self) -> bool:
        """Whether ``start_frames`` may be called."""
        return self._fitter is not None

    @property
    def has_graphs(self) -> bool:
        """Whether batches are replayed as CUDA graphs, ours or TensorRT's."""
        return self._plan.records_itself or self.replay.num_graphs > 0

    def start(self, tensor: Array) -> None:
        """Copy a batch in and issue its work; the tensor may change once this returns."""
        self._batch = len(tensor)
        np.copyto(self._input.host[: self._batch], tensor)
        self._input.upload(self._batch, self.replay.stream)
        self._run()

    def start_frames(self, images: Sequence[UInt8 | Planes]) -> list[Letterbox]:
        """Upload frames as they are, fit them in on the GPU and issue the work; see ``edge.engines.cuda.frames``."""
        assert self._fitter is not None
        self._batch = len(images)
        boxes = self._fitter.write(images, self._input.address, self.replay.stream)
        self._run()
        return boxes

    def finish(self) -> dict[str, Array]:
        """Wait, and give the outputs: views of this slot's memory."""
        self.replay.wait()
        return {name: memory.host[: self._batch] for name, memory in self._outputs.items()}

    def close(self) -> None:
        self.replay.close()
        self._contexts.clear()
        del self._scratch
        if self._fitter is not None:
            self._fitter.close()

    def _use_kernels(self, driver: Driver, kernels: Any) -> None:
        layout = self._layout
        if can_letterbox(layout.manifest.input):
            self._fitter = FrameFitter(driver, kernels, layout.manifest.input)
        if can_suppress(layout.manifest, layout.outputs):
            num = self._outputs["scores"].host.shape[1]
            self._suppressor = Suppressor(driver, kernels, self._addresses(), layout.rows, num)

    def _prepare(self) -> None:
        """Run every size that will come, so that TensorRT sets itself up now, and record it."""
        for rows in self._sizes:
            work = partial(self._issue, rows, rows)
            self.replay.run(rows, work)
            self.replay.wait()
            if self._layout.use_graphs and self._plan.may_record:
                self.replay.record(rows, work)

    def _run(self) -> None:
        """Replay the batch, or issue it. Rows beyond it are whatever was there before; nobody reads what they give."""
        rows = next(size for size in self._sizes if size >= self._batch)
        self.replay.run(rows, lambda: self._issue(rows, self._batch))

    def _issue(self, rows: int, num_wanted: int) -> None:
        """Args: rows that TensorRT computes; how many of them are downloaded."""
        stream = self.replay.stream
        self._plan.clear_messages()
        try:
            is_running = self._context(rows).execute_async_v3(self.replay.handle)
        except FAILURES as error:
            raise self._failure(" ".join(str(error).split())) from None
        if not is_running:
            raise self._failure(self._plan.said())
        if self._suppressor is not None:
            self._suppressor.issue(rows, self._layout.manifest.thresholds.iou, stream)
        for memory in self._outputs.values():
            memory.download(num_wanted, stream)

    def _failure(self, reason: str) -> EngineError:
        return gpu_error("TensorRT could not run the batch", reason, is_sticky=self._driver.is_lost())

    def _context(self, rows: int) -> Any:
        """The context of this size, or of its profile where a plan lets one context alone use it."""
        profile = choose_profile(self._layout.profiles, rows)
        key = rows if self._plan.shares_profiles else -1 - profile
        if key not in self._contexts:
            self._contexts[key] = _Shaped(self._new_context(profile))
        shaped = self._contexts[key]
        if shaped.rows != rows:
            if not shaped.context.set_input_shape(self._layout.source.name, (rows, *self._input.host.shape[1:])):
                raise self._failure(self._plan.said())
            shaped.rows = rows
        return shaped.context

    def _new_context(self, profile: int) -> Any:
        context = self._plan.context(profile, self.replay.handle, int(self._scratch))
        addresses = {self._layout.source.name: self._input.address, **self._addresses()}
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise EngineError(f"tensor {name!r} cannot be bound ({self._plan.said()}); run: edge build")
        return context

    def _addresses(self) -> Mapping[str, int]:
        return {name: memory.address for name, memory in self._outputs.items()}


def choose_profile(profiles: Sequence[Profile], batch: int) -> int:
    """Index of the profile whose most likely batch is nearest among those that take this many frames."""
    fitting = [index for index, profile in enumerate(profiles) if batch <= profile.max_batch]
    return min(fitting, key=lambda index: abs(profiles[index].opt_batch - batch))


def rows_for(profiles: Sequence[Profile], batch: int) -> int:
    """Rows that the plan computes for so many frames: a profile may take no fewer."""
    return max(batch, profiles[choose_profile(profiles, batch)].min_batch)


def sizes_of(profiles: Sequence[Profile], rows: int) -> list[int]:
    """The sizes that batches are filled up to: powers of two up to so many rows, and what the profiles make of them."""
    powers = [1 << power for power in range(rows.bit_length())]
    return sorted({rows, *(rows_for(profiles, size) for size in powers if size <= rows)})


def shape_of(info: TensorInfo, rows: int) -> tuple[int, ...]:
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
