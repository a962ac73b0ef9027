"""Is this engine for this machine? Every mismatch is one sentence, before any memory of a GPU is touched."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from edge.addresses.printable import one_line
from edge.engines.cuda.capability import find_compute_capability
from edge.engines.trt.api import FLAVOURS, HOW_TO_GET, TITLE, Flavour, capability_of, release_of
from edge.engines.trt.plan_header import PlanHeader, read_header
from edge.errors import EngineError, ManifestError, MissingError
from edge.files import sha256_of

if TYPE_CHECKING:
    from edge.interfaces import TensorInfo
    from edge.models.manifest import EngineSpec, Manifest

AMPERE = (8, 0)


@dataclass(frozen=True, slots=True)
class Environment:
    """What this machine offers to an engine.

    Attributes:
        libraries: flavour → version of the TensorRT that can be imported.
        broken: flavour → why it is installed and yet cannot be imported.
        compute_capability: ``"8.7"``; None without an NVIDIA driver and GPU.
        has_driver_package: whether a package that talks to the driver is installed, pycuda or cuda-bindings.
    """

    libraries: Mapping[Flavour, str] = field(default_factory=lambda: MappingProxyType({}))
    broken: Mapping[Flavour, str] = field(default_factory=lambda: MappingProxyType({}))
    compute_capability: str | None = None
    has_driver_package: bool = False


def find_environment(device: int = 0) -> Environment:
    """Look at this machine. The driver is asked for the GPU's compute capability only: no context, no memory.

    Args:
        device: number of the GPU, as CUDA counts.
    """
    libraries: dict[Flavour, str] = {}
    broken: dict[Flavour, str] = {}
    for flavour in FLAVOURS:
        if importlib.util.find_spec(flavour) is None:
            continue
        try:
            libraries[flavour] = str(importlib.import_module(flavour).__version__)
        except (ImportError, OSError) as error:
            broken[flavour] = one_line(str(error))
    return Environment(libraries, broken, find_compute_capability(device), _has_driver_package())


def _has_driver_package() -> bool:
    if importlib.util.find_spec("pycuda") is not None:
        return True
    return importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None


def check_engine(path: Path, manifest: Manifest, environment: Environment, max_batch: int | None = None) -> PlanHeader:
    """Refuse an engine that is not what its manifest says, or not for this machine.

    Args:
        path: the engine file.
        manifest: read from next to it.
        environment: this machine.
        max_batch: the most frames that one call shall take, None for the engine's own limit.

    Returns:
        The file's header.

    Raises:
        EngineError: the file is no engine, cut short, or built for another TensorRT, GPU or batch.
        ManifestError: the manifest describes no engine, or another one.
        MissingError: this machine has no TensorRT of that flavour, no GPU, or neither pycuda nor cuda-bindings.
    """
    header = read_header(path)
    _check_file(path, header, manifest)
    if header.ultralytics:
        _check_ultralytics(path, header, manifest)
    _check_library(path, header, manifest, environment)
    _check_gpu(path, manifest.engine, environment)
    if max_batch is not None and manifest.engine is not None:
        _check_batch(path, manifest.engine, max_batch)
    return header


def check_input(path: Path, inputs: Sequence[TensorInfo], manifest: Manifest) -> None:
    """Refuse an engine whose input is not the manifest's; asked after loading, before the first batch.

    Raises:
        ManifestError: name, type or shape differ.
    """
    spec = manifest.input
    size = (spec.height, spec.width, 3) if spec.layout == "nhwc" else (3, spec.height, spec.width)
    expected = f"{spec.name} {spec.dtype} [N,{','.join(map(str, size))}]"
    found = "; ".join(f"{info.name} {info.dtype} {_shape_text(info.shape)}" for info in inputs)
    if len(inputs) == 1:
        only = inputs[0]
        fits = len(only.shape) == 4 and all(a in (None, b) for a, b in zip(only.shape[1:], size, strict=True))
        if fits and (only.name, only.dtype) == (spec.name, spec.dtype):
            return
    raise ManifestError(
        f"{path.name}: its manifest describes the input {expected}, the engine has {found or 'none'}; {_rebuild(path)}"
    )


def _check_file(path: Path, header: PlanHeader, manifest: Manifest) -> None:
    size = path.stat().st_size - header.offset
    if header.num_bytes is not None and header.num_bytes != size:
        raise EngineError(
            f"{path.name}: the engine says it has {header.num_bytes} bytes, the file has {size}; "
            f"copy it again, or {_rebuild(path)}"
        )
    if not manifest.sha256:
        raise ManifestError(f"{path.with_suffix('.json').name}: names no sha256 of {path.name}; {_rebuild(path)}")
    if (found := sha256_of(path)) != manifest.sha256:
        raise ManifestError(
            f"{path.with_suffix('.json').name} describes another {path.name} (sha256 {manifest.sha256[:12]}…, found "
            f"{found[:12]}…): the engine was cut short, changed or swapped; copy both files again, or {_rebuild(path)}"
        )
    spec = manifest.engine
    if spec is None:
        if header.ultralytics:
            return
        raise ManifestError(
            f"{path.with_suffix('.json').name}: does not say what {path.name} was built with; {_rebuild(path)}"
        )
    if spec.flavour != header.flavour or not _is_same_version(spec.version, header.version):
        raise ManifestError(
            f"{path.name} was built with {header.title}, its manifest says {TITLE[spec.flavour]} {spec.version}; "
            f"{_rebuild(path)}"
        )


def _check_ultralytics(path: Path, header: PlanHeader, manifest: Manifest) -> None:
    size = header.ultralytics.get("imgsz")
    expected = [manifest.input.height, manifest.input.width]
    if isinstance(size, list | tuple) and list(size) != expected:
        raise ManifestError(
            f"{path.name}: its Ultralytics header says imgsz {list(size)!s:.40}, the manifest {expected} (height, "
            f"width); run: edge inspect {path} --write"
        )


def _check_library(path: Path, header: PlanHeader, manifest: Manifest, environment: Environment) -> None:
    flavour = header.flavour
    if flavour in environment.broken:
        raise MissingError(
            f"{path.name} needs {TITLE[flavour]}, which cannot be loaded here ({environment.broken[flavour]}); "
            f"{HOW_TO_GET[flavour]}"
        )
    found = environment.libraries.get(flavour)
    if found is None:
        raise MissingError(f"{path.name} needs {header.title}, which is not installed; {HOW_TO_GET[flavour]}")
    flags = manifest.engine.flags if manifest.engine else ()
    if _is_same_version(header.version, found):
        return
    if "version_compatible" in flags and _runs_older(header.version, found):
        return
    raise EngineError(
        f"{path.name} was built with {header.title}, this device has {TITLE[flavour]} {found}; {_rebuild(path)}"
    )


def _check_gpu(path: Path, spec: EngineSpec | None, environment: Environment) -> None:
    here = environment.compute_capability
    if here is None:
        raise MissingError(
            f"{path.name} needs an NVIDIA GPU, and the driver (libcuda.so.1) shows none; run: edge doctor, "
            "or use the ONNX file on the CPU"
        )
    if not environment.has_driver_package:
        raise MissingError(
            f"{path.name} needs pycuda or cuda-bindings, and neither is installed; run: pip install cuda-bindings"
        )
    if spec is None or here in spec.compute_capabilities:
        return
    if "hardware_compatible" in spec.flags and release_of(here) >= AMPERE:
        return
    built = ", ".join(spec.compute_capabilities) or "unknown GPUs"
    raise EngineError(
        f"{path.name} was built for compute capability {built}, this GPU has {here}; {_rebuild(path, here)}"
    )


def _check_batch(path: Path, spec: EngineSpec, max_batch: int) -> None:
    limit = max((profile.max_batch for profile in spec.profiles), default=0)
    if max_batch > limit:
        raise EngineError(
            f"{path.name} takes at most {limit} frames a batch, {max_batch} were asked for; set model.max_batch = "
            f"{max(limit, 1)}, or {_rebuild(path)} --batch 1:{max_batch}:{max_batch}"
        )


def _is_same_version(built: str, found: str) -> bool:
    """Same release: plans need major, minor and patch to agree; the build number where both name one."""
    a, b = release_of(built), release_of(found)
    common = min(len(a), len(b))
    return common >= 2 and a[:common] == b[:common]


def _runs_older(built: str, found: str) -> bool:
    """Whether this release runs version-compatible plans of that one: newer by at most one step of 8, 10, 11."""
    majors = [8, 10, 11]
    a, b = release_of(built), release_of(found)
    if not a or not b or a > b:
        return False
    if a[0] == b[0]:
        return True
    return a[0] in majors and b[0] in majors and majors.index(b[0]) - majors.index(a[0]) == 1


def _rebuild(path: Path, capability: str | None = None) -> str:
    target = "" if capability is None else f" --target sm{capability_of(capability).replace('.', '')}"
    return f"run: edge build MODEL.onnx --out {path}{target}"


def _shape_text(shape: Sequence[int | None]) -> str:
    return "[" + ",".join("N" if size is None else str(size) for size in shape) + "]"
