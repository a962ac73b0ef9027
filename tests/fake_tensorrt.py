"""A stand-in for ``tensorrt`` of any release that has exactly the names of that release, and one for the driver.

The releases before 11 cannot be imported on a machine without a GPU; their surfaces were taken by introspection. Who
touches a name that a release lacks gets AttributeError, as there. What NVIDIA documents as not allowed fails as the
bindings let it fail (NvInferRuntime.h, developer guide, pyCore.cpp):

- up to 8.6 a profile belongs to one execution context, unless the plan was built to share it;
- the first run after a change of shape cannot be recorded, and a graph lives as long as its context keeps its shape;
- a context whose memory the user manages runs only with enough of it, and contexts that share it never overlap;
- TensorRT for RTX is recorded by itself alone, or with kernels that were compiled eagerly and memory of the user;
- constructors raise TypeError, setters of a profile RuntimeError, and everything is logged in several lines.

Loaded by tests with ``runpy.run_path``.
"""

from __future__ import annotations

import contextlib
import enum
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

SURFACES = json.loads((Path(__file__).parent / "data" / "trt_api_surface.json").read_text())
VERSIONS = {
    "8.6": "8.6.1",
    "10.0": "10.0.1",
    "10.3": "10.3.0",
    "10.7": "10.7.0",
    "10.13": "10.13.3.9",
    "10.16": "10.16.1.11",
    "11.0": "11.0.0.1",
    "11.4": "11.4.0.1",
    "rtx1.7": "1.7.1.116",
}
ENUMS = [
    "BuilderFlag",
    "NetworkDefinitionCreationFlag",
    "MemoryPoolType",
    "HardwareCompatibilityLevel",
    "ProfilingVerbosity",
    "DeviceType",
    "DataType",
    "TensorIOMode",
    "OnnxParserFlag",
    "ComputeCapability",
    "LayerType",
    "PreviewFeature",
    "ExecutionContextAllocationStrategy",
    "CudaGraphStrategy",
    "DynamicShapesKernelSpecializationStrategy",
]
NO_OBJECT = "pybind11::init(): factory function returned nullptr"
ACTIVATION_BYTES = 4096
SUBCLASSED = ("ILogger", "IProgressMonitor", "IInt8EntropyCalibrator2")
# what is no method but a value that may be set
ATTRIBUTES = {
    "IBuilderConfig": [
        "default_device_type",
        "DLA_core",
        "builder_optimization_level",
        "hardware_compatibility_level",
        "profiling_verbosity",
        "progress_monitor",
        "int8_calibrator",
        "num_compute_capabilities",
    ],
    "Runtime": ["engine_host_code_allowed"],
    "IExecutionContext": ["device_memory"],
    "IRuntimeConfig": ["cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"],
}


def flavour_of(release: str) -> str:
    return "tensorrt_rtx" if release.startswith("rtx") else "tensorrt"


class Number(enum.Enum):
    """The base of the fake enumerations: pybind's convert to int."""

    def __int__(self) -> int:
        return int(self.value)


class Thing:
    """An object of one TensorRT class: has that class's names and no other, and notes what was done with it."""

    def __init__(self, world: World, kind: str, **values: Any) -> None:
        vars(self).update(_world=world, _kind=kind, _values=values)

    def __getattr__(self, name: str) -> Any:
        self._world.check(self._kind, name)
        if name in self._values:
            return self._values[name]

        def method(*arguments: Any) -> Any:
            self._world.calls.append((self._kind, name, arguments))
            return self._world.answer(self, name, arguments)

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        self._world.check(self._kind, name)
        assert name in ATTRIBUTES[self._kind], f"{self._kind}.{name} is no attribute"
        self._world.calls.append((self._kind, name, value))
        self._values[name] = value
        if (self._kind, name) == ("IExecutionContext", "device_memory"):
            self._world._give_memory(self, value, ACTIVATION_BYTES)


