"""Which providers of ONNX Runtime a kind of engine uses, and whether they really came up: it falls back unasked.

The options are those of onnxruntime.ai/docs/execution-providers (CUDA, TensorRT).
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from edge.errors import MissingError
from edge.files import cache_folder

log = logging.getLogger(__name__)
PROVIDERS = {
    "ort": ("CPUExecutionProvider",),
    "ort-cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "ort-tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
# where input and outputs lie; on the CPU ``run`` needs no copies
DEVICES: Mapping[str, str] = {"ort-cuda": "cuda", "ort-tensorrt": "cuda"}
HOW_TO_GET = "run: pip install 'onnxruntime-gpu[cuda,cudnn]' in place of onnxruntime, then edge doctor"


def providers_for(kind: str, *, is_quantized: bool = False) -> list[str | tuple[str, dict[str, Any]]]:
    """The providers of an engine, best first, each with its options.

    Args:
        kind: ``ort``, ``ort-cuda`` or ``ort-tensorrt``.
        is_quantized: whether the graph has Q/DQ nodes; TensorRT wants to be told.

    Raises:
        MissingError: this ONNX Runtime was built without the first of them.
    """
    wanted, available = PROVIDERS[kind], ort.get_available_providers()
    if wanted[0] not in available:
        raise MissingError(
            f"engine {kind!r} needs {wanted[0]}, this onnxruntime has {', '.join(available)}; {HOW_TO_GET}"
        )
    options = {"TensorrtExecutionProvider": lambda: _tensorrt_options(is_quantized)}
    chosen = [name for name in wanted if name in available]
    return [(name, options[name]()) if name in options else name for name in chosen]


def session_options(threads: int) -> ort.SessionOptions:
    """Options of a session with so many threads (0: one per core) that says nothing itself."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    # a spinning pool takes the cores from decoding and drawing, and slows every other session
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def load_libraries(kind: str) -> None:
    """Load CUDA and cuDNN out of their Python packages, for the providers that want them; others are left alone."""
    if kind not in DEVICES or not hasattr(ort, "preload_dlls"):
        return
    said = io.StringIO()
    # it prints what it does not find, and stdout may be our JSON
    with contextlib.redirect_stdout(said):
        ort.preload_dlls()
    for line in said.getvalue().splitlines():
        log.debug("onnxruntime: %s", line)


def check_came_up(session: Any, kind: str, name: str) -> None:
    """Refuse a session that runs on something else than was asked for.

    Args:
        name: of the model file, for the message.

    Raises:
        MissingError: ONNX Runtime dropped the provider, because a library or the GPU is missing.
    """
    wanted, found = PROVIDERS[kind][0], session.get_providers()
    if found[0] != wanted:
        raise MissingError(
            f"{name}: engine {kind!r} needs {wanted}, which did not come up ({', '.join(found)} did): CUDA, cuDNN or "
            f"TensorRT of the right version is missing, or the GPU; {HOW_TO_GET}"
        )


def _tensorrt_options(is_quantized: bool) -> dict[str, Any]:
    """Engines and kernel times are kept: they take minutes."""
    folder: Path = cache_folder() / f"onnxruntime-{ort.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_int8_enable": is_quantized,
    }
