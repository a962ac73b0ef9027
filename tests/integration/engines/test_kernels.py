"""The arithmetic of kernels.cu, compiled as C++ and run on the CPU, against OpenCV and numpy."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import pytest
from effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge import boxes
from edge.engines.cuda import build, launches
from edge.engines.cuda.launches import NmsMemory, Picture
from edge.errors import MissingError
from edge.models.manifest import InputSpec
from edge.models.preprocess import Preprocessor, fit
from edge.pictures.planes import Colour
from edge.types import Array, Float32, Int64, UInt8

CpuKernels: TypeAlias = Any
NUMPY_GPU = runpy.run_path(str(Path(__file__).parents[2] / "numpy_gpu.py"))
SIZES = [(64, 48), (33, 21), (96, 96), (160, 40), (41, 130), (7, 5), (1, 1), (2, 300)]
BYTES = InputSpec(name="frames", width=64, height=48, layout="nhwc", dtype="uint8", colour="bgr")
FLOATS = InputSpec(
    name="images",
    width=64,
    height=48,
    layout="nchw",
    dtype="float32",
    colour="rgb",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)


@pytest.fixture(scope="module")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> CpuKernels:
    kernels: CpuKernels = NUMPY_GPU["compile_as_cpp"](tmp_path_factory.mktemp("kernels"))
    return kernels


def picture(width: int, height: int, seed: int = 0) -> UInt8:
    """(H, W, 3) noise: the hardest case for interpolation."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def address(array: Array) -> int:
    return int(array.ctypes.data)


def on_kernel(cpu: CpuKernels, spec: InputSpec, image: UInt8) -> Array:
    box = fit(image.shape[1], image.shape[0], spec)
    shape = (spec.height, spec.width, 3) if spec.layout == "nhwc" else (3, spec.height, spec.width)
    out = np.full(shape, 77, spec.dtype)
    cpu.run(launches.letterboxes(spec, [(box, Picture(address(image), image.strides[0]))], address(out)))
    return out


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_letterbox_is_within_one_grey_level_of_opencv(cpu: CpuKernels, width: int, height: int, resize: str) -> None:
    spec = BYTES.model_copy(update={"resize": resize})
    image = picture(width, height)
    expected = Preprocessor(spec, 1).images([image])[0][0]
    found = on_kernel(cpu, spec, image)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frame=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    model=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    resize=st.sampled_from(["letterbox", "stretch"]),
    anchor=st.sampled_from(["centre", "top-left"]),
    seed=st.integers(0, 99),
)
def test_letterbox_of_any_size_is_within_one_grey_level_everywhere(
    cpu: CpuKernels, frame: tuple[int, int], model: tuple[int, int], resize: str, anchor: str, seed: int
) -> None:
    update = {"width": model[0], "height": model[1], "resize": resize, "anchor": anchor}
    spec = BYTES.model_copy(update=update)
    image = picture(*frame, seed)
    expected = Preprocessor(spec, 1).images([image])[0][0]
    assert np.abs(on_kernel(cpu, spec, image).astype(int) - expected.astype(int)).max() <= 1


def test_letterbox_copies_a_frame_of_the_right_size(cpu: CpuKernels) -> None:
    image = picture(64, 48)
    assert np.array_equal(on_kernel(cpu, BYTES, image), image)


def test_letterbox_at_top_left_pads_right_and_below(cpu: CpuKernels) -> None:
    spec = BYTES.model_copy(update={"anchor": "top-left", "pad": 9})
    found = on_kernel(cpu, spec, picture(40, 48))
    assert (found[:, 40:] == 9).all()
    assert np.array_equal(found[:, :40], picture(40, 48))


