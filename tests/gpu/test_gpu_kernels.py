"""The kernels on a GPU against OpenCV and numpy: what tests/integration/engines/test_kernels.py does on the CPU.

Where there is no GPU, tests/integration/test_cuda_stand_in.py runs this file on the stand-in for the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
import pytest
from gpu_drivers import DRIVERS

from edge import boxes
from edge.engines.cuda import launches
from edge.engines.cuda.build import kernels_for
from edge.engines.cuda.capability import find_compute_capability
from edge.engines.cuda.context import Driver
from edge.engines.cuda.launches import Launch, NmsMemory, Picture
from edge.models.manifest import InputSpec
from edge.models.preprocess import Preprocessor, fit
from edge.types import Array

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_compute_capability() is None, reason="no NVIDIA GPU here"),
]
BYTES = InputSpec(name="frames", width=640, height=384, layout="nhwc", dtype="uint8", colour="bgr")
FLOATS = BYTES.model_copy(
    update={"layout": "nchw", "dtype": "float32", "colour": "rgb", "mean": (123.7, 116.3, 103.5), "std": (58.4, 57, 57)}
)


class Gpu:
    """Runs launches on arrays in pinned memory, which the GPU reads and writes in place."""

    def __init__(self, open_driver: Callable[[], Driver]) -> None:
        self.driver = open_driver()
        self._kernels = self.driver.load_kernels(kernels_for(self.driver.compute_capability))
        self._stream, self._done = self.driver.new_stream(), self.driver.new_event()

    def put(self, array: Array) -> Array:
        pinned = self.driver.pinned(array.shape, str(array.dtype))
        pinned[...] = array
        return pinned

    def address(self, array: Array) -> int:
        return self.driver.mapped_address(array)

    def run(self, steps: Iterable[Launch]) -> None:
        for step in steps:
            self.driver.launch(self._kernels, step, self._stream)
        self.driver.record(self._done, self._stream)
        self.driver.wait(self._done)


@pytest.fixture(scope="module", params=DRIVERS)
def gpu(request: pytest.FixtureRequest) -> Iterator[Gpu]:
    device = Gpu(request.param)
    yield device
    device.driver.close()


@pytest.mark.parametrize("spec", [BYTES, FLOATS])
@pytest.mark.parametrize(("width", "height"), [(1280, 720), (640, 480), (1920, 1080), (333, 777)])
def test_letterbox_is_within_one_grey_level_of_opencv(gpu: Gpu, spec: InputSpec, width: int, height: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    expected = Preprocessor(spec, 1).images([image])[0][0]
    source, out = gpu.put(image), gpu.put(np.zeros_like(expected))
    box = fit(width, height, spec)
    gpu.run(launches.letterboxes(spec, [(box, Picture(gpu.address(source), width * 3))], gpu.address(out)))
    one_level = 1.0 if spec is BYTES else 1 / min(spec.std) + 1e-4
    assert np.abs(out.astype(np.float64) - expected).max() <= one_level


@pytest.mark.parametrize("num", [1, 64, 300, 1000])
def test_nms_is_identical_to_numpy(gpu: Gpu, num: int) -> None:
    images = 8
    random = np.random.default_rng(num)
    corner = random.integers(0, 60, (images, num, 2)).astype(np.float32)
    xyxy = np.concatenate([corner, corner + random.integers(-1, 30, (images, num, 2))], axis=2).astype(np.float32)
    score = (random.integers(0, 20, (images, num)) / 19).astype(np.float32)
    score[random.random(score.shape) < 0.05] = np.nan
    arrays = {"xyxy": gpu.put(xyxy), "score": gpu.put(score)}
    arrays |= {name: gpu.put(np.full(size, 0xA5, np.uint8)) for name, size in launches.nms_bytes(images, num).items()}
    memory = NmsMemory(**{"class_id": 0} | {name: gpu.address(array) for name, array in arrays.items()})
    gpu.run(launches.greedy_nms(memory, images, num, 0.5))
    keep = arrays["keep"].view(np.int32).reshape(images, num)
    for image, count in enumerate(arrays["count"].view(np.int32)):
        assert np.array_equal(keep[image, :count], boxes.nms(xyxy[image], score[image], 0.5))


@pytest.mark.parametrize("num", [1, 65, 300])
def test_scores_of_doubles_become_zero_in_place(gpu: Gpu, num: int) -> None:
    random = np.random.default_rng(num)
    corner = random.integers(0, 60, (4, num, 2)).astype(np.float32)
    xyxy = np.concatenate([corner, corner + random.integers(1, 30, (4, num, 2))], axis=2).astype(np.float32)
    score = (random.integers(1, 20, (4, num)) / 19).astype(np.float32)
    score[random.random(score.shape) < 0.05] = np.nan
    arrays = {"xyxy": gpu.put(xyxy), "score": gpu.put(score)}
    arrays |= {name: gpu.put(np.full(size, 0xA5, np.uint8)) for name, size in launches.nms_bytes(4, num).items()}
    memory = NmsMemory(**{"class_id": 0} | {name: gpu.address(array) for name, array in arrays.items()})
    gpu.run([*launches.greedy_nms(memory, 4, num, 0.5), launches.silence_doubles(memory, 4, num)])
    for image in range(4):
        expected = np.where(np.isnan(score[image]), np.nan, 0).astype(np.float32)
        kept = boxes.nms(xyxy[image], score[image], 0.5)
        expected[kept] = score[image][kept]
        np.testing.assert_array_equal(arrays["score"][image], expected)


@pytest.mark.parametrize(("width", "height"), [(640, 384), (1280, 720), (1920, 1080)])
def test_nv12_is_within_two_grey_levels_of_opencv(gpu: Gpu, width: int, height: int) -> None:
    planes = np.random.default_rng(4).integers(0, 256, (height * 3 // 2, width), np.uint8)
    expected = Preprocessor(BYTES, 1).images([cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_NV12)])[0][0]
    source, out = gpu.put(planes), gpu.put(np.zeros_like(expected))
    luma = gpu.address(source)
    picture = Picture.nv12(luma, width, luma + width * height, width)
    gpu.run(launches.letterboxes(BYTES, [(fit(width, height, BYTES), picture)], gpu.address(out)))
    assert np.abs(out.astype(int) - expected.astype(int)).max() <= 2
