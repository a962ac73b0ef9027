"""One code path for nine releases of TensorRT: building and running touch no name that a release lacks.

The releases are stand-ins with exactly the names of each (tests/fake_tensorrt.py). Their table,
tests/data/trt_api_surface.json, is made by tests/data/reduce_trt_api_surface.py.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.engines.trt import api as trt_api
from edge.engines.trt.api import TensorRt
from edge.errors import EngineError, MissingError, UsageError
from edge.models.manifest import InputSpec, Manifest, Profile
from export.build.engine import build_engine
from export.build.options import BuildOptions

TESTS = Path(__file__).parents[2]
FAKE = runpy.run_path(str(TESTS / "fake_tensorrt.py"))
REDUCE = runpy.run_path(str(TESTS / "data" / "reduce_trt_api_surface.py"))
RELEASES = tuple(FAKE["VERSIONS"])
CLASSIC = tuple(release for release in RELEASES if not release.startswith("rtx"))
WEAK = ("8.6", "10.0", "10.3", "10.7")
DEFAULTS = BuildOptions()
MANIFEST = Manifest(
    name="tiny",
    task="classify",
    head="classify",
    input=InputSpec(name="images", width=8, height=8, layout="nchw", dtype="float32", colour="rgb"),
    classes=("a", "b"),
)


def world_of(release: str) -> tuple[Any, TensorRt]:
    world = FAKE["World"](release)
    return world, TensorRt(world.module, FAKE["flavour_of"](release))


def write_model(path: Path, kind: str = "fp32", opset: int = 17, batch: int | str = "n") -> Path:
    """One convolution: FP32, FP16 throughout, or with FP32 Q/DQ in front."""
    real, real_type = (np.float16, TensorProto.FLOAT16) if kind == "fp16" else (np.float32, TensorProto.FLOAT)
    weights = [numpy_helper.from_array(np.ones((2, 3, 8, 8), real), "weight")]
    nodes, source = [], "images"
    if kind == "int8":
        weights += [
            numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
            numpy_helper.from_array(np.array(0, np.int8), "zero"),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        ]
        source = "d"
    nodes.append(helper.make_node("Conv", [source, "weight"], ["probs"], name="stem.conv"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", real_type, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("probs", real_type, [batch, 2, 1, 1])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return path


def build_on(release: str, onnx_path: Path, options: BuildOptions = DEFAULTS, capability: str = "8.9") -> Any:
    world, api = world_of(release)
    half = "float16" if "fp16" in onnx_path.name else "float32"
    spec = MANIFEST.input.model_copy(update={"dtype": half})
    manifest = MANIFEST.model_copy(update={"input": spec})
    out = onnx_path.with_name("out.engine")
    result = build_engine(onnx_path, out, options, api, manifest=manifest, capability=capability)
    return world, result


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
def test_every_release_builds_every_precision(tmp_path: Path, release: str, kind: str) -> None:
    world, result = build_on(release, write_model(tmp_path / f"{kind}.onnx", kind))
    assert result.manifest.precision == kind
    assert len(world.values_of("IBuilderConfig", "add_optimization_profile")) == 1
    assert len(world.values_of("IOptimizationProfile", "set_shape")) == 1


@pytest.mark.parametrize(
    ("releases", "kind", "network_flags", "builder_flags"),
    [
        (("8.6",), "fp32", {"EXPLICIT_BATCH"}, set()),
        (("8.6",), "fp16", {"EXPLICIT_BATCH"}, {"FP16"}),
        (("8.6",), "int8", {"EXPLICIT_BATCH"}, {"INT8", "FP16"}),
        (("10.0", "10.3", "10.7"), "fp32", set(), set()),
        (("10.0", "10.3", "10.7"), "fp16", {"STRONGLY_TYPED"}, set()),
        (("10.0", "10.3", "10.7"), "int8", set(), {"INT8", "FP16"}),
        (("10.13", "10.16"), "fp32", {"STRONGLY_TYPED"}, set()),
        (("10.13", "10.16"), "fp16", {"STRONGLY_TYPED"}, set()),
        (("10.13", "10.16"), "int8", {"STRONGLY_TYPED"}, set()),
        (("11.0", "11.4"), "fp32", set(), set()),
        (("11.0", "11.4"), "fp16", set(), set()),
        (("11.0", "11.4"), "int8", set(), set()),
        # what its graphs need
        (("rtx1.7",), "fp32", set(), {"REQUIRE_USER_ALLOCATION"}),
        (("rtx1.7",), "fp16", set(), {"REQUIRE_USER_ALLOCATION"}),
        (("rtx1.7",), "int8", set(), {"REQUIRE_USER_ALLOCATION"}),
    ],
)
def test_types_are_set_as_each_release_wants_them(
    tmp_path: Path, releases: tuple[str, ...], kind: str, network_flags: set[str], builder_flags: set[str]
) -> None:
    for release in releases:
        world, _ = build_on(release, write_model(tmp_path / f"{kind}.onnx", kind))
        known = world.module.NetworkDefinitionCreationFlag
        bits = world.values_of("Builder", "create_network")[0][0]
        assert {flag.name for flag in known if bits >> int(flag) & 1} == network_flags, release
        assert world.flags() == builder_flags, release


@pytest.mark.parametrize("release", RELEASES)
def test_only_8_6_is_asked_to_share_profiles(tmp_path: Path, release: str) -> None:
    world, result = build_on(release, write_model(tmp_path / "fp32.onnx"))
    asked = [(feature.name, value) for feature, value in world.values_of("IBuilderConfig", "set_preview_feature")]
    assert asked == ([("PROFILE_SHARING_0806", True)] if release == "8.6" else [])
    assert ("profile_sharing" in result.manifest.engine.flags) == (release == "8.6")


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("capability", "asked", "precision", "cleared"),
    [("8.9", None, "tf32", []), ("8.9", "fp32", "fp32", ["TF32"]), ("7.5", None, "fp32", [])],
)
def test_fp32_is_called_tf32_where_it_is_and_can_be_had_without(
    tmp_path: Path, release: str, capability: str, asked: Any, precision: str, cleared: list[str]
) -> None:
    options = BuildOptions(precision=asked)
    world, result = build_on(release, write_model(tmp_path / "fp32.onnx"), options, capability)
    assert [layer.precision for layer in result.layers] == [precision]
    assert [call[0].name for call in world.values_of("IBuilderConfig", "clear_flag")] == cleared
    assert ("tf32" in result.manifest.engine.flags) == (precision == "tf32")


@pytest.mark.parametrize("release", RELEASES)
def test_a_driver_that_is_too_old_for_the_release_is_told(release: str) -> None:
    world, api = world_of(release)
    world.starts = False
    with pytest.raises(
        EngineError, match=r"no builder \(CUDA initialization failure with error: 35; .*run: edge doctor"
    ):
        api.builder()


@pytest.mark.parametrize("release", WEAK)
def test_fp16_of_a_float_graph_is_a_flag_before_strong_typing(tmp_path: Path, release: str) -> None:
    world, result = build_on(release, write_model(tmp_path / "fp32.onnx"), BuildOptions(precision="fp16"))
    assert world.flags() == {"FP16"}
    assert result.manifest.precision == "fp16"
    assert [layer.precision for layer in result.layers] == ["fp32|fp16"]


@pytest.mark.parametrize("release", RELEASES)
def test_all_options_touch_only_names_of_the_release(tmp_path: Path, release: str) -> None:
    is_classic = release in CLASSIC
    options = BuildOptions(
        profiles=(Profile(min_batch=1, opt_batch=1, max_batch=1), Profile(min_batch=2, opt_batch=4, max_batch=8)),
        workspace_mb=64,
        timing_cache=tmp_path / "times",
        hardware_compatible=is_classic,
        version_compatible=is_classic,
        optimization_level=5,
        flags=("SPARSE_WEIGHTS",),
    )
    world, result = build_on(release, write_model(tmp_path / "fp32.onnx"), options)
    assert len(world.values_of("IOptimizationProfile", "set_shape")) == 2
    assert world.values_of("IBuilderConfig", "builder_optimization_level") == [5]
    assert (tmp_path / "times").is_dir() == is_classic
    assert "SPARSE_WEIGHTS" in world.flags()
    assert len(result.manifest.engine.profiles) == 2


@pytest.mark.parametrize("release", CLASSIC)
def test_a_timing_cache_of_another_gpu_is_replaced(tmp_path: Path, release: str) -> None:
    world, api = world_of(release)
    world.timing_cache_fits = False
    config = api.builder().create_builder_config()
    api.use_timing_cache(config, b"of another GPU")
    assert [call[0] for call in world.values_of("IBuilderConfig", "create_timing_cache")] == [b"of another GPU", b""]


@pytest.mark.parametrize("release", [release for release in RELEASES if release != "8.6"])
def test_progress_is_heard_where_there_is_a_monitor(release: str) -> None:
    heard: list[tuple[Any, ...]] = []

    class Listener:
        def phase_start(self, name: str, parent: str | None, num_steps: int) -> None:
            heard.append((name, parent, num_steps))

        def step(self, name: str, done: int) -> bool:
            heard.append((name, done))
            return False

        def phase_finish(self, name: str) -> None:
            heard.append((name,))

    monitor = world_of(release)[1].progress_monitor(Listener())
    monitor.phase_start("kernels", None, 3)
    assert monitor.step_complete("kernels", 0) is False
    monitor.phase_finish("kernels")
    assert heard == [("kernels", None, 3), ("kernels", 1), ("kernels",)]


def test_8_6_has_no_monitor_and_says_so(tmp_path: Path) -> None:
    _, result = build_on("8.6", write_model(tmp_path / "fp32.onnx"))
    assert "tells no progress" in result.notes[0]


@pytest.mark.parametrize("release", CLASSIC)
def test_what_the_dla_cannot_do_is_listed(tmp_path: Path, release: str) -> None:
    world, result = build_on(release, write_model(tmp_path / "fp16.onnx", "fp16"), BuildOptions(dla_core=1), "8.7")
    assert result.fallbacks == ("stem.conv",)
    assert world.values_of("IBuilderConfig", "DLA_core") == [1]
    assert "GPU_FALLBACK" in world.flags()
    assert world.values_of("IBuilderConfig", "set_memory_pool_limit")[0][1] == 1024 << 20


def test_a_dla_core_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"--dla 2: TensorRT 10.3.0 sees 2 DLA cores here"):
        build_on("10.3", write_model(tmp_path / "fp16.onnx", "fp16"), BuildOptions(dla_core=2), "8.7")


@pytest.mark.parametrize("release", WEAK)
def test_a_calibration_cache_gives_int8_without_qdq(tmp_path: Path, release: str) -> None:
    cache = tmp_path / "ranges.cache"
    cache.write_bytes(b"TRT-8601-EntropyCalibration2\n")
    options = BuildOptions(dla_core=0, calibration_cache=cache)
    world, result = build_on(release, write_model(tmp_path / "fp32.onnx"), options, "8.7")
    assert world.flags() == {"INT8", "FP16", "GPU_FALLBACK"}
    calibrator = world.values_of("IBuilderConfig", "int8_calibrator")[0]
    assert calibrator.read_calibration_cache() == cache.read_bytes()
    assert calibrator.get_batch(["images"]) is None
    assert result.manifest.precision == "int8"


REFUSED: list[tuple[str, str, BuildOptions, str]] = [
    ("rtx1.7", "fp32", BuildOptions(precision="fp16"), "graph is FP32 and TensorRT for RTX 1.7.1.116 keeps"),
    ("10.13", "fp32", BuildOptions(precision="fp16"), "--precision fp16 was asked for, the graph is FP32"),
    ("10.3", "fp32", BuildOptions(precision="int8"), "no Q/DQ nodes .fp32.; run: edge quantize"),
    ("rtx1.7", "fp16", BuildOptions(precision="int8"), "no Q/DQ nodes .fp16."),
    ("11.4", "int8", BuildOptions(precision="fp32"), "--precision fp32 was asked for, the graph is int8"),
    ("10.3", "int8", BuildOptions(precision="fp16"), "--precision fp16 was asked for, the graph is int8"),
    ("10.3", "int8", BuildOptions(dla_core=0), "before TensorRT 11 the DLA takes no Q/DQ nodes"),
    ("10.3", "fp32", BuildOptions(dla_core=0), "the DLA computes in FP16 and INT8, the graph is FP32; add"),
    ("rtx1.7", "fp32", BuildOptions(dla_core=0), "--dla: TensorRT for RTX 1.7.1.116 does not offer it"),
    ("rtx1.7", "fp32", BuildOptions(version_compatible=True), "--version-compatible: TensorRT for RTX"),
    ("rtx1.7", "fp32", BuildOptions(hardware_compatible=True), "list the GPUs instead: --target"),
    ("rtx1.7", "fp32", BuildOptions(targets=("8.7",)), r"sm87 \(Jetson Orin\): .* builds for .*sm120.* only"),
    ("rtx1.7", "fp32", BuildOptions(targets=("9.0",)), "--target sm90: "),
    ("rtx1.7", "fp32", BuildOptions(targets=("11.0",)), r"--target sm110 \(Jetson Thor\)"),
    ("10.3", "fp32", BuildOptions(targets=("8.7",)), "builds only for the GPU of this machine .sm89."),
    ("10.3", "fp32", BuildOptions(flags=("WARP_SPEED",)), "TensorRT 10.3.0 has no such builder flag"),
    ("11.0", "fp32", BuildOptions(flags=("FP16",)), "types are chosen with --precision"),
    ("11.0", "fp32", BuildOptions(calibration_cache=Path(__file__)), "takes Q/DQ nodes only; run: edge quantize"),
    ("10.3", "int8", BuildOptions(calibration_cache=Path(__file__)), "it makes INT8 of an FP32 graph"),
    ("10.3", "fp32", BuildOptions(calibration_cache=Path("nowhere")), "nowhere: no such file; run: edge calibrate"),
]


@pytest.mark.parametrize(("release", "kind", "options", "message"), REFUSED)
def test_what_cannot_be_built_is_refused_before_the_build(
    tmp_path: Path, release: str, kind: str, options: BuildOptions, message: str
) -> None:
    with pytest.raises((EngineError, UsageError), match=message):
        build_on(release, write_model(tmp_path / f"{kind}.onnx", kind), options)
    assert not (tmp_path / "out.engine").exists()


@pytest.mark.parametrize(("release", "opset"), [("8.6", 18), ("10.3", 21)])
def test_an_opset_that_is_too_new_is_named(tmp_path: Path, release: str, opset: int) -> None:
    with pytest.raises(EngineError, match=f"has opset {opset}, TensorRT .* reads up to {opset - 1}"):
        build_on(release, write_model(tmp_path / "fp32.onnx", opset=opset))


@pytest.mark.parametrize("release", CLASSIC)
def test_classic_tensorrt_without_a_gpu_says_where_to_build(tmp_path: Path, release: str) -> None:
    with pytest.raises(MissingError, match="builds only on the GPU that the engine is for"):
        build_on(release, write_model(tmp_path / "fp32.onnx"), capability=None)  # type: ignore[arg-type]


def test_refitting_without_a_gpu_is_refused_for_rtx(tmp_path: Path) -> None:
    options = BuildOptions(targets=("8.9",), flags=("STRIP_PLAN",))
    with pytest.raises(EngineError, match=r"--flag STRIP_PLAN: .* needs a GPU"):
        build_on("rtx1.7", write_model(tmp_path / "fp32.onnx"), options, None)  # type: ignore[arg-type]


def test_a_name_that_a_release_lacks_fails_as_there() -> None:
    config = world_of("11.0")[1].builder().create_builder_config()
    with pytest.raises(AttributeError, match=r"11\.0: 'IBuilderConfig' has no attribute 'max_workspace_size'"):
        _ = config.max_workspace_size


@pytest.mark.parametrize(
    ("text", "expected"), [("sm89", "8.9"), ("sm120", "12.0"), ("8.7", "8.7"), ("SM_90", "9.0"), ("110", "11.0")]
)
def test_targets_may_be_written_in_several_ways(text: str, expected: str) -> None:
    assert trt_api.capability_of(text) == expected


@pytest.mark.parametrize("text", ["", "sm", "ada", "8", "sm89x", "１２", "12345"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected compute capabilities such as sm89,sm120"):
        trt_api.capability_of(text)


def test_the_table_of_names_is_that_of_the_sources() -> None:
    """Fails when a source mentions a name that the reduced table was made without."""
    full = TESTS.parents[1] / "shared" / "research" / "trt_api_surface.json"
    if not full.is_file():
        reduced = FAKE["SURFACES"]
        assert set(reduced) == set(RELEASES)
        return
    wanted = REDUCE["reduce_surface"](json.loads(full.read_text()))
    assert wanted == FAKE["SURFACES"], "run tests/data/reduce_trt_api_surface.py"
