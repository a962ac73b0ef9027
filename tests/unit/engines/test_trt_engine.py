"""The engine's logic above the driver: order of work, reuse of memory, graphs per batch size, kinds of failure.

TensorRT and the driver are stand-ins, because neither runs without a GPU; tests/gpu does the same with the real ones.
"""

from __future__ import annotations

import hashlib
import runpy
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.engines.cuda.errors import GpuError, gpu_error
from edge.engines.trt.api import TensorRt
from edge.engines.trt.engine import TrtEngine
from edge.engines.trt.preflight import Environment
from edge.engines.trt.slot import choose_profile
from edge.errors import EngineError, ManifestError
from edge.models.manifest import EngineSpec, InputSpec, Manifest, Profile
from edge.types import UInt8

FAKE = runpy.run_path(str(Path(__file__).parents[2] / "fake_tensorrt.py"))
RELEASES = tuple(FAKE["VERSIONS"])


class Bench:
    """An engine on a stand-in, with everything that it did."""

    def __init__(self, folder: Path, release: str = "10.3", *, is_integrated: bool = False, **options: Any) -> None:
        self.world = FAKE["World"](release)
        for name in ("batch_shape", "profiles", "capturable", "executes", "refuses_plan"):
            if name in options:
                setattr(self.world, name, options.pop(name))
        self.driver = FAKE["FakeDriver"](is_integrated=is_integrated)
        api = TensorRt(self.world.module, FAKE["flavour_of"](release))
        path, manifest = write_engine(folder, api, options.pop("flags", ()))
        here = Environment({api.flavour: api.version}, {}, "8.9", True)
        options.setdefault("find_kernels", lambda capability: folder / f"{capability}.cubin")
        self.engine = TrtEngine(path, manifest, environment=here, driver=self.driver, api=api, **options)
        self.path = path

    def issued(self, kind: str) -> list[tuple[Any, ...]]:
        return [entry for entry in self.driver.log if entry[0] == kind]


