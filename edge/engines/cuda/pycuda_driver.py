"""The driver through pycuda; see ``edge.engines.cuda.context.Driver``. Importing it needs pycuda and libcuda."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pycuda.driver as cuda

from edge.engines.cuda.library import CU_STREAM_NON_BLOCKING, Held, PrimaryContext, told_as

if TYPE_CHECKING:
    from edge.engines.cuda.launches import Launch
    from edge.types import Array


@lru_cache
def _primary_context(index: int) -> Any:
    """What pycuda pushes and pops: one for each GPU, kept, because letting go of it leaves it on the thread's stack."""
    return cuda.Device(index).retain_primary_context()


class PycudaDriver(PrimaryContext):
    """Memory, streams, events and modules by pycuda."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self._functions: dict[tuple[int, str], Any] = {}
        with self._failures("no CUDA device"):
            cuda.init()
            self._pushed = _primary_context(index)

    @contextmanager
    def scope(self) -> Iterator[None]:
        # pycuda creates and frees only under a context of its own stack
        with self._failures("cannot use the GPU in this thread"):
            self._pushed.push()
        try:
            yield
        finally:
            self._pushed.pop()

    def new_stream(self) -> Any:
        with self._failures("no stream"), self.scope():
            return cuda.Stream(CU_STREAM_NON_BLOCKING)

    def stream_handle(self, stream: Any) -> int:
        return int(stream.handle)

    def new_event(self) -> Any:
        flags = cuda.event_flags
        with self._failures("no event"), self.scope():
            # a thread that waits sleeps instead of spinning: the cores belong to the decoders
            return cuda.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING)

    def device_memory(self, num_bytes: int) -> Any:
        with self._failures(f"no {num_bytes / 1e6:.1f} MB of GPU memory"), self.scope():
            return cuda.mem_alloc(max(num_bytes, 1))

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        flags = cuda.host_alloc_flags.DEVICEMAP
        with self._failures(f"no pinned memory for {shape} {dtype}"), self.scope():
            whole = [cuda.pagelocked_zeros(shape, np.dtype(dtype), mem_flags=flags)]

        def free() -> None:
            with self.scope():
                whole.clear()

        return np.asarray(Held(whole[0].ctypes.data, shape, dtype, free))

    def upload(self, address: int, array: Array, stream: Any) -> None:
        with self._failures("upload failed"):
            cuda.memcpy_htod_async(address, array, stream)

    def download(self, array: Array, address: int, stream: Any) -> None:
        with self._failures("download failed"):
            cuda.memcpy_dtoh_async(array, address, stream)

    def record(self, event: Any, stream: Any) -> None:
        with self._failures("cannot mark the end of a batch"):
            event.record(stream)

    def wait(self, event: Any) -> None:
        with self._failures("the batch failed on the GPU"):
            event.synchronize()

    def load_kernels(self, image: Path) -> Any:
        with self._failures(f"{image.name} cannot be loaded"), self.scope():
            return cuda.module_from_file(str(image))

    def launch(self, kernels: Any, launch: Launch, stream: Any) -> None:
        key = (id(kernels), launch.kernel)
        if key not in self._functions:
            with self._failures(f"kernel {launch.kernel} not found"):
                function = kernels.get_function(launch.kernel)
            self._functions[key] = function.prepare([launch.arguments.dtype])
        with self._failures(f"kernel {launch.kernel} failed"):
            function = self._functions[key]
            function.prepared_async_call(launch.grid, launch.block, stream, launch.arguments.tobytes())

    def close(self) -> None:
        with self.scope():
            self._functions.clear()
        super().close()

    def _failures(self, what: str) -> AbstractContextManager[None]:
        return told_as(what, cuda.Error, self)
