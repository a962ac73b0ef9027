"""The narrow shim over the CUDA driver: all that engines and kernels need of it, and the one owner of the context.

pycuda does memory, streams, events and modules. Its releases have no CUDA graphs, so those few calls go to the driver
library directly. pycuda cannot even be imported without a driver; what is above this file is tested with a fake.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge.engines.cuda.errors import GpuError, gpu_error
from edge.errors import MissingError

if TYPE_CHECKING:
    from edge.engines.cuda.launches import Launch
    from edge.types import Array

# CUstreamCaptureMode: other threads (a decoder) may allocate while this one records
CAPTURE_THREAD_LOCAL = 1


class Driver(Protocol):
    """What is needed of a GPU. Handles of streams, events, memory and graphs mean nothing outside of it."""

    @property
    def is_integrated(self) -> bool:
        """Whether CPU and GPU share their memory (Jetson), so that nothing needs to be copied."""

    @property
    def compute_capability(self) -> str: ...

    def attach(self) -> None:
        """Make the context current in the calling thread, for good."""

    def scope(self) -> AbstractContextManager[None]:
        """Whatever of this driver is freed must be freed inside, in any thread; outside it may leak."""

    def new_stream(self) -> Any: ...

    def stream_handle(self, stream: Any) -> int: ...

    def new_event(self) -> Any: ...

    def device_memory(self, num_bytes: int) -> Any:
        """Memory of the GPU; ``int()`` of it is its address. It is freed when nothing refers to it any more."""

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Host memory that the GPU may read and write."""

    def mapped_address(self, array: Array) -> int:
        """The GPU's address of pinned memory."""

    def upload(self, address: int, array: Array, stream: Any) -> None: ...

    def download(self, array: Array, address: int, stream: Any) -> None: ...

    def record(self, event: Any, stream: Any) -> None: ...

    def wait(self, event: Any) -> None:
        """Sleep until everything before the event is done."""

    def begin_capture(self, stream: Any) -> None: ...

    def end_capture(self, stream: Any) -> Any:
        """A graph of everything issued since ``begin_capture``."""

    def launch_graph(self, graph: Any, stream: Any) -> None: ...

    def free_graph(self, graph: Any) -> None: ...

    def load_kernels(self, cubin: Path) -> Any: ...

    def launch(self, kernels: Any, launch: Launch, stream: Any) -> None: ...

    def close(self) -> None: ...


class PycudaDriver:
    """The real one; see ``Driver``. Uses the primary context, which TensorRT and ONNX Runtime share."""

    def __init__(self, device: int = 0) -> None:
        """Take the context of a GPU.

        Raises:
            MissingError: no pycuda, no driver or no GPU.
        """
        try:
            import pycuda.driver as cuda
        except ImportError as error:
            raise MissingError(
                f"pycuda cannot be loaded ({error}); it needs the NVIDIA driver, and is built with: "
                "CUDA_ROOT=/usr/local/cuda pip install pycuda (see docs/gpu.md)"
            ) from None
        self._cuda: Any = cuda
        self._library = ctypes.CDLL("libcuda.so.1")
        self._here = threading.local()
        self._functions: dict[tuple[int, str], Any] = {}
        with self._failures("no CUDA device"):
            cuda.init()
            self._device = cuda.Device(device)
            self._context = self._device.retain_primary_context()
        self.attach()

    @property
    def is_integrated(self) -> bool:
        return bool(self._device.get_attribute(self._cuda.device_attribute.INTEGRATED))

    @property
    def compute_capability(self) -> str:
        major, minor = self._device.compute_capability()
        return f"{major}.{minor}"

    def attach(self) -> None:
        # not by pycuda's own stack: a thread that ends with something on it aborts the process
        if not getattr(self._here, "is_attached", False):
            self._call("cuCtxSetCurrent", ctypes.c_void_p(int(self._context.handle)))
            self._here.is_attached = True

    @contextmanager
    def scope(self) -> Iterator[None]:
        # pycuda creates and frees only under a context of its own stack
        with self._failures("cannot use the GPU in this thread"):
            self._context.push()
            try:
                yield
            finally:
                self._context.pop()

    def new_stream(self) -> Any:
        with self._failures("no stream"), self.scope():
            return self._cuda.Stream()

    def stream_handle(self, stream: Any) -> int:
        return int(stream.handle)

    def new_event(self) -> Any:
        flags = self._cuda.event_flags
        with self._failures("no event"), self.scope():
            # a thread that waits sleeps instead of spinning: the cores belong to the decoders
            return self._cuda.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING)

    def device_memory(self, num_bytes: int) -> Any:
        with self._failures(f"no {num_bytes / 1e6:.1f} MB of GPU memory"), self.scope():
            return self._cuda.mem_alloc(max(num_bytes, 1))

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        with self._failures(f"no pinned memory for {shape} {dtype}"), self.scope():
            array: Array = self._cuda.pagelocked_zeros(
                shape, np.dtype(dtype), mem_flags=self._cuda.host_alloc_flags.DEVICEMAP
            )
            return array

    def mapped_address(self, array: Array) -> int:
        with self._failures("pinned memory has no address on the GPU"):
            return int(array.base.get_device_pointer())  # type: ignore[union-attr]

    def upload(self, address: int, array: Array, stream: Any) -> None:
        with self._failures("upload failed"):
            self._cuda.memcpy_htod_async(address, array, stream)

    def download(self, array: Array, address: int, stream: Any) -> None:
        with self._failures("download failed"):
            self._cuda.memcpy_dtoh_async(array, address, stream)

    def record(self, event: Any, stream: Any) -> None:
        with self._failures("cannot mark the end of a batch"):
            event.record(stream)

    def wait(self, event: Any) -> None:
        with self._failures("the batch failed on the GPU"):
            event.synchronize()

    def begin_capture(self, stream: Any) -> None:
        self._call("cuStreamBeginCapture_v2", self._handle(stream), CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: Any) -> ctypes.c_void_p:
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", self._handle(stream), ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)
        return executable

    def launch_graph(self, graph: ctypes.c_void_p, stream: Any) -> None:
        self._call("cuGraphLaunch", graph, self._handle(stream))

    def free_graph(self, graph: ctypes.c_void_p) -> None:
        self._call("cuGraphExecDestroy", graph)

    def load_kernels(self, cubin: Path) -> Any:
        with self._failures(f"{cubin.name} cannot be loaded"), self.scope():
            return self._cuda.module_from_file(str(cubin))

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
        """Forget the kernels; the primary context lives on while TensorRT or another engine uses it."""
        with self.scope():
            self._functions.clear()

    @staticmethod
    def _handle(stream: Any) -> ctypes.c_void_p:
        return ctypes.c_void_p(int(stream.handle))

    def _call(self, name: str, *arguments: Any) -> None:
        code = int(getattr(self._library, name)(*arguments))
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            raise gpu_error(f"{name} failed", (text.value or b"").decode() or f"error {code}")

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            raise gpu_error(what, str(error)) from error


__all__ = ["Driver", "GpuError", "PycudaDriver"]