class World:
    """One release: its module, and everything that was called."""

    def __init__(self, release: str) -> None:
        self.release = release
        self.surface: dict[str, list[str]] = SURFACES[release]
        self.calls: list[tuple[Any, ...]] = []
        self.num_dla_cores = 2
        self.executes = True
        self.refuses_plan = False
        self.timing_cache_fits = True
        self.batch_shape: tuple[int, ...] = (-1, 8, 8, 3)
        self.input_type = "UINT8"
        self.profiles = [(1, 2, 4)]
        # the plan was built with the preview feature of 8.6
        self.shares_profiles = False
        # no driver, or one that is too old for this release
        self.starts = True
        self.cannot_be_recorded = False
        # rows that TensorRT fails on
        self.fails_on: set[int] = set()
        self.is_capturing: Callable[[int], bool] = lambda stream: False
        self.logger: Any = None
        self.contexts: list[Thing] = []
        self._living: weakref.WeakSet[Thing] = weakref.WeakSet()
        self._scratch_users: dict[int, int] = {}
        self.outputs: dict[str, tuple[str, tuple[int, ...]]] = {"scores": ("FLOAT", (5,))}
        # computes a batch: tensor name → address, input name → shape, stream
        self.compute: Callable[[dict[str, int], dict[str, tuple[int, ...]], int], None] | None = None
        self.module = self._module()

    def check(self, kind: str, name: str) -> None:
        if name not in self.surface.get(kind, ()):
            raise AttributeError(f"TensorRT {self.release}: {kind!r} has no attribute {name!r}")

    def flags(self) -> set[str]:
        return {call[2][0].name for call in self.calls if call[:2] == ("IBuilderConfig", "set_flag")}

    def values_of(self, kind: str, name: str) -> list[Any]:
        return [call[2] for call in self.calls if call[:2] == (kind, name)]

    def answer(self, thing: Thing, name: str, arguments: tuple[Any, ...]) -> Any:
        if thing._kind == "IExecutionContext":
            return self._answer_of_context(thing, name, arguments)
        if name == "create_execution_context":
            return self._new_context(thing, *arguments)
        if name == "create_execution_context_without_device_memory":
            context = self._new_context(thing)
            context._values["needs memory"] = True
            return context
        if name == "set_execution_context_allocation_strategy":
            thing._values[name] = arguments[0]
        handler = getattr(self, f"_{thing._kind}_{name}", None)
        if handler is not None:
            return handler(*arguments)
        return True

    def _answer_of_context(self, context: Thing, name: str, arguments: tuple[Any, ...]) -> Any:
        match name:
            case "set_optimization_profile_async":
                return self._set_profile(context, arguments[0])
            case "set_tensor_address":
                context._values.setdefault("addresses", {})[arguments[0]] = arguments[1]
                return True
            case "set_input_shape":
                context._values.setdefault("shapes", {})[arguments[0]] = arguments[1]
                return self._set_shape(context, arguments[1])
            case "set_device_memory":
                return self._give_memory(context, *arguments)
            case "execute_async_v3":
                is_running = self._execute(context, arguments[0])
                if is_running and self.compute is not None:
                    self.compute(dict(context._values["addresses"]), dict(context._values["shapes"]), arguments[0])
                return is_running
            case _:
                raise AssertionError(f"the stand-in's contexts cannot {name}")

    def _module(self) -> SimpleNamespace:
        module = SimpleNamespace(__version__=VERSIONS[self.release])
        for kind in ENUMS:
            if kind in self.surface:
                members = {name: index for index, name in enumerate(self.surface[kind]) if name.isupper()}
                setattr(module, kind, Number(kind, members))  # type: ignore[call-arg]  # the functional form of an enumeration
        for kind in SUBCLASSED:
            if kind in self.surface:
                levels = {name: name for name in self.surface[kind] if name.isupper()}
                setattr(module, kind, type(kind, (), levels))
        self.enums = module
        if "Builder" in self.surface:
            module.Builder = lambda logger: self._start(logger, "Builder", num_DLA_cores=self.num_dla_cores)
            module.OnnxParser = lambda network, logger: Thing(self, "OnnxParser", num_errors=0)
            module.Runtime = lambda logger: self._start(logger, "Runtime")
        return module

    def _start(self, logger: Any, kind: str, **values: Any) -> Thing:
        self.logger = logger
        if not self.starts:
            self.say("CUDA initialization failure with error: 35")
            raise TypeError(NO_OBJECT)
        return Thing(self, kind, **values)

    def say(self, *lines: str) -> None:
        """Log an error; TensorRT never leaves it at one line."""
        for line in (*lines, "Error Code 2: Internal Error (Assertion false failed. )"):
            self.logger.log(self.module.ILogger.ERROR, line)

    # --- answers, by class and method ---

    def _Builder_create_network(self, bits: int) -> Thing:
        return Thing(self, "INetworkDefinition", num_layers=1)

    def _Builder_create_builder_config(self) -> Thing:
        return Thing(self, "IBuilderConfig")

    def _Builder_create_optimization_profile(self) -> Thing:
        return Thing(self, "IOptimizationProfile")

    def _Builder_build_serialized_network(self, network: Thing, config: Thing) -> bytes:
        return b"ftrt" + bytes(20) + bytes([10, 3, 0, 26]) + b"plan"

    def _INetworkDefinition_get_layer(self, index: int) -> Thing:
        kind = self.enums.LayerType.CONVOLUTION
        return Thing(self, "ILayer", name="stem.conv", type=kind, num_inputs=1, num_outputs=1)

    def _INetworkDefinition_get_input(self, index: int) -> Thing:
        return self._tensor("images")

    def _ILayer_get_input(self, index: int) -> Thing:
        return self._tensor("images")

    def _ILayer_get_output(self, index: int) -> Thing:
        return self._tensor("probs")

    def _tensor(self, name: str) -> Thing:
        return Thing(self, "ITensor", name=name, dtype=self.enums.DataType.FLOAT)

    def _IBuilderConfig_can_run_on_DLA(self, layer: Thing) -> bool:
        return False

    def _IBuilderConfig_create_timing_cache(self, data: bytes) -> Thing:
        return Thing(self, "ITimingCache")

    def _IBuilderConfig_get_timing_cache(self) -> Thing:
        return Thing(self, "ITimingCache")

    def _IBuilderConfig_set_timing_cache(self, cache: Thing, ignore_mismatch: bool) -> bool:
        fits, self.timing_cache_fits = self.timing_cache_fits, True
        return fits

    def _ITimingCache_serialize(self) -> bytes:
        return b"times"

    def _Runtime_deserialize_cuda_engine(self, plan: bytes) -> Thing | None:
        if self.refuses_plan:
            return None
        profiles = len(self.profiles)
        tensors = 1 + len(self.outputs)
        sizes = dict.fromkeys(("device_memory_size", "device_memory_size_v2"), ACTIVATION_BYTES)
        return Thing(self, "ICudaEngine", num_io_tensors=tensors, num_optimization_profiles=profiles, **sizes)

    def _ICudaEngine_get_tensor_name(self, index: int) -> str:
        return ("frames", *self.outputs)[index]

    def _ICudaEngine_get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.batch_shape if name == "frames" else (self.batch_shape[0], *self.outputs[name][1])

    def _ICudaEngine_get_tensor_dtype(self, name: str) -> Any:
        return getattr(self.enums.DataType, self.input_type if name == "frames" else self.outputs[name][0])

    def _ICudaEngine_get_tensor_mode(self, name: str) -> Any:
        return self.enums.TensorIOMode.INPUT if name == "frames" else self.enums.TensorIOMode.OUTPUT

    def _ICudaEngine_get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        return [(size, *self.batch_shape[1:]) for size in self.profiles[index]]

    def _new_context(self, engine: Thing, how: Any = None) -> Thing:
        context = Thing(self, "IExecutionContext", engine=engine)
        managed = "set_execution_context_allocation_strategy" if isinstance(how, Thing) else None
        strategy = how._values.get(managed) if managed else how
        context._values["needs memory"] = strategy is not None and strategy.name == "USER_MANAGED"
        context._values["config"] = how if isinstance(how, Thing) else None
        self.contexts.append(context)
        self._living.add(context)
        return context

    def _ICudaEngine_create_runtime_config(self) -> Thing:
        return Thing(self, "IRuntimeConfig")

    def _IRuntimeConfig_create_runtime_cache(self) -> Thing:
        return Thing(self, "IRuntimeCache")

    def _IRuntimeConfig_get_runtime_cache(self) -> Thing:
        return Thing(self, "IRuntimeCache")

    def _IRuntimeCache_serialize(self) -> bytes:
        return b"kernels"

    # --- what a context may do ---

    def _is_dynamic(self) -> bool:
        return self.batch_shape[0] < 0

    def _set_profile(self, context: Thing, profile: int) -> bool:
        must_own = self.release == "8.6" and self._is_dynamic() and not self.shares_profiles
        engine = context._values["engine"]
        others = [other for other in self._living if other is not context and other._values["engine"] is engine]
        if must_own and profile in [other._values.get("profile") for other in others]:
            self.say(
                f"IExecutionContext::setOptimizationProfileAsync: Error Code 3: API Usage Error (Profile {profile} "
                "has been chosen by another IExecutionContext. Use another profileIndex or destroy the "
                "IExecutionContext that use this profile.)"
            )
            raise RuntimeError("Error in set optimization profile async.")
        context._values["profile"] = profile
        return True

    def _set_shape(self, context: Thing, shape: tuple[int, ...]) -> bool:
        low, _, high = self.profiles[context._values.get("profile", 0)]
        if not low <= shape[0] <= high:
            self.say(f"Set dimension [{shape}] for tensor frames does not satisfy any optimization profiles.")
            return False
        if context._values.get("shape") != shape:
            # what was recorded holds kernels and addresses of the old shape
            assert not context._values.get("is recorded"), "the shape of a context changed after it was recorded"
            context._values.update(shape=shape, ran=False)
        return True

    def _give_memory(self, context: Thing, address: int, num_bytes: int) -> None:
        assert address % 256 == 0, "scratch memory must be aligned to 256 bytes"
        context._values["scratch"] = (address, num_bytes)

    def _execute(self, context: Thing, stream: int) -> bool:
        values = context._values
        address, size = values.get("scratch", (0, 0))
        if values.get("needs memory"):
            if size < ACTIVATION_BYTES:
                self.say("IExecutionContext::enqueueV3: Error Code 3: API Usage Error (device memory is not set)")
                return False
            assert self._scratch_users.setdefault(address, stream) == stream, "two streams share scratch memory"
        if not self.executes or values.get("shape", (0,))[0] in self.fails_on:
            self.say("IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (invalid argument)")
            return False
        if self.is_capturing(stream):
            if self._cannot_record(context):
                self.say("Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)")
                return False
            values["is recorded"] = True
        values["ran"] = True
        return True

    def _cannot_record(self, context: Thing) -> bool:
        config = context._values.get("config")
        if config is not None and config._values.get("dynamic_shapes_kernel_specialization_strategy") is None:
            return True
        return self.cannot_be_recorded or not context._values.get("ran")


