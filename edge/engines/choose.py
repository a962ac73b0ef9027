"""Which engine runs a model file; its library is imported only then."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from edge.errors import MissingError, UsageError
from edge.interfaces import Engine
from edge.manifest import Manifest

EngineName = Literal["auto", "ort", "ort-cuda", "ort-tensorrt", "openvino", "trt", "null"]
PLAN_SUFFIXES = (".engine", ".plan", ".trt")


def open_engine(
    path: Path, manifest: Manifest, *, kind: str = "auto", threads: int | None = None, max_batch: int | None = None
) -> Engine:
    """Load a model file.

    Args:
        path: ``.onnx``, or a TensorRT plan (``.engine``).
        manifest: of the model.
        kind: one of ``EngineName``.
        threads: of a CPU engine, None for its own choice.
        max_batch: largest batch of a model with a dynamic batch.

    Raises:
        UsageError: there is no such engine, or it does not run this kind of file.
        ModelError: the file cannot be used.
        MissingError: the library is not installed.
    """
    chosen = _chosen(path, kind)
    try:
        match chosen:
            case "ort" | "ort-cuda" | "ort-tensorrt":
                from edge.engines.ort import OrtEngine

                return OrtEngine(path, kind=chosen, threads=threads, max_batch=max_batch)
            case "openvino":
                from edge.engines.openvino import OpenVinoEngine

                return OpenVinoEngine(path, threads=threads, max_batch=max_batch)
            case "trt":
                from edge.engines.trt import TrtEngine

                engine: Engine = TrtEngine(path, manifest, max_batch=max_batch)
                return engine
            case _:
                from edge.engines.null import NullEngine

                return NullEngine(manifest.input, max_batch=max_batch or 16)
    except ModuleNotFoundError as error:
        raise MissingError(
            f"engine {chosen!r} needs the Python package {error.name!r}; run: pip install 'edgeloop[cpu]' "
            "(or [gpu], [rtx], [openvino])"
        ) from None


def _chosen(path: Path, kind: str) -> str:
    if kind not in get_args(EngineName):
        raise UsageError(f"no engine is called {kind!r}; choose from: {', '.join(get_args(EngineName))}")
    is_plan = path.suffix in PLAN_SUFFIXES
    if kind == "auto":
        return "trt" if is_plan else "ort"
    if is_plan != (kind == "trt") and kind != "null":
        raise UsageError(f"engine {kind!r} cannot run {path.name}; plans (.engine) need 'trt', ONNX files any other")
    return kind
