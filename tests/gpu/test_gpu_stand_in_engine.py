"""The whole TensorRT engine with the real pycuda and cuda-bindings: only libcuda and TensorRT are stand-ins.

TensorRT's work is a copy of the input into the output, enqueued on the stream that it is given: what a stream records,
in which order things happen, and what memory is alive, is the driver's business here, and late as on a GPU.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from gpu_drivers import CLASSES

from edge.engines.cuda.errors import GpuError
from edge.engines.trt.api import TensorRt
from edge.engines.trt.engine import TrtEngine
from edge.engines.trt.preflight import Environment
from edge.models.manifest import EngineSpec, InputSpec, Manifest, Profile
from edge.models.preprocess import Preprocessor
from edge.pictures.dlpack import _Tensor
from edge.pictures.frames import planes_of
from edge.pictures.on_gpu import GpuPlanes
from edge.pictures.planes import Colour, PlaneForm
from edge.types import Array, UInt8

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif("STAND_IN_KERNELS" not in os.environ, reason="runs on the stand-in for the driver"),
]
FAKE = runpy.run_path(str(Path(__file__).parents[1] / "fake_tensorrt.py"))
SPEC = InputSpec(name="frames", width=64, height=48, layout="nhwc", dtype="uint8", colour="bgr")
ROW = 64 * 48 * 3


class Line:
    """An engine whose output is its input."""

    def __init__(self, folder: Path, make_driver: Any, **options: Any) -> None:
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.world = FAKE["World"]("10.3")
        self.world.batch_shape, self.world.profiles = (-1, 48, 64, 3), [(1, 4, 8)]
        self.world.outputs = {"seen": ("UINT8", (ROW,))}
        self.world.compute, self.world.is_capturing = self._copy, self._is_capturing
        api = TensorRt(self.world.module, "tensorrt")
        path, manifest = write_engine(folder, api)
        here = Environment({"tensorrt": api.version}, {}, "8.9", True)
        self.driver = make_driver()
        self.engine = TrtEngine(path, manifest, environment=here, driver=self.driver, api=api, **options)

    def _copy(self, bound: dict[str, int], shapes: dict[str, tuple[int, ...]], stream: int) -> None:
        num_bytes = shapes["frames"][0] * ROW
        arguments = (ctypes.c_uint64(bound["seen"]), ctypes.c_uint64(bound["frames"]), ctypes.c_size_t(num_bytes))
        assert self.cuda.stand_in_copy(*arguments, ctypes.c_void_p(stream)) == 0

    def _is_capturing(self, stream: int) -> bool:
        status = ctypes.c_int()
        assert self.cuda.cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status)) == 0
        return status.value == 1


def write_engine(folder: Path, api: TensorRt) -> tuple[Path, Manifest]:
    data = b"ftrt" + bytes(20) + bytes((*api.release, 0)[:4])
    path = folder / "door.engine"
    path.write_bytes(data)
    built = EngineSpec(
        flavour="tensorrt",
        version=api.version,
        compute_capabilities=("8.9",),
        profiles=(Profile(min_batch=1, opt_batch=4, max_batch=8),),
        inputs_sha256="0",
        onnx_sha256="1",
    )
    digest = hashlib.sha256(data).hexdigest()
    about: dict[str, Any] = {"name": "door", "task": "detect", "head": "edgenet", "classes": ("a",)}
    return path, Manifest(input=SPEC, engine=built, sha256=digest, **about)


@pytest.fixture(params=CLASSES)
def make_driver(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture(params=[True, False], ids=["graphs", "no graphs"])
def line(request: pytest.FixtureRequest, tmp_path: Path, make_driver: Any) -> Iterator[Line]:
    made = Line(tmp_path, make_driver, use_graphs=request.param)
    yield made
    made.engine.close()


def pictures(count: int, seed: int = 0) -> list[UInt8]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (90 + 7 * row, 160, 3), np.uint8) for row in range(count)]


def on_cpu(images: list[UInt8]) -> Array:
    return Preprocessor(SPEC, len(images)).images(images)[0].reshape(len(images), -1).astype(int)


def alive() -> list[int]:
    gc.collect()
    counts = (ctypes.c_long * 9)()
    ctypes.CDLL("libcuda.so.1").stand_in_alive(counts)
    return list(counts)


def test_tensors_of_all_sizes_in_any_order_come_back(line: Line) -> None:
    random = np.random.default_rng(1)
    for _ in range(60):
        batch = random.integers(0, 256, (int(random.integers(1, 9)), 48, 64, 3), np.uint8)
        assert np.array_equal(line.engine.infer(batch)["seen"], batch.reshape(len(batch), -1))


def test_frames_of_all_sizes_are_fitted_in(line: Line) -> None:
    for count in (1, 3, 8, 2, 5):
        line.engine.submit_frames(pictures(count, count))
        seen = line.engine.collect()["seen"].astype(int)
        assert np.abs(seen - on_cpu(pictures(count, count))).max() <= 1


def test_two_batches_are_in_flight_and_neither_sees_the_other(line: Line) -> None:
    line.engine.submit_frames(pictures(2, 0))
    for seed in range(1, 12):
        line.engine.submit_frames(pictures(1 + seed % 8, seed))
        seen = line.engine.collect()["seen"].astype(int)
        assert np.abs(seen - on_cpu(pictures(2 if seed == 1 else 1 + (seed - 1) % 8, seed - 1))).max() <= 1
    line.engine.collect()


def test_an_engine_loads_and_records_while_another_one_runs_in_its_thread(tmp_path: Path, make_driver: Any) -> None:
    folders = [tmp_path / name for name in ("running", "new")]
    for folder in folders:
        folder.mkdir()
    running = Line(folders[0], make_driver)
    is_over, wrong = threading.Event(), []

    def infer() -> None:
        seed = 0
        while not is_over.is_set():
            seed += 1
            batch = np.full((1 + seed % 8, 48, 64, 3), seed % 251, np.uint8)
            if not (running.engine.infer(batch)["seen"] == seed % 251).all():
                wrong.append(seed)

    thread = threading.Thread(target=infer)
    thread.start()
    for _ in range(5):
        swapped_in = Line(folders[1], make_driver)
        # batches of 1, 2, 4 and 8 in two slots
        assert sum(slot.replay.num_graphs for slot in swapped_in.engine._slots) == 2 * 4
        swapped_in.engine.close()
    is_over.set()
    thread.join(60)
    assert not wrong and not thread.is_alive()
    running.engine.close()


def test_nothing_is_left_when_an_engine_closes_in_another_thread(tmp_path: Path, make_driver: Any) -> None:
    Line(tmp_path, make_driver).engine.close()
    before = alive()
    made = Line(tmp_path, make_driver)
    made.engine.submit_frames(pictures(3))
    kept = made.engine.collect()["seen"][0]
    expected = kept.copy()
    thread = threading.Thread(target=made.engine.close)
    thread.start()
    thread.join(60)
    del made
    # the view keeps its memory, and nothing else
    assert [now - then for now, then in zip(alive(), before, strict=True)] == [0, 1, *[0] * 7]
    assert np.array_equal(kept, expected)
    del kept
    assert alive() == before


def test_a_gpu_without_memory_for_the_engine_says_so_and_keeps_nothing(tmp_path: Path, make_driver: Any) -> None:
    Line(tmp_path, make_driver).engine.close()
    before = alive()
    driver = make_driver()
    hog = []
    with pytest.raises(GpuError, match=r"no \d+\.\d MB of GPU memory"):
        while True:
            hog.append(driver.device_memory(20 << 20))
    for size in (1 << 20, 100 << 10, 10 << 10):
        with pytest.raises(GpuError):
            while True:
                hog.append(driver.device_memory(size))
    with pytest.raises(GpuError, match=r"no .* GPU memory: .*out of memory; close other programs") as caught:
        Line(tmp_path, make_driver)
    assert not caught.value.is_sticky
    del caught
    with driver.scope():
        hog.clear()
        gc.collect()
    driver.close()
    assert alive()[0] == before[0]


# --- pictures that a decoder left on the GPU: PyAV's own frames, on memory of the stand-in ---


EXPORTED: list[Any] = []
# PyAV calls it, be it there or not
DELETE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda managed: None)


class Exported:
    """Rows in memory of the GPU, as a decoder would export them: (rows, columns) bytes."""

    def __init__(self, address: int, rows: int, columns: int, stride: int) -> None:
        self._shape, self._strides = (ctypes.c_int64 * 2)(rows, columns), (ctypes.c_int64 * 2)(stride, 1)
        # DLManagedTensor: the tensor, who manages it, what frees it
        self._managed = (ctypes.c_uint64 * 8)()
        self._managed[7] = ctypes.cast(DELETE, ctypes.c_void_p).value or 0
        tensor = _Tensor.from_buffer(self._managed)
        tensor.data, tensor.device_type, tensor.num_axes = address, 2, 2
        tensor.code, tensor.bits, tensor.lanes = 1, 8, 1
        tensor.shape, tensor.strides = self._shape, self._strides

    def __dlpack__(self) -> Any:
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self._managed), b"dltensor", None)


class Decoder:
    """Gives NV12 frames in memory of the GPU, rows with gaps between them, as NVDEC does."""

    def __init__(self, driver: Any, width: int, height: int, stride: int) -> None:
        self.driver, self.size, self.stride = driver, (width, height), stride
        self.memory = driver.device_memory(stride * height * 3 // 2)
        self.rows = driver.pinned((height * 3 // 2, stride), "uint8")
        self.stream, self.done = driver.new_stream(), driver.new_event()

    def frame(self, planes: UInt8) -> Any:
        """Args: planes: (H * 3 / 2, W) as OpenCV has NV12."""
        width, height = self.size
        self.rows[:, :width] = planes
        self.driver.upload(int(self.memory), self.rows, self.stream)
        self.driver.record(self.done, self.stream)
        self.driver.wait(self.done)
        luma = Exported(int(self.memory), height, width, self.stride)
        pairs = Exported(int(self.memory) + self.stride * height, height // 2, width, self.stride)
        frame = av.VideoFrame.from_dlpack((luma, pairs), format="nv12", primary_ctx=True)
        frame.colorspace, frame.color_range = 1, 1
        # PyAV looks at them once more when the frame goes
        EXPORTED.extend((luma, pairs))
        return frame


def nv12(width: int, height: int, seed: int) -> UInt8:
    """Smooth, as pictures are."""
    steps = np.linspace(30 + seed, 200 + seed, width * height * 3 // 2)
    return steps.astype(np.uint8).reshape(height * 3 // 2, width)


def test_a_frame_that_pyav_left_on_the_gpu_is_fitted_in_where_it_lies(line: Line) -> None:
    decoder = Decoder(line.driver, 160, 90, 256)
    for seed in (0, 20):
        planes = nv12(160, 90, seed)
        picture = planes_of(decoder.frame(planes))
        assert isinstance(picture, GpuPlanes) and (picture.device, picture.size) == (0, (160, 90))
        traced = trace()
        (box,) = line.engine.submit_frames([picture])
        seen = line.engine.collect()["seen"].astype(int)
        copies = [entry for entry in trace()[len(traced) :] if "cuMemcpyHtoD" in entry]
        assert not copies and not picture.is_down, "it went through the processor"
        form = PlaneForm("nv12", 160, 90, Colour("bt709"))
        expected = on_cpu([form.over(planes.reshape(-1)).bgr])
        assert np.abs(seen - expected).max() <= 3 and np.abs(seen - expected).mean() < 1
        assert (box.frame_width, box.frame_height) == (160, 90)


def test_frames_on_the_gpu_and_in_memory_share_a_batch(line: Line) -> None:
    decoder = Decoder(line.driver, 160, 90, 256)
    planes = nv12(160, 90, 5)
    on_gpu = planes_of(decoder.frame(planes))
    bgr = pictures(1)[0]
    line.engine.submit_frames([bgr, on_gpu, bgr])
    seen = line.engine.collect()["seen"].astype(int)
    assert np.abs(seen[[0, 2]] - on_cpu([bgr, bgr])).max() <= 1
    assert (
        np.abs(seen[1] - on_cpu([PlaneForm("nv12", 160, 90, Colour("bt709")).over(planes.reshape(-1)).bgr])).max() <= 3
    )


def test_pixels_come_down_once_and_only_for_who_asks(line: Line) -> None:
    decoder = Decoder(line.driver, 160, 90, 256)
    planes = nv12(160, 90, 9)
    picture = planes_of(decoder.frame(planes))
    assert isinstance(picture, GpuPlanes)
    picture.freeze()
    assert not picture.is_down
    luma, pairs = picture.arrays
    assert np.array_equal(luma, planes[:90]) and np.array_equal(pairs.reshape(45, 160), planes[90:])
    assert picture.arrays[0] is luma and not luma.flags.writeable
    assert picture.bgr.shape == (90, 160, 3) and picture.bgr is picture.bgr
    assert picture.cut(10, 20, 60, 70).size == (50, 50)
    assert np.array_equal(picture.luma, planes[:90])


def trace() -> list[str]:
    return Path(os.environ["STAND_IN_TRACE"]).read_text(encoding="utf-8").splitlines()


def test_ffmpeg_shares_the_context_of_our_driver(make_driver: Any) -> None:
    """It refuses a primary context whose waits spin (hwcontext_cuda.c), so this frame is the proof of its flags."""
    driver = make_driver()
    picture = planes_of(Decoder(driver, 64, 48, 64).frame(nv12(64, 48, 1)))
    assert isinstance(picture, GpuPlanes) and not driver.is_lost()