def write_engine(folder: Path, api: TensorRt, flags: tuple[str, ...] = ()) -> tuple[Path, Manifest]:
    numbers = bytes((*api.release, 0, 0)[:4])
    size = (28).to_bytes(8, "little")
    data = (b"vtrt" if api.is_rtx else b"ftrt") + bytes(12) + size + numbers
    path = folder / "door.engine"
    path.write_bytes(data)
    spec = EngineSpec(
        flavour=api.flavour,
        version=".".join(map(str, numbers)) if not api.is_rtx else api.version,
        compute_capabilities=("8.9",),
        profiles=(Profile(min_batch=1, opt_batch=2, max_batch=4),),
        inputs_sha256="0",
        onnx_sha256="1",
        flags=flags,
    )
    manifest = Manifest(
        name="door",
        task="detect",
        head="edgenet",
        input=InputSpec(name="frames", width=8, height=8, layout="nhwc", dtype="uint8", colour="bgr"),
        classes=("person",),
        engine=spec,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return path, manifest


def frames(count: int, level: int = 1) -> UInt8:
    return np.full((count, 8, 8, 3), level, np.uint8)


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_runs(tmp_path: Path, release: str) -> None:
    bench = Bench(tmp_path, release)
    for _ in range(3):
        outputs = bench.engine.infer(frames(2))
        assert {name: array.shape for name, array in outputs.items()} == {"scores": (2, 5)}
    assert (bench.engine.max_batch, bench.engine.is_fixed_batch) == (4, False)
    assert bench.engine.inputs[0].shape == (None, 8, 8, 3)
    bench.engine.close()
    bench.engine.close()
    assert bench.driver.is_closed
    assert not bench.driver.live_graphs
    assert (tmp_path / "door.sm89.rtxcache").exists() == release.startswith("rtx")


@pytest.mark.parametrize(("flags", "is_code"), [((), False), (("FP16",), False), (("version_compatible",), True)])
def test_only_a_plan_for_later_releases_may_bring_code_for_the_processor(
    flags: tuple[str, ...], is_code: bool, tmp_path: Path
) -> None:
    engine = Bench(tmp_path, RELEASES[0], flags=flags).engine
    assert engine._plan._runtime.engine_host_code_allowed is is_code
    engine.close()


def test_nothing_is_allocated_per_frame(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    before = list(bench.driver.allocations)
    contexts = len(bench.world.contexts)
    for count in (1, 4, 2, 3, 4, 1) * 5:
        bench.engine.infer(frames(count))
    assert bench.driver.allocations == before
    assert len(bench.world.contexts) == contexts == 2


def test_bytes_are_uploaded_as_they_are_and_only_those_of_the_batch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, use_graphs=False)
    bench.engine.infer(frames(3))
    assert [entry[2] for entry in bench.issued("upload")] == [3 * 8 * 8 * 3]
    assert [entry[2] for entry in bench.issued("download")] == [3 * 5 * 4]


def test_shared_memory_is_not_copied(tmp_path: Path) -> None:
    bench = Bench(tmp_path, is_integrated=True)
    bench.engine.infer(frames(2))
    assert not bench.issued("upload") and not bench.issued("download")
    bound = bench.world.values_of("IExecutionContext", "set_tensor_address")
    outputs = bench.engine.infer(frames(2))
    assert outputs["scores"].ctypes.data in {address for _, address in bound}


def test_two_batches_are_in_flight_on_two_streams(tmp_path: Path) -> None:
    bench = Bench(tmp_path, use_graphs=False)
    bench.engine.submit(frames(1))
    bench.engine.submit(frames(2))
    # the second copy and run are issued before anybody waits for the first
    assert not bench.issued("wait")
    streams = [entry[1] for entry in bench.issued("upload")]
    assert len(set(streams)) == 2
    with pytest.raises(ValueError, match="2 batches are in flight; collect one first"):
        bench.engine.submit(frames(1))
    assert len(bench.engine.collect()["scores"]) == 1
    assert len(bench.engine.collect()["scores"]) == 2
    with pytest.raises(ValueError, match="no batch is in flight"):
        bench.engine.collect()


def test_outputs_stay_valid_while_the_next_batch_runs(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.engine.infer(frames(1))["scores"]
    second = bench.engine.infer(frames(1))["scores"]
    assert not np.shares_memory(first, second)
    assert np.shares_memory(first, bench.engine.infer(frames(1))["scores"])


def test_the_tensor_may_change_as_soon_as_submit_returns(tmp_path: Path) -> None:
    bench = Bench(tmp_path, use_graphs=False)
    tensor = frames(1, level=9)
    bench.engine.submit(tensor)
    assert not any(np.shares_memory(tensor, slot._input.host) for slot in bench.engine._slots)
    assert (bench.engine._busy[0]._input.host[0] == 9).all()


def test_a_graph_is_recorded_the_second_time_and_replayed_from_then_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for _ in range(2 * 4):
        bench.engine.infer(frames(2))
    # per slot: one plain run, one recording, replays
    assert len(bench.issued("begin")) == 2
    assert len(bench.issued("graph")) == 2 * 3
    runs = bench.world.values_of("IExecutionContext", "execute_async_v3")
    assert len(runs) == 2 * 2
    assert bench.engine.name == "TensorRT 10.3.0, compute capability 8.9, CUDA graphs"


def test_each_batch_size_has_its_own_graph(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for count in (1, 2, 3) * 6:
        bench.engine.infer(frames(count))
    assert len(bench.driver.live_graphs) == 2 * 3
    bench.engine.close()
    assert not bench.driver.live_graphs


def test_graphs_can_be_switched_off(tmp_path: Path) -> None:
    bench = Bench(tmp_path, use_graphs=False)
    for _ in range(6):
        bench.engine.infer(frames(2))
    assert not bench.issued("begin")
    assert bench.engine.name.endswith("no CUDA graphs")


def test_rtx_is_not_recorded_while_it_compiles(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "rtx1.7", capturable=False)
    for _ in range(6):
        bench.engine.infer(frames(2))
    assert not bench.issued("begin")
    bench.world.capturable = True
    for _ in range(2):
        bench.engine.infer(frames(2))
    assert len(bench.issued("begin")) == 2


def test_a_model_that_cannot_be_recorded_runs_without_graphs(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.driver.capture_failure = gpu_error("record", "operation not permitted when stream is capturing")
    for _ in range(6):
        assert len(bench.engine.infer(frames(2))["scores"]) == 2
    assert not bench.issued("graph")


def test_recording_ends_when_tensorrt_fails_while_it_records(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.engine.infer(frames(1))
    bench.engine.infer(frames(1))
    bench.engine._api.messages.append("stream capture is not permitted")
    bench.world.executes = False
    with pytest.raises(GpuError, match="could not run the batch: stream capture"):
        bench.engine.infer(frames(1))
    assert len(bench.issued("begin")) == len(bench.issued("end")) == 1
    assert not bench.driver.live_graphs


def test_a_sticky_error_is_told_apart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.driver.failure = gpu_error("the batch failed on the GPU", "an illegal memory access was encountered")
    with pytest.raises(GpuError, match="the process must be started again") as caught:
        bench.engine.infer(frames(1))
    assert caught.value.is_sticky
    assert isinstance(caught.value, EngineError)


@pytest.mark.parametrize(
    ("reason", "is_sticky"),
    [
        ("cuMemAlloc failed: out of memory", False),
        ("cuLaunchKernel failed: invalid argument", False),
        ("cuModuleLoad failed: no kernel image is available for execution on the device", False),
        ("operation not permitted when stream is capturing", False),
        ("an illegal memory access was encountered", True),
        ("the launch timed out and was terminated", True),
        ("unspecified launch failure", True),
        ("an illegal instruction was encountered", True),
        ("misaligned address", True),
        ("hardware stack error", True),
        ("device-side assert triggered", True),
        ("uncorrectable ECC error encountered", True),
        ("context is destroyed", True),
        ("unknown error", True),
        ("", True),
    ],
)
def test_errors_of_the_gpu_are_classified(reason: str, is_sticky: bool) -> None:
    assert gpu_error("work failed", reason).is_sticky is is_sticky


def test_everything_is_freed_inside_the_drivers_scope(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for _ in range(6):
        bench.engine.infer(frames(1))
    bench.engine.close()
    assert [entry[0] for entry in bench.driver.log][-4:] == ["enter", "free", "free", "leave"]


@pytest.mark.parametrize("count", [0, 5])
def test_a_batch_of_the_wrong_size_is_our_mistake(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match=f"expected 1 to 4 frames, found {count}"):
        Bench(tmp_path).engine.infer(frames(count))


def test_a_fixed_batch_is_declared(tmp_path: Path) -> None:
    bench = Bench(tmp_path, batch_shape=(4, 8, 8, 3), profiles=[(4, 4, 4)])
    assert bench.engine.is_fixed_batch
    assert bench.engine.infer(frames(4))["scores"].shape == (4, 5)


def test_small_batches_are_filled_up_to_the_profile(tmp_path: Path) -> None:
    bench = Bench(tmp_path, profiles=[(2, 2, 4)])
    assert bench.engine.infer(frames(1))["scores"].shape == (1, 5)
    assert bench.world.values_of("IExecutionContext", "set_input_shape")[0] == ("frames", (2, 8, 8, 3))


def test_each_profile_has_its_own_context(tmp_path: Path) -> None:
    bench = Bench(tmp_path, profiles=[(1, 1, 1), (2, 4, 4)])
    assert len(bench.world.contexts) == 4
    chosen = bench.world.values_of("IExecutionContext", "set_optimization_profile_async")
    assert [index for index, _ in chosen] == [0, 1, 0, 1]


@pytest.mark.parametrize(("batch", "expected"), [(1, 0), (2, 1), (4, 1), (8, 1), (9, 2), (16, 2)])
def test_the_nearest_profile_is_chosen(batch: int, expected: int) -> None:
    profiles = [Profile(min_batch=1, opt_batch=1, max_batch=1)]
    profiles += [Profile(min_batch=2, opt_batch=4, max_batch=8), Profile(min_batch=1, opt_batch=16, max_batch=16)]
    assert choose_profile(profiles, batch) == expected


def test_a_plan_that_tensorrt_refuses_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"door.engine: TensorRT 10.3.0 refuses the engine .*; run: edge build"):
        Bench(tmp_path, refuses_plan=True)


def test_an_engine_with_another_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"the engine has frames uint8 \[N,4,4,3\]"):
        Bench(tmp_path, batch_shape=(-1, 4, 4, 3))


def test_an_output_of_unknown_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="expected the batch first and fixed sizes behind it"):
        Bench(tmp_path, batch_shape=(3, 8, 8, 3))


def test_the_context_is_taken_along_to_another_thread(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    worker = threading.Thread(target=bench.engine.infer, args=(frames(1),))
    worker.start()
    worker.join(10)
    assert bench.driver.threads[-1] == worker.ident
