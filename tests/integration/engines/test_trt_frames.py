"""Frames into a TensorRT engine on the GPU: the whole way, with numbers, on a GPU made of numpy and C++ kernels.

Its work happens as late as possible, so wrong order shows as wrong numbers.
"""

from __future__ import annotations

import hashlib
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.engines.cuda.errors import GpuError, gpu_error
from edge.engines.trt.api import TensorRt
from edge.engines.trt.engine import TrtEngine
from edge.engines.trt.preflight import Environment
from edge.errors import MissingError
from edge.heads.listed import TripleHead
from edge.interfaces import FrameEngine, PlaneEngine
from edge.model import Model
from edge.models.manifest import EngineSpec, InputSpec, Manifest, Profile, Thresholds
from edge.models.preprocess import Preprocessor
from edge.pictures.planes import Colour, PlaneForm
from edge.types import Array, Detections, UInt8

TESTS = Path(__file__).parents[2]
NUMPY_GPU = runpy.run_path(str(TESTS / "numpy_gpu.py"))
FAKE = NUMPY_GPU["FAKE"]
BYTES = InputSpec(name="frames", width=64, height=48, layout="nhwc", dtype="uint8", colour="bgr")
FLOATS = InputSpec(
    name="frames",
    width=64,
    height=48,
    layout="nchw",
    dtype="float32",
    colour="rgb",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)
PROFILE = Profile(min_batch=1, opt_batch=2, max_batch=4)
K = 40


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return NUMPY_GPU["compile_as_cpp"](tmp_path_factory.mktemp("kernels"))


def echo(tensor: Array) -> dict[str, Array]:
    """A model that gives its input back, flat: what the engine saw can be compared."""
    return {"seen": tensor.reshape(len(tensor), -1).copy()}


