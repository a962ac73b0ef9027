"""The engine's logic above the driver: order of work, reuse of memory, graphs per batch size, kinds of failure.

TensorRT and the driver are stand-ins, because neither runs without a GPU; tests/gpu does the same with the real ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import runpy
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.engines.cuda.errors import GpuError, gpu_error
from edge.engines.cuda.streams import ReplayStream
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
        of_world = "batch_shape profiles executes refuses_plan shares_profiles starts cannot_be_recorded fails_on"
        for name in of_world.split():
            if name in options:
                setattr(self.world, name, options.pop(name))
        self.driver = options.pop("driver", None) or FAKE["FakeDriver"](is_integrated=is_integrated)
        self.world.is_capturing = self.driver.recording.__contains__
        api = TensorRt(self.world.module, FAKE["flavour_of"](release))
        path, manifest = write_engine(folder, api, options.pop("flags", ()))
        here = Environment({api.flavour: api.version}, {}, "8.9", True)
        options.setdefault("find_kernels", lambda capability: folder / f"{capability}.cubin")
        self.engine = TrtEngine(path, manifest, environment=here, driver=self.driver, api=api, **options)
        self.path = path
        # what loading did, and what comes of traffic
        self.loading, self.loading_calls = list(self.driver.log), list(self.world.calls)
        self.driver.log.clear()
        self.world.calls.clear()

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
    assert engine._plans[0]._runtime.engine_host_code_allowed is is_code
    engine.close()


def test_nothing_is_allocated_per_frame(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    before = list(bench.driver.allocations)
    contexts = len(bench.world.contexts)
    for count in (1, 4, 2, 3, 4, 1) * 5:
        bench.engine.infer(frames(count))
    assert bench.driver.allocations == before
    # two slots, batches of 1, 2 and 4
    assert len(bench.world.contexts) == contexts == 2 * 3


def test_bytes_are_uploaded_as_they_are_and_only_those_of_the_batch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, use_graphs=False)
    bench.engine.infer(frames(3))
    assert [entry[2] for entry in bench.issued("upload")] == [3 * 8 * 8 * 3]
    assert [entry[2] for entry in bench.issued("download")] == [3 * 5 * 4]


def test_shared_memory_is_not_copied(tmp_path: Path) -> None:
    bench = Bench(tmp_path, is_integrated=True)
    bench.engine.infer(frames(2))
    assert not bench.issued("upload") and not bench.issued("download")
    bound = [call[2] for call in bench.loading_calls if call[:2] == ("IExecutionContext", "set_tensor_address")]
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


def test_graphs_are_recorded_at_load_and_only_replayed_in_traffic(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for count in (1, 4, 2, 3) * 4:
        bench.engine.infer(frames(count))
    assert len([entry for entry in bench.loading if entry[0] == "begin"]) == 2 * 3
    assert not bench.issued("begin")
    assert len(bench.issued("graph")) == 16
    assert not bench.world.calls, "TensorRT was asked for something in traffic"
    assert bench.engine.name == "TensorRT 10.3.0, compute capability 8.9, CUDA graphs"


def test_every_size_runs_once_with_its_shape_before_it_is_recorded(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    kinds = [entry[0] for entry in bench.loading if entry[0] in ("wait", "begin", "end")]
    assert kinds == ["wait", "begin", "end"] * (2 * 3)
    # once plainly, once recorded, in a context of its own
    names = [call[1] for call in bench.loading_calls if call[0] == "IExecutionContext"]
    assert names.count("execute_async_v3") == 2 * 2 * 3
    assert names.count("set_input_shape") == len(bench.world.contexts) == 2 * 3


def test_batches_are_filled_up_to_the_next_power_of_two(tmp_path: Path) -> None:
    bench = Bench(tmp_path, use_graphs=False)
    assert bench.engine.infer(frames(3))["scores"].shape == (3, 5)
    assert [entry[2] for entry in bench.issued("download")] == [3 * 5 * 4]
    bench.engine.close()
    assert not bench.driver.live_graphs


def test_each_batch_size_has_its_own_graph(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    graphs = []
    for count in (1, 2, 4):
        bench.engine.infer(frames(count))
        bench.engine.infer(frames(count))
        graphs.append(tuple(entry[2] for entry in bench.issued("graph")[-2:]))
    assert len({graph for pair in graphs for graph in pair}) == 2 * 3
    bench.engine.close()
    assert not bench.driver.live_graphs


def test_graphs_can_be_switched_off(tmp_path: Path) -> None:
    bench = Bench(tmp_path, use_graphs=False)
    for _ in range(6):
        bench.engine.infer(frames(2))
    assert not bench.issued("begin") and not [entry for entry in bench.loading if entry[0] == "begin"]
    assert bench.engine.name.endswith("no CUDA graphs")


@pytest.mark.parametrize("use_graphs", [True, False])
def test_rtx_records_its_own_graphs_and_is_never_recorded(tmp_path: Path, use_graphs: bool) -> None:
    bench = Bench(tmp_path, "rtx1.7", use_graphs=use_graphs)
    for _ in range(6):
        bench.engine.infer(frames(2))
    assert not [entry for entry in (*bench.loading, *bench.driver.log) if entry[0] == "begin"]
    chosen = [call[2].name for call in bench.loading_calls if call[:2] == ("IRuntimeConfig", "cuda_graph_strategy")]
    assert chosen == (["WHOLE_GRAPH_CAPTURE"] if use_graphs else [])
    assert bench.engine.name.endswith(", CUDA graphs") is use_graphs


def test_a_model_that_cannot_be_recorded_runs_without_graphs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path, cannot_be_recorded=True)
    for _ in range(6):
        assert len(bench.engine.infer(frames(2))["scores"]) == 2
    assert not bench.issued("graph") and not bench.driver.recording
    assert "batches of 1 run without a CUDA graph: TensorRT could not run the batch" in caplog.text
    assert "operation not permitted when stream is capturing" in caplog.text
    assert bench.engine.name.endswith("no CUDA graphs")


def test_one_size_that_cannot_be_recorded_leaves_the_others_their_graphs(tmp_path: Path) -> None:
    driver = FAKE["FakeDriver"]()
    failures = [gpu_error("recording did not begin", "some words that nobody knows", is_sticky=False)]
    begin = driver.begin_capture

    def fail_once(stream: int) -> None:
        if failures:
            raise failures.pop()
        begin(stream)

    driver.begin_capture = fail_once
    bench = Bench(tmp_path, driver=driver)
    assert len(driver.live_graphs) == 2 * 3 - 1
    for count in (1, 2, 4):
        assert len(bench.engine.infer(frames(count))["scores"]) == count


def test_words_of_a_failed_recording_do_not_end_the_process_and_a_lost_gpu_does(tmp_path: Path) -> None:
    driver = FAKE["FakeDriver"]()
    begin = driver.begin_capture

    def fail(stream: int) -> None:
        driver.is_dead = is_dead
        raise gpu_error("recording did not begin", "signal failed (400)", is_sticky=is_dead)

    driver.begin_capture = fail
    is_dead = False
    assert Bench(tmp_path, driver=driver).engine.name.endswith("no CUDA graphs")
    is_dead = True
    with pytest.raises(GpuError, match="the process must be started again"):
        Bench(tmp_path, driver=driver)
    driver.begin_capture = begin


@pytest.mark.parametrize("error", [KeyboardInterrupt, AssertionError, RuntimeError])
def test_a_recording_ends_whatever_was_raised_in_it(error: type[BaseException]) -> None:
    driver = FAKE["FakeDriver"]()
    stream = ReplayStream(driver)

    def work() -> None:
        raise error("in the middle")

    with contextlib.suppress(error):
        stream.record(1, work)
    assert not driver.recording and not driver.live_graphs
    stream.run(1, lambda: None)


def test_tensorrt_that_fails_says_all_that_it_logged_and_nothing_of_before(tmp_path: Path) -> None:
    bench = Bench(tmp_path, use_graphs=False)
    bench.engine._api.messages.append("of long ago: illegal memory access")
    bench.world.executes = False
    with pytest.raises(GpuError) as caught:
        bench.engine.infer(frames(1))
    said = "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (invalid argument); Error Code 2: Internal Error"
    assert said in str(caught.value) and "long ago" not in str(caught.value)
    # the driver was asked, not the words: the second line is one that nobody knows
    assert not caught.value.is_sticky


# --- what each release lets a context do ---


def test_a_plan_of_8_6_shares_its_profile_if_it_was_built_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "8.6", shares_profiles=True, flags=("profile_sharing",))
    assert len(bench.world.contexts) == 2 * 3
    assert bench.engine.name.endswith(", CUDA graphs")


def test_a_plan_of_8_6_that_does_not_share_is_loaded_once_for_each_batch_in_flight(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "8.6")
    assert len([call for call in bench.loading_calls if call[1] == "deserialize_cuda_engine"]) == 2
    bench.engine.submit(frames(1))
    bench.engine.submit(frames(4))
    assert [len(bench.engine.collect()["scores"]) for _ in range(2)] == [1, 4]
    assert bench.engine.name.endswith("no CUDA graphs")


def test_a_fixed_batch_of_8_6_has_no_profile_to_share(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "8.6", batch_shape=(4, 8, 8, 3), profiles=[(4, 4, 4)])
    assert len(bench.world.contexts) == 2


def test_a_driver_that_is_too_old_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"does not start \(CUDA init.* error: 35; .*too old for this release"):
        Bench(tmp_path, starts=False)


def test_an_execution_context_that_cannot_be_made_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"door.engine: no execution context \(.*chosen by another IExecutionContext"):
        Bench(tmp_path, "8.6", flags=("profile_sharing",))


def test_contexts_of_a_slot_share_its_scratch_memory(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "10.3")
    given = [call[2] for call in bench.loading_calls if call[:2] == ("IExecutionContext", "set_device_memory")]
    assert len(given) == 2 * 3 and len(set(given)) == 2
    assert {size for _, size in given} == {FAKE["ACTIVATION_BYTES"]}


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
    assert [entry[0] for entry in bench.driver.log][-8:] == ["enter", *["free"] * 6, "leave"]


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
    shapes = [call[2] for call in bench.loading_calls if call[:2] == ("IExecutionContext", "set_input_shape")]
    assert shapes[0] == ("frames", (2, 8, 8, 3))


def test_each_profile_has_its_own_context(tmp_path: Path) -> None:
    bench = Bench(tmp_path, profiles=[(1, 1, 1), (2, 4, 4)])
    assert len(bench.world.contexts) == 2 * 3
    chosen = [call[2] for call in bench.loading_calls if call[1] == "set_optimization_profile_async"]
    assert [index for index, _ in chosen] == [0, 1, 1] * 2


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