@pytest.mark.parametrize("extra", [0, 1, 7, 64])
def test_letterbox_takes_any_row_stride(cpu: CpuKernels, extra: int) -> None:
    image = picture(33, 21)
    wide = np.zeros((21, 33 * 3 + extra), np.uint8)
    wide[:, : 33 * 3] = image.reshape(21, -1)
    rows = np.lib.stride_tricks.as_strided(wide, image.shape, (wide.strides[0], 3, 1))
    assert np.array_equal(on_kernel(cpu, BYTES, rows), on_kernel(cpu, BYTES, image))


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("colour", ["bgr", "rgb"])
def test_normalised_planes_are_those_of_the_preprocessor(cpu: CpuKernels, width: int, height: int, colour: str) -> None:
    spec = FLOATS.model_copy(update={"colour": colour})
    image = picture(width, height)
    expected = Preprocessor(spec, 1).images([image])[0][0]
    one_level = 1 / min(spec.std)
    assert np.abs(on_kernel(cpu, spec, image) - expected).max() <= one_level + 1e-5


def test_normalisation_is_exact_to_float_rounding_without_resizing(cpu: CpuKernels) -> None:
    image = picture(64, 48)
    expected = Preprocessor(FLOATS, 1).images([image])[0][0]
    np.testing.assert_allclose(on_kernel(cpu, FLOATS, image), expected, rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize("stride", [64, 80])
def test_nv12_is_within_one_grey_level_of_opencv(cpu: CpuKernels, stride: int) -> None:
    planes = np.random.default_rng(3).integers(0, 256, (72, stride), np.uint8)
    spec = BYTES.model_copy(update={"width": 64, "height": 48})
    box = fit(64, 48, spec)
    out = np.zeros((48, 64, 3), np.uint8)
    source = Picture.nv12(address(planes), stride, address(planes[48:]), stride)
    cpu.run(launches.letterboxes(spec, [(box, source)], address(out)))
    expected = cv2.cvtColor(np.ascontiguousarray(planes[:, :64]), cv2.COLOR_YUV2BGR_NV12)
    assert np.abs(out.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(80, 60), (128, 72), (64, 36), (34, 90), (2, 2)])
def test_nv12_is_resized_after_its_conversion(cpu: CpuKernels, width: int, height: int) -> None:
    planes = np.random.default_rng(4).integers(0, 256, (height * 3 // 2, width), np.uint8)
    box = fit(width, height, BYTES)
    out = np.zeros((48, 64, 3), np.uint8)
    source = Picture.nv12(address(planes), width, address(planes[height:]), width)
    cpu.run(launches.letterboxes(BYTES, [(box, source)], address(out)))
    expected = Preprocessor(BYTES, 1).images([cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_NV12)])[0][0]
    # one grey level of the conversion, one of the resize
    assert np.abs(out.astype(int) - expected.astype(int)).max() <= 2


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("is_full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(("layout", "width", "height"), [("nv12", 64, 48), ("i420", 64, 48), ("i420", 33, 21)])
def test_colours_come_back_within_two_levels_for_every_matrix_and_range(
    cpu: CpuKernels, matrix: Any, is_full: bool, layout: str, width: int, height: int
) -> None:
    colours = Colour(matrix, is_full)
    # one colour everywhere, so that the size of the differences does not matter
    for bgr in ((40, 200, 60), (0, 0, 255), (255, 0, 0), (16, 16, 16), (255, 255, 255), (90, 120, 160)):
        luma, blue, red = as_yuv(bgr, colours)
        chroma = ((height + 1) // 2, (width + 1) // 2)
        planes = (
            np.full((height, width), luma, np.uint8),
            np.full(chroma, blue, np.uint8),
            np.full(chroma, red, np.uint8),
        )
        if layout == "i420":
            luma_at, blue_at, red_at = map(address, planes)
            source = Picture.i420(luma_at, width, blue_at, red_at, chroma[1], colours)
        else:
            pairs = np.stack(planes[1:], axis=2)
            source = Picture.nv12(address(planes[0]), width, address(pairs), chroma[1] * 2, colours)
        spec = BYTES.model_copy(update={"width": width, "height": height})
        out = np.zeros((height, width, 3), np.uint8)
        cpu.run(launches.letterboxes(spec, [(fit(width, height, spec), source)], address(out)))
        assert np.abs(out.astype(int) - bgr).max() <= 2, (bgr, out[0, 0])


def as_yuv(bgr: tuple[int, int, int], colours: Colour) -> tuple[int, int, int]:
    """ITU-R BT.601, 709, 2020, by their definition."""
    share_red, share_blue = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}[
        colours.matrix
    ]
    blue, green, red = (level / 255 for level in bgr)
    luma = share_red * red + (1 - share_red - share_blue) * green + share_blue * blue
    pb, pr = (blue - luma) / (2 * (1 - share_blue)), (red - luma) / (2 * (1 - share_red))
    if colours.is_full:
        return round(255 * luma), round(min(128 + 255 * pb, 255)), round(min(128 + 255 * pr, 255))
    return round(16 + 219 * luma), round(128 + 224 * pb), round(128 + 224 * pr)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("colour", ["bgr", "rgb"])
def test_floats_and_halves_are_written_channels_first_and_last(
    cpu: CpuKernels, dtype: Any, layout: Any, colour: Any
) -> None:
    spec = FLOATS.model_copy(update={"dtype": dtype, "layout": layout, "colour": colour})
    image = picture(90, 50)
    expected = Preprocessor(spec, 1).images([image])[0][0].astype(np.float64)
    found = on_kernel(cpu, spec, image).astype(np.float64)
    assert np.abs(found - expected).max() <= 1 / min(spec.std) + (2e-3 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("count", [1, 3, 16, 17, 40])
def test_a_batch_is_one_launch_for_sixteen_frames(cpu: CpuKernels, count: int) -> None:
    images = [picture(40 + seed, 30 + seed, seed) for seed in range(count)]
    frames = [
        (fit(image.shape[1], image.shape[0], BYTES), Picture(address(image), image.strides[0])) for image in images
    ]
    out = np.zeros((count, 48, 64, 3), np.uint8)
    steps = launches.letterboxes(BYTES, frames, address(out))
    assert len(steps) == -(-count // 16)
    assert steps[0].arguments.nbytes <= 4096, "more than a launch takes by value"
    cpu.run(steps)
    for row, image in enumerate(images):
        assert np.array_equal(out[row], on_kernel(cpu, BYTES, image))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"layout": "nchw"}, "no kernel writes uint8 nchw bgr"), ({"resize": "crop"}, r"nhwc bgr \(crop\)")],
)
def test_an_input_that_no_kernel_writes_is_refused(changes: dict[str, Any], message: str) -> None:
    spec = BYTES.model_copy(update=changes)
    with pytest.raises(ValueError, match=message):
        launches.letterboxes(spec, [(fit(4, 4, spec), Picture(0, 12))], 0)


