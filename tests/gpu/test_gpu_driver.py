"""What the driver must do for us, with pycuda and with cuda-bindings: contexts, streams, recording, failures, memory.

It runs on a GPU, and in CI on the stand-in (tests/integration/test_cuda_stand_in.py), whose counters some tests ask.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_drivers import CLASSES

from edge.engines.cuda import library
from edge.engines.cuda.build import KERNELS
from edge.engines.cuda.capability import find_compute_capability
from edge.engines.cuda.errors import GpuError
from edge.engines.cuda.launches import NMS, Launch
from edge.engines.cuda.memory import TensorMemory
from edge.engines.cuda.streams import ReplayStream

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_compute_capability() is None, reason="no NVIDIA GPU here"),
]
IS_STAND_IN = "STAND_IN_KERNELS" in os.environ
on_the_stand_in = pytest.mark.skipif(not IS_STAND_IN, reason="asks the stand-in what is alive")
BLOCKING_SYNC = 4
INVALID_VALUE, IN_CAPTURE, INVALIDATED, IMPLICIT = 1, 900, 901, 906


@pytest.fixture(params=CLASSES)
def open_driver(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
def driver(open_driver: Any) -> Iterator[Any]:
    opened = open_driver()
    yield opened
    opened.close()


def cuda() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def alive() -> list[int]:
    """Bytes of device memory; pinned blocks, streams, events, modules, graphs, executables; depth, retained."""
    gc.collect()
    counts = (ctypes.c_long * 9)()
    cuda().stand_in_alive(counts)
    return list(counts)


def in_thread(work: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(60)
    assert found, "the thread failed"
    return found[0]


class Job:
    """A copy down and up again, recorded or not."""

    def __init__(self, driver: Any) -> None:
        self.replay = ReplayStream(driver)
        self.memory = TensorMemory(driver, (4,), "float32")
        self.memory.host[:] = 1, 2, 3, 4

    def work(self) -> None:
        self.memory.upload(4, self.replay.stream)
        self.memory.download(4, self.replay.stream)

    def run(self) -> list[float]:
        self.replay.run("job", self.work)
        self.replay.wait()
        return [float(value) for value in self.memory.host]


def test_waits_sleep_in_the_context_that_others_share(driver: Any) -> None:
    flags, is_active = ctypes.c_uint(), ctypes.c_int()
    cuda().cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(is_active))
    # what FFmpeg demands before it shares the context
    assert (flags.value & 7, is_active.value) == (BLOCKING_SYNC, 1)


def test_a_context_that_is_active_already_is_taken_as_it_is(open_driver: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        context, other = ctypes.c_void_p(), cuda()
        first = open_driver()
        assert other.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
        second = open_driver()
        assert Job(second).run() == [1, 2, 3, 4]
        second.close()
        first.close()
        other.cuDevicePrimaryCtxRelease_v2(0)


def test_work_is_recorded_and_replayed(driver: Any) -> None:
    job = Job(driver)
    assert job.run() == [1, 2, 3, 4]
    job.replay.record("job", job.work)
    assert job.replay.num_graphs == 1
    job.memory.host[:] = 5, 6, 7, 8
    assert job.run() == [5, 6, 7, 8]
    job.replay.close()


def test_another_thread_on_the_default_stream_neither_breaks_a_recording_nor_is_broken_by_it(driver: Any) -> None:
    job = Job(driver)
    job.run()

    def copy_on_the_default_stream() -> int:
        driver.attach()
        library, values = cuda(), np.zeros(4, np.float32)
        return int(
            library.cuMemcpyHtoD_v2(
                ctypes.c_uint64(job.memory.address), values.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(16)
            )
        )

    codes = []

    def work() -> None:
        job.work()
        codes.append(in_thread(copy_on_the_default_stream))

    job.replay.record("job", work)
    assert (codes, job.replay.num_graphs) == ([0], 1)
    job.replay.close()


def test_another_thread_may_allocate_while_one_records(driver: Any) -> None:
    job = Job(driver)
    job.run()

    taken = []

    def take() -> bool:
        driver.attach()
        taken.append(driver.device_memory(1000))
        return True

    def work() -> None:
        job.work()
        in_thread(take)

    job.replay.record("job", work)
    assert job.replay.num_graphs == len(taken) == 1
    with driver.scope():
        taken.clear()
    job.replay.close()


@pytest.mark.parametrize("error", [RuntimeError, TypeError, KeyboardInterrupt])
def test_whatever_is_raised_in_a_recording_the_stream_and_the_thread_go_on(driver: Any, error: Any) -> None:
    job = Job(driver)
    job.run()

    def work() -> None:
        job.work()
        raise error("in the middle")

    try:
        job.replay.record("job", work)
    except KeyboardInterrupt:
        assert error is KeyboardInterrupt
    assert job.replay.num_graphs == 0
    assert job.run() == [1, 2, 3, 4]
    # a stream that still records would refuse this
    assert int(driver.device_memory(64)) > 0


def test_what_is_not_allowed_in_a_recording_costs_that_recording_alone(
    driver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(driver)
    job.run()

    def work() -> None:
        job.work()
        driver.device_memory(64)

    job.replay.record("job", work)
    assert job.replay.num_graphs == 0
    assert "run without a CUDA graph: no 0.0 MB of GPU memory" in caplog.text
    assert not driver.is_lost()
    assert job.run() == [1, 2, 3, 4]


def test_memory_that_is_not_there_is_told_with_its_size(driver: Any) -> None:
    with pytest.raises(
        GpuError, match=r"^no 4000000\.0 MB of GPU memory: .*out of memory; close other programs"
    ) as caught:
        driver.device_memory(4 * 10**12)
    assert not caught.value.is_sticky


def test_kernels_that_are_none_are_told_by_their_file(driver: Any, tmp_path: Path) -> None:
    bad = tmp_path / "broken.ptx"
    bad.write_text("no kernels at all")
    with pytest.raises(GpuError, match=r"^broken.ptx cannot be loaded: ") as caught:
        driver.load_kernels(bad)
    assert not caught.value.is_sticky
    kernels = driver.load_kernels(KERNELS)
    with pytest.raises(GpuError, match=r"^kernel nothing not found: "):
        driver.launch(kernels, Launch("nothing", (1, 1, 1), (1, 1, 1), np.zeros((), NMS)), driver.new_stream())


def test_a_launch_that_no_gpu_can_do_is_no_end_of_the_process(driver: Any) -> None:
    kernels, stream = driver.load_kernels(KERNELS), driver.new_stream()
    with pytest.raises(GpuError, match=r"^kernel nms_begin failed: .*invalid") as caught:
        driver.launch(kernels, Launch("nms_begin", (1, 70_000, 1), (1, 1, 1), np.zeros((), NMS)), stream)
    assert not caught.value.is_sticky and not driver.is_lost()
    assert Job(driver).run() == [1, 2, 3, 4]


def test_words_that_nobody_knows_are_no_end_of_the_process_while_the_driver_answers(driver: Any) -> None:
    with pytest.raises(GpuError, match="nothing was recorded: ") as caught:
        driver.end_capture(driver.new_stream())
    assert not caught.value.is_sticky
    assert Job(driver).run() == [1, 2, 3, 4]


def test_a_gpu_that_is_not_there_is_told_by_its_number(open_driver: Any) -> None:
    with pytest.raises(GpuError, match=r"no CUDA device 63: .*invalid device ordinal; run: edge doctor") as caught:
        open_driver(63)
    assert not caught.value.is_sticky


def test_a_second_gpu_is_another_one(open_driver: Any) -> None:
    count = ctypes.c_int()
    cuda().cuDeviceGetCount(ctypes.byref(count))
    if count.value < 2:
        pytest.skip("one GPU only")
    drivers = [open_driver(0), open_driver(1)]
    jobs = [Job(driver) for driver in drivers]

    def in_turns() -> list[list[float]]:
        found = []
        for driver, job in [*zip(drivers, jobs, strict=True)] * 2:
            driver.attach()
            found.append(job.run())
        return found

    # by one thread, as an inference thread has models on both, and by another one
    assert in_turns() == in_thread(in_turns) == [[1, 2, 3, 4]] * 4
    for driver in drivers:
        driver.close()


def test_work_goes_on_in_another_thread(driver: Any) -> None:
    job = Job(driver)

    def in_another() -> list[float]:
        driver.attach()
        return job.run()

    assert in_thread(in_another) == job.run() == [1, 2, 3, 4]


@on_the_stand_in
@pytest.mark.parametrize("in_another_thread", [False, True], ids=["here", "in another thread"])
def test_everything_is_given_back_when_a_driver_closes(open_driver: Any, in_another_thread: bool) -> None:
    # what each package keeps for the process
    open_driver().close()
    before = alive()
    opened = open_driver()

    def use() -> bool:
        opened.attach()
        job = Job(opened)
        job.run()
        job.replay.record("job", job.work)
        job.run()
        kernels = opened.load_kernels(KERNELS)
        with opened.scope():
            job.replay.close()
            del job, kernels
            gc.collect()
        opened.close()
        return True

    in_thread(use) if in_another_thread else use()
    after = alive()
    assert after[:7] == before[:7], "device bytes, pinned, streams, events, modules, graphs, executables"
    assert after[8] == before[8], "the primary context is still retained"
    assert after[7] == before[7], "contexts were left on the stack of this thread"


@on_the_stand_in
def test_a_view_of_pinned_memory_may_outlive_the_driver_and_be_dropped_in_any_thread(open_driver: Any) -> None:
    opened = open_driver()
    before = alive()[1]
    views = [opened.pinned((4, 4), "float32")[1:3]]
    views[0][:] = 7
    opened.close()
    assert (views[0] == 7).all() and alive()[1] == before + 1
    in_thread(lambda: [views.pop() is not None])
    assert alive()[1] == before


@on_the_stand_in
def test_the_streams_are_not_blocking(driver: Any) -> None:
    trace = Path(os.environ["STAND_IN_TRACE"])
    before = len(trace.read_text(encoding="utf-8").splitlines())
    driver.new_stream()
    made = [line for line in trace.read_text(encoding="utf-8").splitlines()[before:] if "cuStreamCreate" in line]
    assert made and all(line.endswith("flags 1") for line in made)


def test_loading_engines_hold_one_lock() -> None:
    with library.LOADING:
        assert not in_thread(lambda: library.LOADING.acquire(blocking=False))
        # an engine that loads another one (a swap) does not wait for itself
        assert library.LOADING.acquire(blocking=False)
        library.LOADING.release()


# --- the stand-in itself, against the driver API manual; a GPU must answer the same ---


@pytest.fixture
def raw() -> Iterator[Any]:
    """libcuda with a context in this thread."""
    found, device, context = cuda(), ctypes.c_int(), ctypes.c_void_p()
    assert found.cuInit(0) == 0 and found.cuDeviceGet(ctypes.byref(device), 0) == 0
    assert found.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
    assert found.cuCtxPushCurrent_v2(context) == 0
    yield found
    found.cuCtxPopCurrent_v2(ctypes.byref(context))
    found.cuDevicePrimaryCtxRelease_v2(device)


def recording(raw: Any, flags: int, mode: int = 1) -> ctypes.c_void_p:
    stream = ctypes.c_void_p()
    assert raw.cuStreamCreate(ctypes.byref(stream), flags) == 0
    assert raw.cuStreamBeginCapture_v2(stream, mode) == 0
    return stream


def end(raw: Any, stream: ctypes.c_void_p) -> int:
    graph = ctypes.c_void_p()
    code = int(raw.cuStreamEndCapture(stream, ctypes.byref(graph)))
    if graph.value:
        raw.cuGraphDestroy(graph)
    raw.cuStreamDestroy_v2(stream)
    return code


def allocate(raw: Any) -> int:
    address = ctypes.c_uint64()
    code = int(raw.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(64)))
    if code == 0:
        raw.cuMemFree_v2(address)
    return code


@pytest.mark.parametrize(("flags", "expected"), [(0, (IMPLICIT, INVALIDATED)), (1, (0, 0))])
def test_the_default_stream_breaks_recordings_of_blocking_streams_alone(raw: Any, flags: int, expected: Any) -> None:
    stream = recording(raw, flags)
    # from the same thread even, where no call of a kind that is prohibited by itself is made
    event = ctypes.c_void_p()
    raw.cuEventCreate(ctypes.byref(event), 2)
    code = int(raw.cuEventRecord(event, None))
    assert (code, end(raw, stream)) == expected
    raw.cuEventDestroy_v2(event)


@pytest.mark.parametrize(("mode", "here", "elsewhere"), [(0, IN_CAPTURE, IN_CAPTURE), (1, IN_CAPTURE, 0), (2, 0, 0)])
def test_memory_may_be_taken_during_a_recording_as_its_mode_says(
    raw: Any, mode: int, here: int, elsewhere: int
) -> None:
    context = ctypes.c_void_p()
    raw.cuCtxGetCurrent(ctypes.byref(context))
    stream = recording(raw, 1, mode)
    found = in_thread(lambda: (raw.cuCtxSetCurrent(context), allocate(raw))[1])
    assert (found, end(raw, stream)) == (elsewhere, INVALIDATED if elsewhere else 0)
    stream = recording(raw, 1, mode)
    assert (allocate(raw), end(raw, stream)) == (here, INVALIDATED if here else 0)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_the_whole_context_cannot_be_waited_for_during_a_recording(raw: Any, mode: int) -> None:
    stream = recording(raw, 1, mode)
    assert (int(raw.cuCtxSynchronize()), end(raw, stream)) == (IN_CAPTURE, INVALIDATED)


def test_a_stream_that_records_cannot_be_waited_for(raw: Any) -> None:
    stream = recording(raw, 1)
    assert (int(raw.cuStreamSynchronize(stream)), end(raw, stream)) == (IN_CAPTURE, INVALIDATED)


def test_nothing_works_in_a_thread_without_a_context(raw: Any) -> None:
    assert in_thread(lambda: allocate(raw)) == 201


def test_the_flags_of_an_active_primary_context_are_not_changed_unasked(raw: Any) -> None:
    assert int(raw.cuDevicePrimaryCtxSetFlags_v2(0, 1)) in (0, library.PRIMARY_CONTEXT_ACTIVE)
    raw.cuDevicePrimaryCtxSetFlags_v2(0, BLOCKING_SYNC)
