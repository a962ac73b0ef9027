"""Guarantee 6: an engine that is not for this machine is refused in one sentence, before anything touches a GPU."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from effort import examples
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge.engines.trt.preflight import Environment, check_engine, check_input, find_environment
from edge.errors import EdgeError, EngineError, ManifestError, MissingError
from edge.interfaces import TensorInfo
from edge.models.manifest import EngineSpec, InputSpec, Manifest, Profile

SPEC = EngineSpec(
    flavour="tensorrt",
    version="10.3.0",
    compute_capabilities=("8.7",),
    profiles=(Profile(min_batch=1, opt_batch=4, max_batch=8),),
    inputs_sha256="0" * 64,
    onnx_sha256="1" * 64,
)
MANIFEST = Manifest(
    name="door",
    task="detect",
    head="edgenet",
    input=InputSpec(name="frames", width=320, height=192, layout="nhwc", dtype="uint8", colour="bgr"),
    classes=("person",),
    engine=SPEC,
)
ORIN = Environment(libraries={"tensorrt": "10.3.0"}, compute_capability="8.7", has_driver_package=True)
PLAN = b"ftrt" + bytes(20) + bytes([10, 3, 0, 26]) + b"kernels"


def door(folder: Path, data: bytes = PLAN, **changes: Any) -> tuple[Path, Manifest]:
    """An engine file and its manifest, with fields of its engine part changed."""
    path = folder / "door.engine"
    path.write_bytes(data)
    engine = SPEC.model_copy(update=changes)
    digest = hashlib.sha256(data).hexdigest()
    return path, MANIFEST.model_copy(update={"engine": engine, "sha256": digest})


def environment(**changes: Any) -> Environment:
    fields: dict[str, Any] = {
        "libraries": ORIN.libraries,
        "compute_capability": "8.7",
        "has_driver_package": True,
    } | changes
    return Environment(**fields)


def rtx_plan(size: int | None = None) -> bytes:
    body = b"vtrt" + bytes(12) + (size or 40).to_bytes(8, "little") + bytes([1, 7, 1, 116])
    return body + bytes(12)


def ultralytics_plan(fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields).encode()
    return len(text).to_bytes(4, "little") + text + PLAN


def test_the_right_engine_passes(tmp_path: Path) -> None:
    assert check_engine(*door(tmp_path), ORIN, 8).version == "10.3.0.26"


def test_an_rtx_engine_for_several_gpus_passes(tmp_path: Path) -> None:
    path, manifest = door(
        tmp_path, rtx_plan(), flavour="tensorrt_rtx", version="1.7.1.116", compute_capabilities=("8.9", "12.0")
    )
    here = environment(libraries={"tensorrt_rtx": "1.7.1.116"}, compute_capability="12.0")
    assert check_engine(path, manifest, here).flavour == "tensorrt_rtx"


@pytest.mark.parametrize(
    ("changes", "here", "error", "message"),
    [
        (
            {},
            {"libraries": {"tensorrt": "10.7.0"}},
            EngineError,
            r"door.engine was built with TensorRT 10.3.0.26, this device has TensorRT 10.7.0; run: edge build MODEL",
        ),
        (
            {},
            {"libraries": {"tensorrt": "10.3.0.30"}},
            EngineError,
            "built with TensorRT 10.3.0.26, this device has TensorRT 10.3.0.30",
        ),
        ({}, {"libraries": {}}, MissingError, "needs TensorRT 10.3.0.26, which is not installed; on a Jetson"),
        (
            {},
            {"libraries": {"tensorrt_rtx": "1.7.1"}},
            MissingError,
            "needs TensorRT 10.3.0.26, which is not installed",
        ),
        (
            {},
            {"libraries": {}, "broken": {"tensorrt": "libnvinfer.so.10: no such file"}},
            MissingError,
            r"cannot be loaded here \(libnvinfer.so.10: no such file\)",
        ),
        (
            {},
            {"compute_capability": None},
            MissingError,
            "needs an NVIDIA GPU, and the driver .* shows none; run: edge",
        ),
        (
            {},
            {"has_driver_package": False},
            MissingError,
            "needs pycuda or cuda-bindings, and neither is installed; run: pip install cuda-bindings",
        ),
        (
            {},
            {"compute_capability": "8.9"},
            EngineError,
            "was built for compute capability 8.7, this GPU has 8.9; run: .* --target sm89",
        ),
        (
            {"compute_capabilities": (), "flags": ("hardware_compatible",)},
            {"compute_capability": "7.5"},
            EngineError,
            "built for compute capability unknown GPUs, this GPU has 7.5",
        ),
        ({"flavour": "tensorrt_rtx"}, {}, ManifestError, "its manifest says TensorRT for RTX 10.3.0"),
        (
            {"version": "8.6.2"},
            {},
            ManifestError,
            "was built with TensorRT 10.3.0.26, its manifest says TensorRT 8.6.2",
        ),
        (
            {"version": "10.3.0", "flags": ("version_compatible",)},
            {"libraries": {"tensorrt": "10.0.1"}},
            EngineError,
            "this device has TensorRT 10.0.1",
        ),
    ],
)
def test_every_mismatch_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], here: dict[str, Any], error: type[EdgeError], message: str
) -> None:
    path, manifest = door(tmp_path, **changes)
    with pytest.raises(error, match=message) as caught:
        check_engine(path, manifest, environment(**here))
    assert "\n" not in str(caught.value)
    assert "run: " in str(caught.value) or "pip install" in str(caught.value)


@pytest.mark.parametrize("version", ["10.3.1", "10.16.1", "11.4.0"])
def test_a_version_compatible_engine_runs_on_later_releases(tmp_path: Path, version: str) -> None:
    path, manifest = door(tmp_path, flags=("VERSION_COMPATIBLE", "version_compatible"))
    check_engine(path, manifest, environment(libraries={"tensorrt": version}))


def test_a_hardware_compatible_engine_runs_from_ampere_on(tmp_path: Path) -> None:
    path, manifest = door(tmp_path, flags=("hardware_compatible",))
    check_engine(path, manifest, environment(compute_capability="12.0"))


def test_a_truncated_engine_is_refused(tmp_path: Path) -> None:
    path, manifest = door(tmp_path)
    path.write_bytes(PLAN[:-3])
    with pytest.raises(ManifestError, match=r"describes another door.engine .*: the engine was cut short, changed"):
        check_engine(path, manifest, ORIN)


def test_a_truncated_rtx_engine_is_told_by_its_own_size(tmp_path: Path) -> None:
    path, manifest = door(tmp_path, rtx_plan(size=4000), flavour="tensorrt_rtx", version="1.7.1.116")
    with pytest.raises(EngineError, match="says it has 4000 bytes, the file has 40; copy it again"):
        check_engine(path, manifest, ORIN)


def test_a_swapped_engine_is_refused(tmp_path: Path) -> None:
    path, manifest = door(tmp_path)
    path.write_bytes(PLAN.replace(b"kernels", b"another"))
    with pytest.raises(ManifestError, match=r"door.json describes another door.engine"):
        check_engine(path, manifest, ORIN)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"sha256": ""}, "door.json: names no sha256 of door.engine"),
        ({"engine": None}, "door.json: does not say what door.engine was built with"),
    ],
)
def test_a_manifest_that_says_too_little_is_refused(tmp_path: Path, update: dict[str, Any], message: str) -> None:
    path, manifest = door(tmp_path)
    with pytest.raises(ManifestError, match=message):
        check_engine(path, manifest.model_copy(update=update), ORIN)


def test_a_batch_beyond_the_profiles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"takes at most 8 frames a batch, 9 were asked for; set model.max_batch = 8"):
        check_engine(*door(tmp_path), ORIN, 9)


def test_an_ultralytics_engine_passes_by_its_own_header(tmp_path: Path) -> None:
    path, manifest = door(tmp_path, ultralytics_plan({"imgsz": [192, 320]}))
    header = check_engine(path, manifest.model_copy(update={"engine": None}), ORIN)
    assert header.offset > 0


def test_an_ultralytics_engine_of_another_size_is_refused(tmp_path: Path) -> None:
    path, manifest = door(tmp_path, ultralytics_plan({"imgsz": [640, 640]}))
    with pytest.raises(ManifestError, match=r"says imgsz \[640, 640\], the manifest \[192, 320\]"):
        check_engine(path, manifest, ORIN)


def test_an_ultralytics_engine_of_another_release_is_refused(tmp_path: Path) -> None:
    path, manifest = door(tmp_path, ultralytics_plan({"imgsz": [192, 320]}))
    with pytest.raises(EngineError, match=r"built with TensorRT 10.3.0.26, this device has TensorRT 8.6.2"):
        check_engine(path, manifest.model_copy(update={"engine": None}), environment(libraries={"tensorrt": "8.6.2"}))


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [TensorInfo("images", (None, 192, 320, 3), "uint8")],
        [TensorInfo("frames", (None, 192, 320, 3), "float32")],
        [TensorInfo("frames", (None, 320, 192, 3), "uint8")],
        [TensorInfo("frames", (None, 3, 192, 320), "uint8")],
        [TensorInfo("frames", (192, 320, 3), "uint8")],
        [TensorInfo("frames", (None, 192, 320, 3), "uint8")] * 2,
    ],
)
def test_a_wrong_input_is_refused(tmp_path: Path, inputs: list[TensorInfo]) -> None:
    message = r"describes the input frames uint8 \[N,192,320,3\], the engine has "
    with pytest.raises(ManifestError, match=message):
        check_input(tmp_path / "door.engine", inputs, MANIFEST)


@pytest.mark.parametrize("batch", [None, 4])
def test_the_right_input_passes(tmp_path: Path, batch: int | None) -> None:
    check_input(tmp_path / "door.engine", [TensorInfo("frames", (batch, 192, 320, 3), "uint8")], MANIFEST)


def test_this_machine_can_be_looked_at_without_a_gpu() -> None:
    found = find_environment()
    assert set(found.libraries) | set(found.broken) <= {"tensorrt", "tensorrt_rtx"}
    assert found.compute_capability is None or "." in found.compute_capability


WORDS = st.sampled_from(
    ["", "8.7", "8.9", "10.3.0", "10.3", "11.4.0.1", "1.7.1.116", "x", "８.７", "10..3", "-1"]
) | st.text(max_size=6)
ONE_LINE = WORDS.filter(str.isprintable)  # what find_environment() finds is one line already
ENVIRONMENTS = st.builds(
    Environment,
    libraries=st.dictionaries(st.sampled_from(["tensorrt", "tensorrt_rtx"]), ONE_LINE),
    broken=st.dictionaries(st.sampled_from(["tensorrt", "tensorrt_rtx"]), ONE_LINE, max_size=1),
    compute_capability=st.none() | ONE_LINE,
    has_driver_package=st.booleans(),
)
SPECS = st.builds(
    EngineSpec,
    flavour=st.sampled_from(["tensorrt", "tensorrt_rtx"]),
    version=WORDS,
    compute_capabilities=st.lists(WORDS, max_size=2).map(tuple),
    profiles=st.lists(st.just(SPEC.profiles[0]), max_size=2).map(tuple),
    flags=st.lists(st.sampled_from(["hardware_compatible", "version_compatible", "FP16"]), max_size=2).map(tuple),
    inputs_sha256=WORDS,
    onnx_sha256=WORDS,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["imgsz", "stride"]), inner),
    max_leaves=5,
)
FILES = st.one_of(
    st.binary(max_size=64),
    st.just(PLAN),
    st.just(rtx_plan()),
    st.dictionaries(st.sampled_from(["imgsz", "names"]), JSON).map(ultralytics_plan),
    st.tuples(st.sampled_from([PLAN, rtx_plan()]), st.integers(0, 60)).map(lambda cut: cut[0][: cut[1]]),
)


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example(PLAN, EngineSpec(flavour="tensorrt", version="\n", inputs_sha256="", onnx_sha256=""), ORIN, True, None)
@given(FILES, st.none() | SPECS, ENVIRONMENTS, st.booleans(), st.none() | st.integers(-1, 20))
def test_fabricated_engines_give_errors_of_ours_and_nothing_else(
    tmp_path: Path,
    data: bytes,
    spec: EngineSpec | None,
    here: Environment,
    has_right_hash: bool,
    max_batch: int | None,
) -> None:
    path, manifest = door(tmp_path, data)
    manifest = manifest.model_copy(update={"engine": spec})
    if not has_right_hash:
        manifest = manifest.model_copy(update={"sha256": "f" * 64})
    try:
        check_engine(path, manifest, here, max_batch)
    except EdgeError as error:
        assert str(error) and "\n" not in str(error).strip()
    else:
        assert has_right_hash and here.compute_capability is not None


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, len(PLAN) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(tmp_path: Path, place: int, change: int) -> None:
    path, manifest = door(tmp_path)
    data = bytearray(PLAN)
    data[place] ^= change
    path.write_bytes(bytes(data))
    with pytest.raises((EngineError, ManifestError)):
        check_engine(path, manifest, ORIN)
