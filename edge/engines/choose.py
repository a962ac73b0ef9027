"""Which engine runs a model file; its library is imported only then."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from edge.config.remote import RemoteSettings
from edge.engines import trial
from edge.engines.cuda.capability import describe_gpu
from edge.errors import MissingError, UsageError
from edge.interfaces import Engine, EngineName
from edge.packages import plugins
from edge.packages.installed import add_extra

if TYPE_CHECKING:
    from edge.models.manifest import Manifest

log = logging.getLogger(__name__)
HOW_TO_USE_IT = "install onnxruntime-gpu[cuda,cudnn] in its place, or build an engine: edge build"
LIBRARIES = ("openvino", "onnxruntime", "onnxruntime-gpu")
# a TensorRT plan has been built for its batches; these take any
BATCHED = ("ort", "ort-cuda", "openvino", "openvino-bf16")
PLAN_SUFFIXES = (".engine", ".plan", ".trt")


@dataclass(frozen=True, slots=True)
class Server:
    """Where a model of ``kserve`` is: ``grpc://HOST:PORT``, and how the server is spoken to."""

    url: str
    settings: RemoteSettings


def open_engine(
    path: Path,
    manifest: Manifest,
    *,
    kind: str = "auto",
    threads: int | None = None,
    max_batch: int | None = None,
    device: int = 0,
    is_shared: bool = False,
    server: Server | None = None,
) -> Engine:
    """Load a model file, or prepare to use one on a server.

    Args:
        path: ``.onnx``, an OpenVINO model (``.xml``), or a TensorRT plan (``.engine``).
        manifest: of the model.
        kind: one of ``edge.interfaces.EngineName``, or the engine of an installed package; ``auto`` runs plans in
            TensorRT, and ONNX files in what a short trial on this machine has found to be fastest, where there is a GPU
            that ONNX Runtime can use, or OpenVINO is installed next to it.
        threads: of a CPU engine, None for its own choice.
        max_batch: largest batch of a model with a dynamic batch; None for the engine's own choice.
        device: number of the GPU of engines that use one, as nvidia-smi counts.
        is_shared: several streams will fill batches, so a short trial chooses the largest batch if none is given.
        server: where the model of ``kserve`` is.

    Raises:
        UsageError: there is no such engine, or it does not run this kind of file.
        PartError: the engine of an installed package cannot be used.
        ModelError: the file cannot be used.
        MissingError: the library is not installed.
    """
    if manifest.max_batch is not None:
        max_batch = min(max_batch or manifest.max_batch, manifest.max_batch)
    if is_plugin(kind):
        plugins.find("edge.engines", kind, get_args(EngineName))
        made: Engine = plugins.make("edge.engines", kind, path, manifest, threads=threads, max_batch=max_batch)
        return made
    if kind == "kserve":
        return _open_remote(path, manifest, server, max_batch)
    chosen = _chosen(path, kind)
    if kind == "auto" and chosen == "ort" and path.is_file():
        chosen = _fastest(path, manifest, threads, device)
    if is_shared and max_batch is None and chosen in BATCHED and path.is_file() and trial.is_wanted():
        versions = _versions(chosen, device=device)
        max_batch = trial.best_batch(
            path, chosen, versions, threads, lambda: _open(path, manifest, chosen, threads, None, device)
        )
    return _open(path, manifest, chosen, threads, max_batch, device)


def _open_remote(path: Path, manifest: Manifest, server: Server | None, max_batch: int | None) -> Engine:
    """A server's model that is not connected yet."""
    if server is None:
        raise UsageError(f"engine 'kserve' runs {path.name} on a server; expected its url, such as grpc://HOST:8001")
    if manifest.extra_rows():
        raise UsageError(f"engine 'kserve' runs models with one input; {path.name} has more")
    try:
        from edge.engines.kserve import KserveEngine
        from edge.engines.kserve_link import Place
    except ModuleNotFoundError as error:
        raise MissingError(
            f"engine 'kserve' needs the Python package {error.name!r}; run: {add_extra('kserve')}"
        ) from None
    return KserveEngine(Place.of(server.url, path.stem), server.settings, manifest.input, max_batch)


def _open(
    path: Path, manifest: Manifest, chosen: str, threads: int | None, max_batch: int | None, device: int = 0
) -> Engine:
    try:
        match chosen:
            case "ort" | "ort-cuda" | "ort-tensorrt":
                from edge.engines.ort import OrtEngine

                extra = manifest.extra_rows()
                return OrtEngine(path, kind=chosen, threads=threads, max_batch=max_batch, device=device, extra=extra)
            case "openvino" | "openvino-bf16":
                from edge.engines.openvino import OpenVinoEngine

                extra = manifest.extra_rows()
                return OpenVinoEngine(path, kind=chosen, threads=threads, max_batch=max_batch, extra=extra)
            case "trt":
                from edge.engines.trt.engine import TrtEngine

                engine: Engine = TrtEngine(path, manifest, max_batch=max_batch, device=device)
                return engine
            case _:
                from edge.engines.null import NullEngine

                return NullEngine(manifest.input, max_batch=max_batch or 16)
    except ModuleNotFoundError as error:
        raise MissingError(
            f"engine {chosen!r} needs the Python package {error.name!r}; run: "
            f"{add_extra(_EXTRAS.get(str(error.name), 'cpu'))}"
        ) from None


# which extra brings which package
_EXTRAS = {"openvino": "openvino", "tensorrt": "gpu", "pycuda": "gpu", "tensorrt_rtx": "rtx", "cuda": "rtx"}


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _fastest(path: Path, manifest: Manifest, threads: int | None, device: int) -> str:
    """What runs an ONNX file here: of a GPU, ONNX Runtime and OpenVINO what is fastest."""
    gpu = describe_gpu(device)
    names = [*(["ort-cuda"] if gpu and _has_cuda() else []), "ort", *(["openvino"] if _has_openvino() else [])]
    if gpu and "ort-cuda" not in names:
        log.warning("%s runs on the CPU: this onnxruntime cannot use the %s; %s", path.name, gpu, HOW_TO_USE_IT)
    if len(names) == 1:
        return names[0]
    if not trial.is_wanted():
        if gpu and "ort-cuda" in names:
            log.warning(
                "%s runs on the CPU: %s is off; set engine = 'ort-cuda' for the %s", path.name, trial.SWITCH, gpu
            )
        return "ort"
    versions = _versions(*names, device=device)
    return trial.fastest(
        path, names, versions, threads, lambda name: _open(path, manifest, name, threads, None, device)
    )


def _has_cuda() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _versions(*names: str, device: int) -> list[str]:
    """Of the libraries that are installed; and the GPU, where one of these engines uses it."""
    found = []
    for package in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(metadata.version(package))
    gpu = describe_gpu(device) if any(name.startswith("ort-") for name in names) else None
    return found if gpu is None else [*found, gpu]


def is_plugin(kind: str) -> bool:
    """Whether an installed package brings this engine; what is built in always wins."""
    return kind not in get_args(EngineName)


def _chosen(path: Path, kind: str) -> str:
    is_plan, is_ir = path.suffix in PLAN_SUFFIXES, path.suffix == ".xml"
    if kind == "auto":
        return "trt" if is_plan else "openvino" if is_ir else "ort"
    if is_ir and kind not in ("openvino", "openvino-bf16", "null"):
        raise UsageError(f"engine {kind!r} cannot run {path.name}; OpenVINO models (.xml) need 'openvino'")
    if is_plan != (kind == "trt") and kind != "null":
        raise UsageError(f"engine {kind!r} cannot run {path.name}; plans (.engine) need 'trt', ONNX files any other")
    return kind