class Line:
    """An engine on the numpy GPU."""

    def __init__(
        self,
        folder: Path,
        kernels: Any,
        spec: InputSpec = BYTES,
        *,
        outputs: dict[str, tuple[str, tuple[int, ...]]] | None = None,
        model: Callable[[Array], dict[str, Array]] = echo,
        is_integrated: bool = False,
        manifest: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.world = FAKE["World"]("10.3")
        size = (spec.height, spec.width, 3) if spec.layout == "nhwc" else (3, spec.height, spec.width)
        self.world.batch_shape = (-1, *size)
        is_bytes = spec.dtype == "uint8"
        self.world.input_type = "UINT8" if is_bytes else "FLOAT"
        values = spec.width * spec.height * 3
        self.world.outputs = outputs or {"seen": ("UINT8" if is_bytes else "FLOAT", (values,))}
        self.gpu = NUMPY_GPU["NumpyGpu"](kernels, is_integrated=is_integrated)
        self.gpu.serve(self.world, model, spec.dtype)
        api = TensorRt(self.world.module, "tensorrt")
        self.path, self.manifest = write_engine(folder, api, spec, manifest or {})
        options.setdefault("find_kernels", lambda capability: folder / f"{capability}.cubin")
        here = Environment({"tensorrt": api.version}, {}, "8.9", True)
        self.engine = TrtEngine(self.path, self.manifest, environment=here, driver=self.gpu, api=api, **options)
        self.loading = list(self.gpu.log)
        self.gpu.log.clear()

    def kinds(self) -> list[str]:
        return [entry[0] for entry in self.gpu.log]


def write_engine(folder: Path, api: TensorRt, spec: InputSpec, fields: dict[str, Any]) -> tuple[Path, Manifest]:
    data = b"ftrt" + bytes(20) + bytes((*api.release, 0)[:4])
    path = folder / "door.engine"
    path.write_bytes(data)
    built = EngineSpec(
        flavour="tensorrt",
        version=api.version,
        compute_capabilities=("8.9",),
        profiles=(PROFILE,),
        inputs_sha256="0",
        onnx_sha256="1",
    )
    digest = hashlib.sha256(data).hexdigest()
    whole: dict[str, Any] = {"name": "door", "task": "detect", "head": "edgenet", "classes": ("a", "b"), **fields}
    return path, Manifest(input=spec, engine=built, sha256=digest, **whole)


def picture(width: int, height: int, seed: int = 0) -> UInt8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def on_cpu(spec: InputSpec, images: list[UInt8]) -> Array:
    return Preprocessor(spec, 4).images(images)[0].reshape(len(images), -1).astype(np.float64)


@pytest.mark.parametrize("is_integrated", [False, True], ids=["desktop", "Jetson"])
@pytest.mark.parametrize("spec", [BYTES, FLOATS], ids=["bytes", "floats"])
def test_the_engine_sees_frames_within_one_grey_level_of_the_cpu(
    tmp_path: Path, kernels: Any, spec: InputSpec, is_integrated: bool
) -> None:
    line = Line(tmp_path, kernels, spec, is_integrated=is_integrated)
    one_level = 1.0 if spec is BYTES else 1 / min(spec.std) + 1e-5
    # replays and plain runs, cameras of different sizes in one batch
    for seed in range(5):
        images = [picture(160, 90, seed), picture(64, 48, seed + 1), picture(31, 77, seed + 2)]
        letterboxes = line.engine.submit_frames(images)
        seen = line.engine.collect()["seen"]
        assert np.abs(seen.astype(np.float64) - on_cpu(spec, images)).max() <= one_level
        assert letterboxes == Preprocessor(spec, 4).images(images)[1]
    assert ("upload" in line.kinds()) is not is_integrated


def test_frames_go_up_as_they_are(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    line.engine.submit_frames([picture(160, 90), picture(32, 24)])
    line.engine.collect()
    assert [entry[2] for entry in line.gpu.log if entry[0] == "upload"] == [160 * 90 * 3, 32 * 24 * 3]


def test_nv12_goes_up_as_it_is(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    planes = np.random.default_rng(4).integers(0, 256, (90, 80), np.uint8)
    (box,) = line.engine.submit_frames([planes])
    seen = line.engine.collect()["seen"]
    expected = on_cpu(BYTES, [cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_NV12)])
    # one level of the conversion and one of the resize
    assert np.abs(seen.astype(np.float64) - expected).max() <= 2
    assert (box.frame_width, box.frame_height) == (80, 60)
    assert [entry[2] for entry in line.gpu.log if entry[0] == "upload"] == [80 * 60 * 3 // 2]


def test_rows_with_gaps_between_them_are_taken(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    wide = picture(200, 90)
    line.engine.submit_frames([wide[:, 20:180]])
    seen = line.engine.collect()["seen"].astype(np.float64)
    assert np.abs(seen - on_cpu(BYTES, [np.ascontiguousarray(wide[:, 20:180])])).max() <= 1


def test_the_next_batch_is_copied_and_started_before_anybody_waits_for_this_one(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    first, second = [picture(64, 48, 1)], [picture(64, 48, 2), picture(64, 48, 3)]
    line.engine.submit_frames(first)
    line.engine.submit_frames(second)
    assert "wait" not in line.kinds()
    assert len({entry[1] for entry in line.gpu.log if entry[0] == "upload"}) == 2
    assert np.array_equal(line.engine.collect()["seen"], on_cpu(BYTES, first))
    assert np.array_equal(line.engine.collect()["seen"], on_cpu(BYTES, second))


def test_a_frame_may_change_as_soon_as_it_was_submitted(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    image = picture(64, 48)
    expected = on_cpu(BYTES, [image.copy()])
    line.engine.submit_frames([image])
    image[...] = 0
    line.engine.submit_frames([image])
    assert np.array_equal(line.engine.collect()["seen"], expected)


def test_nothing_is_allocated_once_every_size_was_seen(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)

    def batches() -> None:
        for count in (1, 4, 2, 3):
            line.engine.submit_frames([picture(160, 90, row) for row in range(count)])
            line.engine.collect()
        # an odd number of batches, so that each slot has its turn with each size
        line.engine.infer(np.zeros((2, 48, 64, 3), np.uint8))

    for _ in range(3):
        batches()
    before = list(line.gpu.allocations)
    for _ in range(5):
        batches()
    assert line.gpu.allocations == before


def test_a_larger_frame_grows_the_memory_once_and_smaller_ones_use_it(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    for size in ((64, 48), (64, 48)):
        line.engine.submit_frames([picture(*size)])
        line.engine.collect()
    before = len(line.gpu.allocations)
    for size in ((1280, 720), (1280, 720), (640, 480), (1280, 720)):
        images = [picture(*size)]
        line.engine.submit_frames(images)
        assert np.abs(line.engine.collect()["seen"].astype(float) - on_cpu(BYTES, images)).max() <= 1
    # pinned and device memory of two slots
    assert len(line.gpu.allocations) == before + 4


def test_frames_and_tensors_replay_the_same_graph_of_a_batch_size(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    for _ in range(4):
        for count in (1, 2, 3):
            images = [picture(64, 48, row) for row in range(count)]
            for _ in range(2):
                line.engine.submit_frames(images)
                assert np.array_equal(line.engine.collect()["seen"], on_cpu(BYTES, images))
                tensor = np.stack(images)
                for _ in range(2):
                    assert np.array_equal(line.engine.infer(tensor)["seen"], tensor.reshape(count, -1))
    assert "begin" not in line.kinds()
    assert len(line.gpu.live_graphs) == 2 * 3


def test_graphs_answer_like_plain_runs_whatever_sizes_come_in_whatever_order(tmp_path: Path, kernels: Any) -> None:
    recorded = Line(tmp_path, kernels)
    (tmp_path / "plain").mkdir()
    plain = Line(tmp_path / "plain", kernels, use_graphs=False)
    random = np.random.default_rng(5)
    for _ in range(400):
        images = random.integers(0, 256, (int(random.integers(1, 5)), 48, 64, 3), np.uint8)
        assert np.array_equal(recorded.engine.infer(images)["seen"], plain.engine.infer(images)["seen"])


@pytest.mark.parametrize("colour", [Colour("bt709"), Colour("bt601", True), Colour("bt2020")])
@pytest.mark.parametrize(("layout", "width", "height"), [("nv12", 160, 90), ("i420", 160, 90), ("i420", 77, 51)])
def test_planes_go_up_as_they_are_and_are_seen_as_on_the_cpu(
    tmp_path: Path, kernels: Any, colour: Colour, layout: Any, width: int, height: int
) -> None:
    line = Line(tmp_path, kernels)
    form = PlaneForm(layout, width, height, colour)
    # smooth, as pictures are: the CPU shrinks planes before it converts them
    ramp = np.linspace(20, 230, form.num_bytes).astype(np.uint8)
    picture_of_planes = form.over(ramp)
    (box,) = line.engine.submit_frames([picture_of_planes])
    seen = line.engine.collect()["seen"].astype(np.float64)
    expected = on_cpu(BYTES, [picture_of_planes.bgr])
    assert np.abs(seen - expected).mean() <= 1.0 and np.percentile(np.abs(seen - expected), 99) <= 3
    assert (box.frame_width, box.frame_height) == (width, height)
    assert [entry[2] for entry in line.gpu.log if entry[0] == "upload"] == [form.num_bytes]
    assert isinstance(line.engine, PlaneEngine) and line.engine.takes_planes


@pytest.mark.parametrize("shape", [(90, 81), (91, 80)])
def test_nv12_of_an_odd_size_is_refused(tmp_path: Path, kernels: Any, shape: tuple[int, int]) -> None:
    line = Line(tmp_path, kernels)
    with pytest.raises(ValueError, match="expected NV12 of an even width and height"):
        line.engine.submit_frames([np.zeros(shape, np.uint8)])


def test_frames_of_a_batch_are_fitted_in_by_one_launch(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    line.engine.submit_frames([picture(160, 90, seed) for seed in range(4)])
    assert line.kinds().count("launch") == 1


def test_what_no_kernel_fits_in_is_told(tmp_path: Path, kernels: Any, caplog: pytest.LogCaptureFixture) -> None:
    spec = BYTES.model_copy(update={"resize": "crop"})
    line = Line(tmp_path, kernels, spec)
    assert "door.engine: frames are fitted in on the CPU: no kernel does it as the model wants" in caplog.text
    images = [picture(160, 90)]
    line.engine.submit_frames(images)
    assert np.array_equal(line.engine.collect()["seen"], on_cpu(spec, images))


def test_without_kernels_the_cpu_fits_frames_in_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def missing(capability: str) -> Path:
        raise MissingError("our kernels need compute capability 7.5 (Turing) or later, this GPU has 6.1")

    line = Line(tmp_path, None, find_kernels=missing)
    assert "door.engine: frames are fitted in on the CPU: our kernels need compute capability 7.5" in caplog.text
    images = [picture(160, 90), picture(31, 77)]
    line.engine.submit_frames(images)
    line.engine.submit_frames(images[:1])
    assert np.array_equal(line.engine.collect()["seen"], on_cpu(BYTES, images))
    assert np.array_equal(line.engine.collect()["seen"], on_cpu(BYTES, images[:1]))


def test_kernels_that_the_driver_refuses_are_no_end_and_a_dead_gpu_is(tmp_path: Path, monkeypatch: Any) -> None:
    gpu = NUMPY_GPU["NumpyGpu"]
    monkeypatch.setattr(gpu, "load_kernels", lambda *_: _fail(gpu_error("kernels", "device kernel image is invalid")))
    line = Line(tmp_path, None)
    line.engine.submit_frames([picture(64, 48)])
    assert len(line.engine.collect()["seen"]) == 1
    monkeypatch.setattr(gpu, "load_kernels", lambda *_: _fail(gpu_error("kernels", "unspecified launch failure")))
    with pytest.raises(GpuError, match="the process must be started again"):
        Line(tmp_path, None)


def _fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("count", [0, 5])
def test_a_batch_of_the_wrong_size_is_our_mistake(tmp_path: Path, kernels: Any, count: int) -> None:
    with pytest.raises(ValueError, match=f"expected 1 to 4 frames, found {count}"):
        Line(tmp_path, kernels).engine.submit_frames([picture(8, 8)] * count)


def test_a_tensor_is_not_inferred_between_batches_in_flight(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    line.engine.submit_frames([picture(64, 48)])
    with pytest.raises(ValueError, match="1 batches are in flight; collect them first"):
        line.engine.infer(np.zeros((1, 48, 64, 3), np.uint8))
    line.engine.collect()
    assert len(line.engine.infer(np.zeros((1, 48, 64, 3), np.uint8))["seen"]) == 1


def test_an_engine_closed_with_batches_in_flight_waits_for_them(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    for _ in range(4):
        line.engine.submit_frames([picture(64, 48)])
        line.engine.collect()
    line.engine.submit_frames([picture(64, 48)])
    waits = line.kinds().count("wait")
    line.engine.close()
    assert line.kinds().count("wait") == waits + 1
    assert not line.gpu.live_graphs and line.gpu.is_closed


def test_after_a_sticky_error_the_gpu_is_left_alone_and_a_new_engine_runs(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    line.engine.submit_frames([picture(64, 48)])
    line.gpu.failure = gpu_error("the batch failed on the GPU", "an illegal memory access was encountered")
    with pytest.raises(GpuError) as caught:
        line.engine.collect()
    assert caught.value.is_sticky and line.gpu.is_dead
    # a dead driver fails the test when it is asked for anything
    line.engine.close()
    line.engine.close()
    again = Line(tmp_path, kernels)
    again.engine.submit_frames([picture(64, 48)])
    assert len(again.engine.collect()["seen"]) == 1


def test_a_harmless_error_still_frees_everything(tmp_path: Path, kernels: Any) -> None:
    line = Line(tmp_path, kernels)
    line.engine.submit_frames([picture(64, 48)])
    line.gpu.failure = gpu_error("the batch failed on the GPU", "out of memory")
    with pytest.raises(GpuError) as caught:
        line.engine.collect()
    assert not caught.value.is_sticky
    line.gpu.failure = None
    line.engine.close()
    assert line.gpu.is_closed


# --- NMS where the outputs lie ---

BOXES = {"boxes": ("FLOAT", (K, 4)), "scores": ("FLOAT", (K,)), "labels": ("INT32", (K,))}


def crowd(tensor: Array) -> dict[str, Array]:
    """Crowded boxes, another crowd for every frame; some scores are NaN, many are equal."""
    found: dict[str, list[Array]] = {"boxes": [], "scores": [], "labels": []}
    for frame in tensor:
        random = np.random.default_rng(int(frame.reshape(-1)[0]))
        corner = random.integers(0, 30, (K, 2)).astype(np.float32)
        found["boxes"].append(np.concatenate([corner, corner + random.integers(2, 20, (K, 2))], 1).astype(np.float32))
        score = (random.integers(0, 12, K) / 11).astype(np.float32)
        score[random.random(K) < 0.1] = np.nan
        found["scores"].append(score)
        found["labels"].append(random.integers(0, 2, K).astype(np.int32))
    return {name: np.stack(rows) for name, rows in found.items()}


def detector(folder: Path, kernels: Any, **fields: Any) -> Line:
    return Line(folder, kernels, outputs=BOXES, model=crowd, manifest=fields)


@pytest.mark.parametrize("is_integrated", [False, True], ids=["desktop", "Jetson"])
def test_doubles_are_silenced_where_they_lie_and_the_head_finds_the_same(
    tmp_path: Path, kernels: Any, is_integrated: bool
) -> None:
    fields = {"needs_nms": True, "thresholds": Thresholds(iou=0.4)}
    line = Line(tmp_path, kernels, outputs=BOXES, model=crowd, manifest=fields, is_integrated=is_integrated)
    head = TripleHead(line.manifest)
    silenced = 0
    for seed in range(12):
        images = [picture(64, 48, seed * 4 + row) for row in range(3)]
        boxes = line.engine.submit_frames(images)
        outputs = line.engine.collect()
        expected = crowd(np.stack(images))
        for found, wanted in zip(head.decode(outputs, boxes), head.decode(expected, boxes), strict=True):
            assert isinstance(found, Detections) and isinstance(wanted, Detections)
            assert np.array_equal(found.xyxy, wanted.xyxy) and np.array_equal(found.score, wanted.score)
            assert np.array_equal(found.class_id, wanted.class_id)
        # broken numbers stay to be seen
        assert np.array_equal(np.isnan(outputs["scores"]), np.isnan(expected["scores"]))
        silenced += int(((outputs["scores"] == 0) & (expected["scores"] > 0)).sum())
    assert silenced > 100


@pytest.mark.parametrize("fields", [{"needs_nms": False}, {"needs_nms": True, "head": "ssd"}])
def test_other_models_are_left_to_their_heads(tmp_path: Path, kernels: Any, fields: dict[str, Any]) -> None:
    line = detector(tmp_path, kernels, **fields)
    line.engine.submit_frames([picture(64, 48)])
    line.engine.collect()
    assert {entry[2] for entry in line.gpu.log if entry[0] == "launch"} == {"letterbox"}


def test_nms_allocates_nothing_per_batch_and_is_part_of_the_graph(tmp_path: Path, kernels: Any) -> None:
    line = detector(tmp_path, kernels, needs_nms=True)
    for count in (1, 2, 1, 2, 1, 2, 1, 2):
        line.engine.submit_frames([picture(64, 48)] * count)
        line.engine.collect()
    before = list(line.gpu.allocations)
    line.gpu.log.clear()
    for count in (1, 2, 1, 2):
        line.engine.submit_frames([picture(64, 48)] * count)
        line.engine.collect()
    assert line.gpu.allocations == before
    # the letterbox takes frames of any size, so it is launched; the rest is replayed
    assert {entry[2] for entry in line.gpu.log if entry[0] == "launch"} == {"letterbox"}
    assert line.kinds().count("graph") == 4


# --- the seam to the pipeline ---


def test_a_model_on_this_engine_starts_batches_ahead_and_predicts_the_same(tmp_path: Path, kernels: Any) -> None:
    line = detector(tmp_path, kernels, needs_nms=True)
    assert isinstance(line.engine, FrameEngine)
    model = Model(line.manifest, line.engine, TripleHead(line.manifest))
    images = [picture(64, 48, seed) for seed in range(9)]
    expected = TripleHead(line.manifest).decode(crowd(np.stack(images)), Preprocessor(BYTES, 9).images(images)[1])
    for found, wanted in zip(model.predict(images), expected, strict=True):
        assert isinstance(found, Detections) and isinstance(wanted, Detections)
        assert np.array_equal(found.xyxy, wanted.xyxy)
    first, second = model.submit(images[:1]), model.submit(images[1:3])
    assert [len(batch.wait()[0]) for batch in (first, second)] == [1, 2]