class NmsArrays:
    """Memory of one NMS call, as numpy arrays."""

    def __init__(self, xyxy: Float32, score: Float32, class_id: Array | None = None) -> None:
        images, num = score.shape
        self.arrays: dict[str, Array] = {
            "xyxy": np.ascontiguousarray(xyxy, np.float32),
            "score": np.ascontiguousarray(score, np.float32),
        }
        if class_id is not None:
            self.arrays["class_id"] = np.ascontiguousarray(class_id, np.int32)
        for name, num_bytes in launches.nms_bytes(images, num).items():
            # rubbish, as in fresh memory of a GPU
            self.arrays[name] = np.full(max(num_bytes, 8), 0xA5, np.uint8)
        self.images, self.num = images, num
        self.memory = NmsMemory(**{"class_id": 0} | {name: address(array) for name, array in self.arrays.items()})

    def kept(self, image: int) -> Int64:
        count = self.arrays["count"].view(np.int32)[image]
        keep = self.arrays["keep"].view(np.int32)[: self.images * self.num].reshape(self.images, self.num)
        return keep[image, :count].astype(np.int64)


def random_sets(images: int, num: int, seed: int) -> tuple[Float32, Float32]:
    """Crowded boxes on a coarse grid, scores with many ties, NaN in both, inverted and empty boxes among them."""
    random = np.random.default_rng(seed)
    corner = random.integers(0, 12, (images, num, 2)).astype(np.float32) * random.choice([1.0, 0.37], (images, 1, 1))
    size = random.integers(-1, 8, (images, num, 2)).astype(np.float32)
    xyxy = np.concatenate([corner, corner + size], axis=2).astype(np.float32)
    score = (random.integers(0, 9, (images, num)) / 8).astype(np.float32)
    score[random.random((images, num)) < 0.08] = np.nan
    xyxy[random.random((images, num, 4)) < 0.01] = np.nan
    return xyxy, score


