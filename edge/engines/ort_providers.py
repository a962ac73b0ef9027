"""Which providers of ONNX Runtime a kind of engine uses, and whether they really came up: it falls back unasked.

The options are those of onnxruntime.ai/docs/execution-providers (CUDA, TensorRT).
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
# it gives float weights between Q/DQ nodes INT8 codes of its own, one scale for the whole tensor: layers that were left
# in float because INT8 costs too much there lose up to 10 dB
DISABLED_OPTIMIZERS = ("WeightBiasQuantization",)
HOW_TO_GET = "run: pip install 'onnxruntime-gpu[cuda,cudnn]' in place of onnxruntime, then edge doctor"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the providers of a GPU want to be told of a model.

    Attributes:
        device: number of the GPU.
        is_quantized: whether the graph has Q/DQ nodes.
        has_float16: whether it has weights, inputs or outputs in FP16.
        shapes: input → its size except for the batch, where the batch is dynamic; empty else.
        max_batch: largest batch that will come.
    """

    device: int = 0
    is_quantized: bool = False
    has_float16: bool = False
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    max_batch: int = 1


NO_WISHES = Wishes()


def providers_for(kind: str, wishes: Wishes = NO_WISHES) -> list[str | tuple[str, dict[str, Any]]]:
    """The providers of an engine, best first, each with its options.

    Args:
        kind: ``ort``, ``ort-cuda`` or ``ort-tensorrt``.
        wishes: of the model.

    Raises:
        MissingError: this ONNX Runtime was built without the first of them.
    """
    wanted, available = PROVIDERS[kind], ort.get_available_providers()
    if wanted[0] not in available:
        raise MissingError(
            f"engine {kind!r} needs {wanted[0]}, this onnxruntime has {', '.join(available)}; {HOW_TO_GET}"
        )
    options = {
        "TensorrtExecutionProvider": lambda: _tensorrt_options(wishes),
        "CUDAExecutionProvider": lambda: _cuda_options(wishes),
    }
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


def _cuda_options(wishes: Wishes) -> dict[str, Any]:
    # by default every new size of batch stops the stream for a search through all of cuDNN's kernels
    return {"device_id": wishes.device, "cudnn_conv_algo_search": "HEURISTIC"}


def _tensorrt_options(wishes: Wishes) -> dict[str, Any]:
    """Engines and kernel times are kept: they take minutes. One engine is built for all sizes of batch."""
    folder: Path = cache_folder() / f"onnxruntime-{ort.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "device_id": wishes.device,
        "trt_int8_enable": wishes.is_quantized,
        # weakly typed networks keep FP16 only where they may
        "trt_fp16_enable": wishes.has_float16,
        **_profile(wishes),
    }


def _profile(wishes: Wishes) -> dict[str, str]:
    """Smallest, likely and largest sizes of the inputs; without them each new size is a new build."""
    sizes = {"min": 1, "opt": max(1, wishes.max_batch // 4), "max": wishes.max_batch}
    return {
        f"trt_profile_{which}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, (batch, *shape)))}" for name, shape in wishes.shapes.items()
        )
        for which, batch in sizes.items()
        if wishes.shapes
    }