class FakeDriver:
    """A driver that notes what was issued and does nothing of it; tests/numpy_gpu.py has one that does.

    Attributes:
        log: what was issued, in order: ``("upload", stream, bytes)``, …
        failure: raised by the next wait.
        is_dead: a sticky error has happened: whatever is asked fails.
    """

    compute_capability = "8.9"
    index = 0

    def __init__(self, *, is_integrated: bool = False) -> None:
        self.is_integrated = is_integrated
        self.log: list[tuple[Any, ...]] = []
        self.allocations: list[int] = []
        self.threads: list[int] = []
        self.failure: Exception | None = None
        self.capture_failure: Exception | None = None
        self.recording: set[int] = set()
        self.live_graphs: set[int] = set()
        self.is_closed = False
        self.is_dead = False
        self._next = 0

    def _number(self) -> int:
        self._next += 102_400
        return self._next

    def attach(self) -> None:
        import threading

        assert not self.is_dead, "asked for the GPU after a sticky error"
        self.threads.append(threading.get_ident())

    def is_lost(self) -> bool:
        return self.is_dead

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        assert not self.is_dead, "asked for the GPU after a sticky error"
        self.log.append(("enter",))
        yield
        self.log.append(("leave",))

    def new_stream(self) -> int:
        return self._number()

    def stream_handle(self, stream: int) -> int:
        return stream

    def new_event(self) -> int:
        return self._number()

    def device_memory(self, num_bytes: int) -> int:
        self.allocations.append(num_bytes)
        return self._number()

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Any:
        array = np.zeros(shape, dtype)
        self.allocations.append(array.nbytes)
        return array

    def mapped_address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def upload(self, address: int, array: Any, stream: int) -> None:
        self.log.append(("upload", stream, array.nbytes))

    def download(self, array: Any, address: int, stream: int) -> None:
        self.log.append(("download", stream, array.nbytes))

    def after_default_stream(self, stream: int) -> None:
        self.log.append(("after default", stream))

    def record(self, event: int, stream: int) -> None:
        self.log.append(("record", stream))

    def wait(self, event: int) -> None:
        assert not self.recording, "waited while a stream records"
        self.log.append(("wait",))
        if self.failure is not None:
            self.is_dead = bool(getattr(self.failure, "is_sticky", False))
            raise self.failure

    def begin_capture(self, stream: int) -> None:
        if self.capture_failure is not None:
            raise self.capture_failure
        self.log.append(("begin", stream))
        self.recording.add(stream)

    def end_capture(self, stream: int) -> int:
        self.recording.remove(stream)
        graph = self._number()
        self.live_graphs.add(graph)
        self.log.append(("end", stream, graph))
        return graph

    def launch_graph(self, graph: int, stream: int) -> None:
        assert graph in self.live_graphs
        self.log.append(("graph", stream, graph))

    def load_kernels(self, cubin: Path) -> Path:
        return cubin

    def launch(self, kernels: Path, launch: Any, stream: int) -> None:
        self.log.append(("launch", stream, launch.kernel))

    def free_graph(self, graph: int) -> None:
        self.live_graphs.remove(graph)
        self.log.append(("free", graph))

    def close(self) -> None:
        self.is_closed = True
