"""A GPU for tests, made of numpy memory and of our kernels compiled as C++. Loaded with ``runpy.run_path``.

Work queues up per stream and happens when somebody waits for it, as late as a real GPU may do it: who reads a result
too early, or changes memory that a copy still has to read, gets wrong numbers.
"""

from __future__ import annotations

import ctypes
import runpy
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from needs import need

from edge.engines.cuda.launches import Launch

TESTS = Path(__file__).parent
FAKE = runpy.run_path(str(TESTS / "fake_tensorrt.py"))
FakeDriver: Any = FAKE["FakeDriver"]
# no fused multiply-adds, as the kernels ask for on the GPU
FLAGS = ["-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC"]


class CpuKernels:
    """Runs launches on the CPU; addresses are those of numpy arrays."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))

    def run(self, steps: Iterable[Launch]) -> None:
        for step in steps:
            size = getattr(self.library, f"size_{step.kernel}")()
            assert size == step.arguments.nbytes, f"{step.kernel}: the struct in C has {size} bytes"
            indices = ((ctypes.c_uint * 3)(*step.grid), (ctypes.c_uint * 3)(*step.block))
            getattr(self.library, f"run_{step.kernel}")(*indices, ctypes.c_void_p(step.arguments.ctypes.data))


def compile_as_cpp(folder: Path) -> CpuKernels:
    """``kernels.cu`` as a library for this machine's processor; skips the test without g++."""
    compiler = need("g++")
    library = folder / "kernels.so"
    command = [compiler, *FLAGS, f"-I{TESTS}", str(TESTS / "cpu_kernels.cpp"), "-o", str(library)]
    subprocess.run(command, check=True, timeout=100)
    return CpuKernels(library)


def at(address: int, num_bytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes at an address."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(address))


class Memory:
    """Memory of the GPU, full of rubbish at first."""

    def __init__(self, num_bytes: int) -> None:
        whole = np.full(num_bytes + 256, 0xA5, np.uint8)
        # the driver's memory is aligned like that
        start = -whole.ctypes.data % 256
        self.data = whole[start : start + num_bytes]

    def __int__(self) -> int:
        return int(self.data.ctypes.data)


class NumpyGpu(FakeDriver):  # type: ignore[misc]  # runpy gives Any
    """A driver whose work really happens; see ``edge.engines.cuda.context.Driver``."""

    def __init__(self, kernels: CpuKernels | None = None, *, is_integrated: bool = False) -> None:
        super().__init__(is_integrated=is_integrated)
        self._kernels = kernels
        self._queues: dict[int, list[Callable[[], None]]] = {}
        self._captured: dict[int, list[Callable[[], None]]] = {}
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._events: dict[int, int] = {}
        self.num_memories = 0

    def serve(self, world: Any, model: Callable[..., dict[str, Any]], dtype: str) -> None:
        """Let the contexts of a stand-in for TensorRT compute outputs from inputs of this type in this GPU's memory."""
        world.is_capturing = self.recording.__contains__
        world.compute = lambda bound, shapes, stream: self.enqueue(
            stream, lambda: _compute(bound, shapes, model, np.dtype(dtype))
        )

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        queue = self._captured[stream] if stream in self._captured else self._queues.setdefault(stream, [])
        queue.append(work)

    def device_memory(self, num_bytes: int) -> Memory:
        self.allocations.append(num_bytes)
        self.num_memories += 1
        return Memory(num_bytes)

    def upload(self, address: int, array: Any, stream: int) -> None:
        super().upload(address, array, stream)
        data = array.reshape(-1).view(np.uint8)
        self.enqueue(stream, lambda: np.copyto(at(address, data.nbytes), data))

    def download(self, array: Any, address: int, stream: int) -> None:
        super().download(array, address, stream)
        data = array.reshape(-1).view(np.uint8)
        self.enqueue(stream, lambda: np.copyto(data, at(address, data.nbytes)))

    def launch(self, kernels: Any, launch: Launch, stream: int) -> None:
        super().launch(kernels, launch, stream)
        assert self._kernels is not None
        runner, step = self._kernels, Launch(launch.kernel, launch.grid, launch.block, launch.arguments.copy())
        self.enqueue(stream, lambda: runner.run([step]))

    def record(self, event: int, stream: int) -> None:
        super().record(event, stream)
        self._events[event] = stream

    def wait(self, event: int) -> None:
        super().wait(event)
        queue = self._queues.get(self._events[event], [])
        while queue:
            queue.pop(0)()

    def begin_capture(self, stream: int) -> None:
        super().begin_capture(stream)
        self._captured[stream] = []

    def end_capture(self, stream: int) -> int:
        graph = int(super().end_capture(stream))
        self._graphs[graph] = self._captured.pop(stream)
        return graph

    def launch_graph(self, graph: int, stream: int) -> None:
        super().launch_graph(graph, stream)
        self._queues.setdefault(stream, []).extend(self._graphs[graph])


def _compute(
    bound: dict[str, int],
    shapes: dict[str, tuple[int, ...]],
    model: Callable[..., dict[str, Any]],
    dtype: np.dtype[Any],
) -> None:
    (name, shape), *_ = shapes.items()
    outputs = model(at(bound[name], int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape))
    for output, values in outputs.items():
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        np.copyto(at(bound[output], data.nbytes), data)
