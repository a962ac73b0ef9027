"""The driver's own library, libcuda, where no package is needed for a call: devices, the primary context, graphs.

Both drivers (``pycuda_driver``, ``bindings_driver``) stand on it. pycuda's releases have no CUDA graphs.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edge.engines.cuda.errors import GpuError, gpu_error
from edge.errors import MissingError

if TYPE_CHECKING:
    from edge.types import Array

log = logging.getLogger(__name__)
# numbers of cuda.h
CU_CTX_SCHED_BLOCKING_SYNC = 4
CU_STREAM_NON_BLOCKING = 1
# other threads (a decoder) may allocate while this one records
CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1
CU_EVENT_DISABLE_TIMING = 2
CU_DEVICE_ATTRIBUTE_INTEGRATED = 18
CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY = (75, 76)
SUCCESS, NOT_READY, PRIMARY_CONTEXT_ACTIVE = 0, 600, 708
# held while an engine loads, warms up, records or closes: what one library does then may break the recording of another
LOADING = threading.RLock()


def load_library() -> Any:
    """The NVIDIA driver's library.

    Raises:
        MissingError: there is none.
    """
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise MissingError("the NVIDIA driver (libcuda.so.1) is not installed; run: edge doctor") from None


def prepare_context(index: int = 0) -> None:
    """Make waits sleep instead of spin, in the context that TensorRT, ONNX Runtime and FFmpeg share.

    Call it before any of them starts CUDA: FFmpeg refuses a primary context with other flags (hwcontext_cuda.c), and
    they cannot be changed once it is active. Without a driver this does nothing.
    """
    with contextlib.suppress(MissingError):
        library = load_library()
        device, flags, is_active = ctypes.c_int(), ctypes.c_uint(), ctypes.c_int()
        if library.cuInit(0) != SUCCESS or library.cuDeviceGet(ctypes.byref(device), index) != SUCCESS:
            return
        library.cuDevicePrimaryCtxGetState(device, ctypes.byref(flags), ctypes.byref(is_active))
        if flags.value == CU_CTX_SCHED_BLOCKING_SYNC:
            return
        if library.cuDevicePrimaryCtxSetFlags_v2(device, CU_CTX_SCHED_BLOCKING_SYNC) == PRIMARY_CONTEXT_ACTIVE:
            log.info("GPU %d: another library has taken the context with flags %d; waits may spin", index, flags.value)


class PrimaryContext:
    """The primary context of one GPU, and every call that needs libcuda alone."""

    def __init__(self, index: int) -> None:
        """Take the context.

        Raises:
            MissingError: no driver.
            GpuError: no such GPU, or it cannot be used.
        """
        self._cuda = load_library()
        self.index = index
        self._probe: ctypes.c_void_p | None = None
        prepare_context(index)
        self._device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self._call("no CUDA device", "cuInit", 0)
        self._call(f"no CUDA device {index}", "cuDeviceGet", ctypes.byref(self._device), index)
        self._call(f"no context on GPU {index}", "cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.attach()
        probe = ctypes.c_void_p()
        self._call("no stream", "cuStreamCreate", ctypes.byref(probe), CU_STREAM_NON_BLOCKING)
        # nothing is ever issued on it: what it answers is the state of the context
        self._probe = probe

    @property
    def is_integrated(self) -> bool:
        return bool(self._attribute(CU_DEVICE_ATTRIBUTE_INTEGRATED))

    @property
    def compute_capability(self) -> str:
        major, minor = (self._attribute(number) for number in CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY)
        return f"{major}.{minor}"

    def attach(self) -> None:
        # not by pycuda's own stack: a thread that ends with something on it aborts the process; and each time again,
        # because another GPU's engine may have run in this thread meanwhile
        self._call("cannot use the GPU in this thread", "cuCtxSetCurrent", self._context)

    def is_lost(self) -> bool:
        if self._probe is None:
            return False
        self._cuda.cuCtxSetCurrent(self._context)
        return int(self._cuda.cuStreamQuery(self._probe)) not in (SUCCESS, NOT_READY)

    def stream_handle(self, stream: Any) -> int:
        raise NotImplementedError

    def mapped_address(self, array: Array) -> int:
        address = ctypes.c_uint64()
        self._call(
            "pinned memory has no address on the GPU",
            "cuMemHostGetDevicePointer_v2",
            ctypes.byref(address),
            ctypes.c_void_p(array.ctypes.data),
            0,
        )
        return address.value

    def after_default_stream(self, stream: Any) -> None:
        event = ctypes.c_void_p()
        self._call("no event", "cuEventCreate", ctypes.byref(event), CU_EVENT_DISABLE_TIMING)
        try:
            self._call("the decoder cannot be waited for", "cuEventRecord", event, None)
            self._call("the decoder cannot be waited for", "cuStreamWaitEvent", self._pointer(stream), event, 0)
        finally:
            # the driver keeps it until it was waited for
            self._cuda.cuEventDestroy_v2(event)

    def begin_capture(self, stream: Any) -> None:
        mode = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("recording did not begin", "cuStreamBeginCapture_v2", self._pointer(stream), mode)

    def end_capture(self, stream: Any) -> ctypes.c_void_p:
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("nothing was recorded", "cuStreamEndCapture", self._pointer(stream), ctypes.byref(graph))
        try:
            self._call(
                "the graph cannot be used",
                "cuGraphInstantiateWithFlags",
                ctypes.byref(executable),
                graph,
                ctypes.c_ulonglong(0),
            )
        finally:
            self._call("the graph cannot be freed", "cuGraphDestroy", graph)
        return executable

    def launch_graph(self, graph: ctypes.c_void_p, stream: Any) -> None:
        self._call("the batch cannot be replayed", "cuGraphLaunch", graph, self._pointer(stream))

    def free_graph(self, graph: ctypes.c_void_p) -> None:
        self._call("the graph cannot be freed", "cuGraphExecDestroy", graph)

    def close(self) -> None:
        """The primary context lives on while TensorRT or another engine uses it."""
        if self._probe is not None:
            self._cuda.cuStreamDestroy_v2(self._probe)
            self._probe = None
            self._cuda.cuDevicePrimaryCtxRelease_v2(self._device)

    def failure(self, what: str, reason: str) -> GpuError:
        """An error whose stickiness the driver was asked for."""
        return gpu_error(what, reason, is_sticky=self.is_lost())

    def _pointer(self, stream: Any) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.stream_handle(stream))

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("the GPU cannot be asked", "cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def _call(self, what: str, name: str, *arguments: Any) -> None:
        code = int(getattr(self._cuda, name)(*arguments))
        if code == SUCCESS:
            return
        text = ctypes.c_char_p()
        self._cuda.cuGetErrorString(code, ctypes.byref(text))
        raise self.failure(what, f"{name} failed: {(text.value or b'').decode() or f'error {code}'}")


class Held:
    """Memory that gives itself back in the right context, whichever thread drops the last view of it.

    numpy takes it as an array (``__array_interface__``), so every view keeps it alive.
    """

    def __init__(self, address: int, shape: tuple[int, ...], dtype: str, free: Any) -> None:
        """Args: where it lies; free: called once, without arguments, when nothing refers to it any more."""
        import numpy as np

        typestr = np.dtype(dtype).str
        self.__array_interface__ = {"data": (address, False), "shape": shape, "typestr": typestr, "version": 3}
        self._free = free

    def __del__(self) -> None:
        with contextlib.suppress(GpuError):
            self._free()


@contextlib.contextmanager
def told_as(what: str, kind: type[BaseException], context: PrimaryContext) -> Iterator[None]:
    """Turn a package's errors into ours.

    Args:
        what: what is being done, for the message.
        kind: the package's class of errors.
        context: says whether it is lost.
    """
    try:
        yield
    except kind as error:
        raise context.failure(what, str(error)) from error
