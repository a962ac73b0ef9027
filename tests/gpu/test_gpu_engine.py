"""The shipped models on a real GPU: same answers as ONNX Runtime on the CPU, flat memory, graphs, batches in flight."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge import boxes
from edge.engines.cuda.capability import find_compute_capability
from edge.engines.ort import OrtEngine
from edge.engines.trt import api as trt_api
from edge.engines.trt.api import TensorRt
from edge.errors import EngineError, MissingError
from edge.heads.choose import open_head
from edge.model import Model, open_model
from edge.models.preprocess import Preprocessor
from edge.sources.choose import open_source
from edge.types import Detections
from export.build.engine import BuildResult, build_engine, parse_batch
from export.build.options import BuildOptions

CAPABILITY = find_compute_capability()
pytestmark = [
    pytest.mark.gpu,
    # a fixture may build an engine, which takes minutes on a Jetson
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CAPABILITY is None, reason="no NVIDIA GPU here"),
    pytest.mark.skipif("STAND_IN_KERNELS" in os.environ, reason="needs TensorRT on a GPU"),
]
MODELS = Path(__file__).parents[2] / "edge" / "models"
MODEL = MODELS / "street-nano.onnx"
QUANTIZED = MODELS / "street-nano-int8-trt.onnx"
MIB = 1 << 20


def usable_tensorrt() -> TensorRt:
    """The TensorRT that builds for this GPU; that for RTX does not know Hopper, Orin and Thor."""
    for flavour in trt_api.FLAVOURS:
        try:
            api = trt_api.load(flavour)
        except MissingError:
            continue
        if not api.is_rtx or CAPABILITY in api.targets():
            return api
    pytest.skip(f"no TensorRT here builds for compute capability {CAPABILITY}")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    out = tmp_path_factory.mktemp("engine") / "street-gpu.engine"
    options = BuildOptions(profiles=(parse_batch("1:4:8"),))
    return build_engine(MODEL, out, options, usable_tensorrt(), capability=CAPABILITY)


@pytest.fixture(params=[True, False], ids=["graphs", "no graphs"])
def engine(request: pytest.FixtureRequest, built: BuildResult) -> Iterator[object]:
    from edge.engines.trt.engine import TrtEngine

    loaded = TrtEngine(built.engine, built.manifest, use_graphs=request.param)
    yield loaded
    loaded.close()


def frames(built: BuildResult, count: int, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    spec = built.manifest.input
    return np.random.default_rng(seed).integers(0, 256, (count, spec.height, spec.width, 3), np.uint8)


def scene(seed: int) -> np.ndarray:  # type: ignore[type-arg]
    """A street of the built-in scene, (720, 1280, 3) BGR."""
    source = open_source(f"synthetic://street?seed={seed}&size=1280x720&frames=1")
    picture = source.read()
    source.close()
    assert picture is not None
    return picture[0]


def used_mib() -> float:
    """Memory that this process uses on its GPUs; of all processes where the driver does not tell them apart."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = [line.split(",") for line in listed.splitlines() if line.count(",") == 1]
        mine = [float(used) for pid, used in rows if pid.strip() == str(os.getpid()) and used.strip().isdecimal()]
        if mine:
            return sum(mine)
    driver = ctypes.CDLL("libcuda.so.1")
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    assert driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
    return (total.value - free.value) / MIB


def test_answers_are_those_of_onnx_runtime_on_the_cpu(engine, built) -> None:  # type: ignore[no-untyped-def]
    reference = OrtEngine(MODEL, threads=4)
    for count in (1, 3, 8, 3, 1):
        batch = frames(built, count, seed=count)
        expected, found = reference.infer(batch), engine.infer(batch)
        # scores in order of rank: boxes of equal score may swap
        np.testing.assert_allclose(found["scores"], expected["scores"], atol=5e-3)


def test_memory_is_flat_over_10000_batches(engine, built) -> None:  # type: ignore[no-untyped-def]
    batches = [frames(built, count) for count in (1, 2, 4)]
    for batch in batches * 10:
        engine.infer(batch)
    before = used_mib()
    for index in range(10_000):
        engine.infer(batches[index % 3])
    assert used_mib() - before < 2


def test_frames_fitted_in_on_the_gpu_give_the_answers_of_the_cpu(engine, built) -> None:  # type: ignore[no-untyped-def]
    assert engine._slots[0].takes_frames
    preprocessor = Preprocessor(built.manifest.input, engine.max_batch)
    street = [scene(seed) for seed in range(6)]
    for count in (1, 4, 6, 2, 6):
        expected = engine.infer(preprocessor.images(street[:count])[0])["scores"].copy()
        letterboxes = engine.submit_frames(street[:count])
        found = engine.collect()["scores"]
        assert letterboxes == preprocessor.images(street[:count])[1]
        # one grey level here and there moves a score a little
        np.testing.assert_allclose(found, expected, atol=2e-2)


def test_memory_is_flat_over_10000_batches_of_frames(engine) -> None:  # type: ignore[no-untyped-def]
    batches = [[scene(seed) for seed in range(count)] for count in (1, 2, 4)]

    def fly(count: int) -> None:
        engine.submit_frames(batches[0])
        for index in range(count):
            engine.submit_frames(batches[index % 3])
            engine.collect()
        engine.collect()

    fly(60)
    before = used_mib()
    fly(10_000)
    assert used_mib() - before < 2