def test_greedy_nms_is_identical_to_numpy_on_10000_random_sets(cpu: CpuKernels) -> None:
    random = np.random.default_rng(7)
    compared = 0
    for seed in range(40):
        num = int(random.integers(1, 24)) if seed else 70
        threshold = float(random.choice([0.0, 0.3, 0.45, 0.5, 0.7, 1.0]))
        arrays = NmsArrays(*random_sets(250, num, seed))
        cpu.run(launches.greedy_nms(arrays.memory, 250, num, threshold))
        xyxy, score = arrays.arrays["xyxy"], arrays.arrays["score"]
        for image in range(250):
            expected = boxes.nms(xyxy[image], score[image], threshold)
            assert np.array_equal(arrays.kept(image), expected), (seed, image)
            compared += 1
    assert compared == 10_000


@pytest.mark.parametrize("num", [63, 64, 65, 128, 300])
def test_greedy_nms_is_right_where_a_word_of_bits_ends(cpu: CpuKernels, num: int) -> None:
    arrays = NmsArrays(*random_sets(2, num, num))
    cpu.run(launches.greedy_nms(arrays.memory, 2, num, 0.5))
    for image in range(2):
        expected = boxes.nms(arrays.arrays["xyxy"][image], arrays.arrays["score"][image], 0.5)
        assert np.array_equal(arrays.kept(image), expected)


def test_only_boxes_of_one_class_compete(cpu: CpuKernels) -> None:
    xyxy, score = random_sets(1, 60, 11)
    xyxy, score = np.nan_to_num(xyxy), np.nan_to_num(score)
    class_id = np.random.default_rng(1).integers(0, 3, (1, 60)).astype(np.int32)
    arrays = NmsArrays(xyxy, score, class_id)
    cpu.run(launches.greedy_nms(arrays.memory, 1, 60, 0.4))
    expected = [np.flatnonzero(class_id[0] == label) for label in range(3)]
    expected = [rows[boxes.nms(xyxy[0][rows], score[0][rows], 0.4)] for rows in expected]
    assert sorted(arrays.kept(0)) == sorted(np.concatenate(expected))


def test_nms_of_no_boxes_keeps_none(cpu: CpuKernels) -> None:
    arrays = NmsArrays(np.empty((2, 0, 4), np.float32), np.empty((2, 0), np.float32))
    cpu.run(launches.greedy_nms(arrays.memory, 2, 0, 0.5))
    assert [len(arrays.kept(image)) for image in range(2)] == [0, 0]


def test_nms_drops_every_box_without_a_score(cpu: CpuKernels) -> None:
    arrays = NmsArrays(np.ones((1, 3, 4), np.float32), np.full((1, 3), np.nan, np.float32))
    cpu.run(launches.greedy_nms(arrays.memory, 1, 3, 0.5))
    assert len(arrays.kept(0)) == 0


@pytest.mark.parametrize("num", [1, 64, 130])
def test_scores_of_doubles_become_zero_in_place_and_nan_stays(cpu: CpuKernels, num: int) -> None:
    arrays = NmsArrays(*random_sets(5, num, num))
    before = arrays.arrays["score"].copy()
    cpu.run([*launches.greedy_nms(arrays.memory, 5, num, 0.5), launches.silence_doubles(arrays.memory, 5, num)])
    for image in range(5):
        expected = np.where(np.isnan(before[image]), np.nan, 0).astype(np.float32)
        kept = boxes.nms(arrays.arrays["xyxy"][image], before[image], 0.5)
        expected[kept] = before[image][kept]
        np.testing.assert_array_equal(arrays.arrays["score"][image], expected)


def test_a_gpu_that_is_too_old_for_the_kernels_is_told() -> None:
    with pytest.raises(MissingError, match=r"7.5 \(Turing\) or later, this GPU has 6.1"):
        build.kernels_for("6.1")
    assert build.kernels_for("7.5") == build.kernels_for("12.1") == build.KERNELS


def test_without_its_compiler_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match="run: pip install nvidia-cuda-nvrtc-cu11"):
        build.compile_kernels()
