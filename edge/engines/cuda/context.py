"""The narrow shim over the CUDA driver: all that engines and kernels need of it.

Two packages can do it: pycuda, which is compiled on the machine, and cuda-bindings, which has wheels. Neither can be
used without a driver; what is above this file is tested with a fake, and both with a stand-in for libcuda.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge.engines.cuda.errors import GpuError
from edge.errors import MissingError

if TYPE_CHECKING:
    from edge.engines.cuda.launches import Launch
    from edge.types import Array


class Driver(Protocol):
    """What is needed of a GPU. Handles of streams, events, memory and graphs mean nothing outside of it."""

    @property
    def index(self) -> int:
        """Number of the GPU."""

    @property
    def is_integrated(self) -> bool:
        """Whether CPU and GPU share their memory (Jetson), so that nothing needs to be copied."""

    @property
    def compute_capability(self) -> str: ...

    def attach(self) -> None:
        """Make the context current in the calling thread, for good."""

    def is_lost(self) -> bool:
        """Whether a sticky error has destroyed the context; the driver itself is asked."""

    def scope(self) -> AbstractContextManager[None]:
        """Whatever of this driver is freed must be freed inside, in any thread; outside it may leak.

        Pinned memory alone may be dropped anywhere.
        """

    def new_stream(self) -> Any:
        """A stream that does not wait for the default stream, nor it for this one: others may use it meanwhile."""

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

    def after_default_stream(self, stream: Any) -> None:
        """Let the stream wait for what is on the default stream now, where decoders leave their pictures."""

    def wait(self, event: Any) -> None:
        """Sleep until everything before the event is done."""

    def begin_capture(self, stream: Any) -> None: ...

    def end_capture(self, stream: Any) -> Any:
        """A graph of everything issued since ``begin_capture``."""

    def launch_graph(self, graph: Any, stream: Any) -> None: ...

    def free_graph(self, graph: Any) -> None: ...

    def load_kernels(self, image: Path) -> Any:
        """Args: image: PTX or a cubin."""

    def launch(self, kernels: Any, launch: Launch, stream: Any) -> None: ...

    def close(self) -> None: ...


def open_driver(index: int = 0) -> Driver:
    """The context of a GPU through pycuda, or through cuda-bindings where pycuda cannot be loaded.

    Raises:
        MissingError: neither of them, or no driver.
        GpuError: no such GPU, or it cannot be used.
    """
    try:
        from edge.engines.cuda.pycuda_driver import PycudaDriver

        return PycudaDriver(index)
    except ImportError as error:
        reason = str(error)
    try:
        from edge.engines.cuda.bindings_driver import BindingsDriver

        return BindingsDriver(index)
    except ImportError:
        raise MissingError(
            f"pycuda cannot be loaded ({reason}); run: pip install cuda-bindings, or build pycuda (see docs/gpu.md)"
        ) from None


__all__ = ["Driver", "GpuError", "open_driver"]