def test_replayed_graphs_answer_bit_for_bit_like_plain_runs(built) -> None:  # type: ignore[no-untyped-def]
    from edge.engines.trt.engine import TrtEngine

    replayed, plain = (TrtEngine(built.engine, built.manifest, use_graphs=use) for use in (True, False))
    for count in (1, 2, 5) * 5:
        batch = frames(built, count, seed=count)
        found, expected = replayed.infer(batch), plain.infer(batch)
        for name, values in expected.items():
            assert np.array_equal(found[name], values), (name, count)
    assert replayed._slots[0].has_graphs and not plain._slots[0].has_graphs
    replayed.close()
    plain.close()


def test_batches_in_flight_answer_like_batches_one_by_one(engine, built) -> None:  # type: ignore[no-untyped-def]
    batches = [frames(built, 1 + seed % 4, seed) for seed in range(40)]
    expected = [engine.infer(batch)["scores"].copy() for batch in batches]
    engine.submit(batches[0])
    for index, batch in enumerate(batches[1:]):
        engine.submit(batch)
        assert np.array_equal(engine.collect()["scores"], expected[index])
    assert np.array_equal(engine.collect()["scores"], expected[-1])


def test_an_int8_engine_finds_what_the_cpu_finds(tmp_path: Path) -> None:
    from edge.engines.trt.engine import TrtEngine

    options = BuildOptions(profiles=(parse_batch("1:4:8"),), precision="int8")
    try:
        result = build_engine(QUANTIZED, tmp_path / "int8.engine", options, usable_tensorrt(), capability=CAPABILITY)
    except EngineError as error:
        pytest.skip(f"this TensorRT takes another flavour: {error}")
    on_gpu = Model(result.manifest, TrtEngine(result.engine, result.manifest), open_head(result.manifest))
    on_cpu = open_model(QUANTIZED, threads=4)
    street = [scene(seed) for seed in range(8)]
    for found, expected in zip(on_gpu.predict(street), on_cpu.predict(street), strict=True):
        assert isinstance(found, Detections) and isinstance(expected, Detections)
        sure = expected[expected.score > 0.5]
        overlaps = boxes.iou(sure.xyxy, found[found.score > 0.3].xyxy)
        assert len(sure) == 0 or overlaps.max(1).min() > 0.7
    on_gpu.close()


def test_two_batches_in_flight_are_faster_than_one(engine, built) -> None:  # type: ignore[no-untyped-def]
    batch = frames(built, 8)
    for _ in range(20):
        engine.infer(batch)

    def one_at_a_time() -> None:
        for _ in range(200):
            engine.infer(batch)

    def overlapped() -> None:
        engine.submit(batch)
        for _ in range(199):
            engine.submit(batch)
            engine.collect()
        engine.collect()

    def best_of_three(work) -> float:  # type: ignore[no-untyped-def]
        times = []
        for _ in range(3):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    assert best_of_three(overlapped) < best_of_three(one_at_a_time)


def test_the_cuda_provider_answers_like_the_cpu() -> None:
    try:
        on_gpu = OrtEngine(MODEL, kind="ort-cuda")
    except MissingError as error:
        pytest.skip(str(error))
    spec_shape = on_gpu.inputs[0].shape[1:]
    batch = np.random.default_rng(0).integers(0, 256, (2, *[size or 1 for size in spec_shape]), np.uint8)
    expected = OrtEngine(MODEL, threads=4).infer(batch)
    np.testing.assert_allclose(on_gpu.infer(batch)["scores"], expected["scores"], atol=5e-3)


def test_the_cuda_provider_keeps_its_memory_over_2000_batches_of_changing_size() -> None:
    try:
        on_gpu = OrtEngine(MODEL, kind="ort-cuda", max_batch=4)
    except MissingError as error:
        pytest.skip(str(error))
    size = [length or 1 for length in on_gpu.inputs[0].shape[1:]]
    batches = [np.random.default_rng(count).integers(0, 256, (count, *size), np.uint8) for count in (1, 2, 3, 4)]
    expected = [on_gpu.infer(batch)["scores"].copy() for batch in batches]
    before = used_mib()
    for index in range(2000):
        found = on_gpu.infer(batches[index % 4])["scores"]
        assert np.allclose(found, expected[index % 4], atol=1e-4)
    assert used_mib() - before < 2


STICKY = """
import os, numpy as np
from edge.engines.cuda.build import KERNELS
from edge.engines.cuda.context import open_driver
from edge.engines.cuda.errors import GpuError
from edge.engines.cuda.launches import NMS, Launch
driver = open_driver()
kernels = driver.load_kernels(KERNELS)
arguments = np.zeros((), NMS)
arguments["count"], arguments["images"] = 1 << 20, 1
stream, event = driver.new_stream(), driver.new_event()
try:
    driver.launch(kernels, Launch("nms_begin", (1, 1, 1), (128, 1, 1), arguments), stream)
    driver.record(event, stream)
    driver.wait(event)
except GpuError as error:
    print("sticky" if error.is_sticky else "harmless", error, flush=True)
os._exit(0)
"""


def test_an_illegal_address_is_a_sticky_error() -> None:
    # in a process of its own: nothing on the GPU works in it afterwards
    command = [sys.executable, "-c", STICKY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.startswith("sticky")


def test_a_graph_of_every_size_answers_like_a_plain_run_over_10000_batches_in_any_order(built) -> None:  # type: ignore[no-untyped-def]
    from edge.engines.trt.engine import TrtEngine

    replayed, plain = (TrtEngine(built.engine, built.manifest, use_graphs=use) for use in (True, False))
    batches = [frames(built, count, count) for count in range(1, 9)]
    expected = [{name: values.copy() for name, values in plain.infer(batch).items()} for batch in batches]
    order = np.random.default_rng(3).integers(0, len(batches), 10_000)
    for index in order:
        for name, values in replayed.infer(batches[index]).items():
            assert np.array_equal(values, expected[index][name]), (name, index + 1)
    replayed.close()
    plain.close()
