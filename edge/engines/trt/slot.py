"""All that one batch in flight owns: a stream, memory on both sides, an execution context per profile, its graphs.

Shape letters: B batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.engines.cuda.errors import gpu_error
from edge.engines.cuda.frames import FrameFitter, can_fit
from edge.engines.cuda.memory import TensorMemory
from edge.engines.cuda.streams import ReplayStream
from edge.engines.cuda.suppress import Suppressor, can_suppress
from edge.errors import EngineError

if TYPE_CHECKING:
    from edge.engines.cuda.context import Driver
    from edge.engines.trt.runtime import LoadedPlan
    from edge.interfaces import TensorInfo
    from edge.models.manifest import Manifest, Profile
    from edge.types import Array, Letterbox, UInt8


@dataclass(frozen=True, slots=True)
class Layout:
    """What all slots of an engine share.

    Attributes:
        source: the only input.
        profiles: batch sizes of the plan's profiles.
        use_graphs: whether work is recorded and replayed.
        kernels: our own, loaded; None where there are none, and then frames are fitted in on the CPU.
        manifest: of the engine.
    """

    plan: LoadedPlan
    source: TensorInfo
    outputs: Sequence[TensorInfo]
    profiles: Sequence[Profile]
    use_graphs: bool
    kernels: Any | None
    manifest: Manifest

    @property
    def rows(self) -> int:
        """Frames of the largest batch."""
        return max(profile.max_batch for profile in self.profiles)


class BatchSlot:
    """One batch in flight; ``start`` or ``start_frames``, then ``finish``."""

    def __init__(self, driver: Driver, layout: Layout) -> None:
        """Take all memory that tensors of up to the largest batch will need."""
        self._layout = layout
        self.replay = ReplayStream(driver, layout.use_graphs)
        self._input = TensorMemory(driver, shape_of(layout.source, layout.rows), layout.source.dtype)
        self._outputs = {
            info.name: TensorMemory(driver, shape_of(info, layout.rows), info.dtype) for info in layout.outputs
        }
        self._contexts = [layout.plan.context(index, self.replay.handle) for index in range(len(layout.profiles))]
        for context in self._contexts:
            self._bind(context)
        self._fitter: FrameFitter | None = None
        self._suppressor: Suppressor | None = None
        if layout.kernels is not None:
            self._use_kernels(driver, layout.kernels)
        self._batch = 0

    @property
    def takes_frames(self) -> bool:
        """Whether ``start_frames`` may be called."""
        return self._fitter is not None

    def start(self, tensor: Array) -> None:
        """Copy a batch in and issue its work; the tensor may change once this returns."""
        self._batch = len(tensor)
        np.copyto(self._input.host[: self._batch], tensor)
        self._run(uploads=True)

    def start_frames(self, images: Sequence[UInt8]) -> list[Letterbox]:
        """Upload frames as they are, fit them in on the GPU and issue the work; see ``edge.engines.cuda.frames``."""
        assert self._fitter is not None
        self._batch = len(images)
        boxes = self._fitter.write(images, self._input.address, self.replay.stream)
        self._run(uploads=False)
        return boxes

    def finish(self) -> dict[str, Array]:
        """Wait, and give the outputs: views of this slot's memory."""
        self.replay.wait()
        return {name: memory.host[: self._batch] for name, memory in self._outputs.items()}

    def close(self) -> None:
        self.replay.close()
        self._contexts.clear()
        if self._fitter is not None:
            self._fitter.close()

    def _use_kernels(self, driver: Driver, kernels: Any) -> None:
        layout = self._layout
        if can_fit(layout.manifest.input):
            self._fitter = FrameFitter(driver, kernels, layout.manifest.input)
        if can_suppress(layout.manifest, layout.outputs):
            num = self._outputs["scores"].host.shape[1]
            self._suppressor = Suppressor(driver, kernels, self._addresses(), layout.rows, num)

    def _run(self, *, uploads: bool) -> None:
        """Issue the batch, or replay it: one graph per profile, number of rows and way in."""
        plan, profiles = self._layout.plan, self._layout.profiles
        profile = choose_profile(profiles, self._batch)
        # rows beyond the batch are whatever was there before; nobody reads what comes of them
        rows = max(self._batch, profiles[profile].min_batch)
        context = self._contexts[profile]
        self.replay.run(
            (profile, rows, uploads),
            lambda: self._issue(context, rows, uploads),
            lambda: plan.can_capture(context, self.replay.handle),
        )

    def _issue(self, context: Any, rows: int, uploads: bool) -> None:
        stream = self.replay.stream
        if uploads:
            self._input.upload(rows, stream)
        context.set_input_shape(self._layout.source.name, (rows, *self._input.host.shape[1:]))
        if not context.execute_async_v3(self.replay.handle):
            raise gpu_error("TensorRT could not run the batch", self._layout.plan.last_message())
        if self._suppressor is not None:
            self._suppressor.issue(rows, self._layout.manifest.thresholds.iou, stream)
        for memory in self._outputs.values():
            memory.download(rows, stream)

    def _bind(self, context: Any) -> None:
        addresses = {self._layout.source.name: self._input.address, **self._addresses()}
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                reason = self._layout.plan.last_message()
                raise EngineError(f"tensor {name!r} cannot be bound ({reason}); run: edge build")

    def _addresses(self) -> Mapping[str, int]:
        return {name: memory.address for name, memory in self._outputs.items()}


def choose_profile(profiles: Sequence[Profile], batch: int) -> int:
    """Index of the profile whose most likely batch is nearest among those that take this many frames."""
    fitting = [index for index, profile in enumerate(profiles) if batch <= profile.max_batch]
    return min(fitting, key=lambda index: abs(profiles[index].opt_batch - batch))


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
