"""A Triton model repository from a model file and its manifest: what the server must know, and nothing to guess.

The layout is Triton's: ``DIR/NAME/config.pbtxt`` and ``DIR/NAME/1/model.…``; the manifest lies next to the
configuration, for those who run the model through ``engine = "kserve"``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.engines.choose import PLAN_SUFFIXES, open_engine
from edge.errors import UsageError
from edge.files import write_atomic
from edge.model import find_manifest

if TYPE_CHECKING:
    from edge.interfaces import Engine, TensorInfo

# what Triton calls our dtypes
TYPES = {"bool": "TYPE_BOOL", "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64"} | {
    f"{sign}int{bits}": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
# backend → the file's name in the version's folder
BACKENDS = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "openvino": "model.xml", "python": "model.onnx"}


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How Triton shall run a model.

    Attributes:
        backend: one of ``BACKENDS``; ``python`` runs ONNX Runtime in Triton's Python backend, for a Triton that has no
            other, such as the one inside of nvidia-pytriton.
        max_batch: the most rows of a batch that Triton puts together, for models with a dynamic batch.
        instances: how many of it run at the same time, on each GPU or all on the processor.
        device: ``auto`` leaves it to Triton.
        queue_us: how long a batch waits to be filled, microseconds.
        threads: of each instance on the processor.
    """

    backend: str = ""
    max_batch: int = 8
    instances: int = 1
    device: str = "auto"
    queue_us: int = 1000
    threads: int = 1


def write_repository(model: Path, folder: Path, name: str, options: ServerOptions) -> Path:
    """Write a model into a repository; one of this name is replaced.

    Returns:
        The model's folder.

    Raises:
        UsageError: the backend does not run such a file.
        ModelError: the file or its manifest cannot be used.
        OSError: the folder cannot be written.
    """
    backend = options.backend or _backend_of(model)
    if (model.suffix in PLAN_SUFFIXES) != (backend == "tensorrt") or (model.suffix == ".xml") != (
        backend == "openvino"
    ):
        raise UsageError(f"Triton's backend {backend!r} does not run {model.name}; expected {_backend_of(model)!r}")
    manifest = find_manifest(model)
    engine = open_engine(model, manifest)
    try:
        most = min(options.max_batch, manifest.max_batch or options.max_batch)
        config = _config(name, backend, engine, replace(options, max_batch=most))
    finally:
        engine.close()
    place = folder / name
    (place / "1").mkdir(parents=True, exist_ok=True)
    for source, target in _files(model, backend):
        shutil.copyfile(source, place / "1" / target)
    if backend == "python":
        write_atomic(place / "1" / "model.py", PYTHON_BACKEND)
    write_atomic(place / f"{name}.json", manifest.to_json())
    # last: Triton may look at any moment
    write_atomic(place / "config.pbtxt", config)
    return place


def _backend_of(model: Path) -> str:
    return "tensorrt" if model.suffix in PLAN_SUFFIXES else "openvino" if model.suffix == ".xml" else "onnxruntime"


def _files(model: Path, backend: str) -> list[tuple[Path, str]]:
    """The model's file under Triton's name, and those with weights next to it under their own."""
    beside = {model.with_suffix(".bin"): "model.bin"} if model.suffix == ".xml" else {}
    weights = [model.with_name(f"{model.name}.data"), model.with_name(f"{model.stem}.data")]
    beside |= {path: path.name for path in weights if path.is_file()}
    return [(model, BACKENDS[backend]), *beside.items()]


def _config(name: str, backend: str, engine: Engine, options: ServerOptions) -> str:
    """The text of ``config.pbtxt``."""
    rows = 0 if engine.is_fixed_batch else options.max_batch
    lines = [f'name: "{name}"', f'backend: "{backend}"', f"max_batch_size: {rows}"]
    lines += _tensors("input", engine.inputs, rows) + _tensors("output", engine.outputs, rows)
    kind = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}[options.device]
    lines.append(f"instance_group [ {{ count: {options.instances} kind: {kind} }} ]")
    if rows > 1:
        sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256) if size <= rows]
        lines.append(
            f"dynamic_batching {{ preferred_batch_size: {sizes} max_queue_delay_microseconds: {options.queue_us} }}"
        )
    lines += [_warm_up(engine.inputs[0], size, rows) for size in sorted({1, max(rows, 1)})]
    lines += _parameters(backend, options.threads)
    return "\n".join(lines) + "\n"


def _tensors(kind: str, tensors: Sequence[TensorInfo], rows: int) -> list[str]:
    parts = [f'  {{ name: "{one.name}" data_type: {TYPES[one.dtype]} dims: {_dims(one, rows)} }}' for one in tensors]
    return [f"{kind} [\n" + ",\n".join(parts) + "\n]"]


def _dims(tensor: TensorInfo, rows: int) -> list[int]:
    """Sizes without the batch, which Triton adds where it makes batches; -1 where they change."""
    return [-1 if size is None else size for size in (tensor.shape[1:] if rows else tensor.shape)]


def _warm_up(tensor: TensorInfo, size: int, rows: int) -> str:
    """A batch of zeros before the model counts as ready: the first camera does not wait for what is slow at first."""
    dims = [size or 1 for size in _dims(tensor, rows)]
    value = f"{{ data_type: {TYPES[tensor.dtype]} dims: {dims} zero_data: true }}"
    batch = f"batch_size: {size} " if rows else ""
    return f'model_warmup [ {{ name: "zeros-{size}" {batch}inputs {{ key: "{tensor.name}" value: {value} }} }} ]'


def _parameters(backend: str, threads: int) -> list[str]:
    if backend not in ("onnxruntime", "python"):
        return []
    return [f'parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{threads}" }} }}']


# runs inside of Triton, with nothing of Edgeloop there
PYTHON_BACKEND = '''"""ONNX Runtime in Triton's Python backend."""

import json
import os
import sys

# Triton starts Python alone: what is installed is found where PYTHONPATH says
sys.path += [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args):
        """Load the model that lies next to this file."""
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(config["parameters"]["intra_op_thread_count"]["string_value"])
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        wanted = ["CUDAExecutionProvider"] * (args["model_instance_kind"] == "GPU") + ["CPUExecutionProvider"]
        # as Edgeloop runs it: layers that were left in float stay in float
        self.session = onnxruntime.InferenceSession(
            path, options, providers=wanted, disabled_optimizers=["WeightBiasQuantization"]
        )
        self.input = self.session.get_inputs()[0].name
        self.outputs = [one.name for one in self.session.get_outputs()]

    def execute(self, requests):
        """Answer each request."""
        return [self.answer(request) for request in requests]

    def answer(self, request):
        """Run one batch."""
        try:
            tensor = triton.get_input_tensor_by_name(request, self.input).as_numpy()
            values = self.session.run(self.outputs, {self.input: tensor})
        except RuntimeError as error:
            return triton.InferenceResponse(error=triton.TritonError(str(error)))
        return triton.InferenceResponse([triton.Tensor(*one) for one in zip(self.outputs, values)])
'''
