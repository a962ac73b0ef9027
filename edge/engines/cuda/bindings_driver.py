"""The driver through NVIDIA's cuda-bindings, which has wheels; see ``edge.engines.cuda.context.Driver``."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cuda.bindings import driver as cuda

from edge.engines.cuda.library import CU_STREAM_NON_BLOCKING, Held, PrimaryContext

if TYPE_CHECKING:
    from edge.engines.cuda.launches import Launch
    from edge.types import Array

CU_EVENT_BLOCKING_SYNC, CU_EVENT_DISABLE_TIMING = 1, 2
CU_MEMHOSTALLOC_DEVICEMAP = 2


class Handle:
    """A thing of the driver that is freed when nothing refers to it any more; ``int()`` of it is its address."""

    def __init__(self, value: Any, free: Callable[[Any], None]) -> None:
        self.value = value
        # at the end of the process the driver frees everything itself, and may be gone before
        weakref.finalize(self, free, value).atexit = False

    def __int__(self) -> int:
        return int(self.value)


class BindingsDriver(PrimaryContext):
    """Memory, streams, events and modules by cuda-bindings."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self._functions: dict[tuple[int, str], Any] = {}
        # the bindings learn of the driver by this call; it was made by the library already
        self._ask("no CUDA device", cuda.cuInit, 0)

    @contextmanager
    def scope(self) -> Iterator[None]:
        self.attach()
        yield

    def new_stream(self) -> Any:
        return self._handle("no stream", cuda.cuStreamCreate, CU_STREAM_NON_BLOCKING, free=cuda.cuStreamDestroy)

    def stream_handle(self, stream: Any) -> int:
        return int(stream)

    def new_event(self) -> Any:
        flags = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING
        return self._handle("no event", cuda.cuEventCreate, flags, free=cuda.cuEventDestroy)

    def device_memory(self, num_bytes: int) -> Any:
        what = f"no {num_bytes / 1e6:.1f} MB of GPU memory"
        return self._handle(what, cuda.cuMemAlloc, max(num_bytes, 1), free=cuda.cuMemFree)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        num_bytes = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)
        what = f"no pinned memory for {shape} {dtype}"
        self.attach()
        address = int(self._ask(what, cuda.cuMemHostAlloc, num_bytes, CU_MEMHOSTALLOC_DEVICEMAP))
        array = np.asarray(Held(address, shape, dtype, partial(self._free, cuda.cuMemFreeHost, address)))
        array[...] = 0
        return array

    def upload(self, address: int, array: Array, stream: Any) -> None:
        what = "upload failed"
        self._ask(what, cuda.cuMemcpyHtoDAsync, address, array.ctypes.data, array.nbytes, stream.value)

    def download(self, array: Array, address: int, stream: Any) -> None:
        what = "download failed"
        self._ask(what, cuda.cuMemcpyDtoHAsync, array.ctypes.data, address, array.nbytes, stream.value)

    def record(self, event: Any, stream: Any) -> None:
        self._ask("cannot mark the end of a batch", cuda.cuEventRecord, event.value, stream.value)

    def wait(self, event: Any) -> None:
        self._ask("the batch failed on the GPU", cuda.cuEventSynchronize, event.value)

    def load_kernels(self, image: Path) -> Any:
        what = f"{image.name} cannot be loaded"
        return self._handle(what, cuda.cuModuleLoad, str(image).encode(), free=cuda.cuModuleUnload)

    def launch(self, kernels: Any, launch: Launch, stream: Any) -> None:
        key = (id(kernels), launch.kernel)
        if key not in self._functions:
            what = f"kernel {launch.kernel} not found"
            self._functions[key] = self._ask(what, cuda.cuModuleGetFunction, kernels.value, launch.kernel.encode())
        # one parameter: its address, in an array of addresses
        parameters = (ctypes.c_void_p * 1)(launch.arguments.ctypes.data)
        where = (*launch.grid, *launch.block, 0, stream.value, ctypes.addressof(parameters), 0)
        self._ask(f"kernel {launch.kernel} failed", cuda.cuLaunchKernel, self._functions[key], *where)

    def close(self) -> None:
        self._functions.clear()
        super().close()

    def _handle(self, what: str, make: Callable[..., Any], *arguments: Any, free: Callable[..., Any]) -> Handle:
        self.attach()
        return Handle(self._ask(what, make, *arguments), partial(self._free, free))

    def _free(self, free: Callable[..., Any], value: Any) -> None:
        # in whichever thread the last reference was dropped; a lost context frees nothing
        self._cuda.cuCtxSetCurrent(self._context)
        free(value)

    def _ask(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        code, *values = function(*arguments)
        if int(code) != 0:
            reason = cuda.cuGetErrorString(code)[1]
            text = reason.decode() if isinstance(reason, bytes) else str(reason)
            raise self.failure(what, f"{function.__name__} failed: {text}")
        return values[0] if values else None
