"""Float ONNX model in, FP16 model out, through the same gate as INT8: overflow checked, accuracy measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calib.frames import FrameSet, choose_frames, dataset_candidates
from calib.graph import is_quantized, load_float_model
from edge.errors import AccuracyError, ModelError
from edge.model import find_manifest
from edge.models.manifest import Manifest, write_sidecar
from export.data.sample import Dataset
from export.evaluate.evaluate import Report
from export.quantize.fp16 import decode_tensors, fp32_tensors, overflowing_tensors, to_half
from export.quantize.gate import Gate, Remembered, main_value
from export.quantize.quantize import save_model

CHECK_FRAMES = 8


@dataclass(frozen=True, slots=True)
class HalfResult:
    """What was written and measured. ``overflowing``: tensor → largest magnitude, kept in FP32 for it."""

    path: Path
    out: Path
    manifest: Manifest
    before: Report
    after: Report
    overflowing: dict[str, float]

    @property
    def drop(self) -> float:
        """Share of the float accuracy that was lost."""
        return 1 - main_value(self.after) / main_value(self.before)


def convert_to_half(
    path: Path,
    dataset: Dataset,
    out: Path,
    *,
    max_drop: float = 0.01,
    min_agreement: float = 0.9,
    footage: FrameSet | None = None,
    threads: int = 1,
) -> HalfResult:
    """Cast a model to FP16 and write it with its manifest.

    What lies behind the last layers stays FP32, and so does every tensor that comes near FP16's limit on frames of the
    data set, and what reads it.

    Raises:
        ModelError: the model cannot be used.
        DataError: the float model is useless on this data.
        AccuracyError: more than ``max_drop`` of the accuracy is lost, or less than ``min_agreement`` of what the float
            model sees in the footage stays; nothing is written.
    """
    manifest = find_manifest(path)
    model = load_float_model(path)
    if is_quantized(model):
        raise ModelError(f"{path}: is quantized; make the typed form with: edge quantize --flavour fp16")
    dataset = Remembered(dataset)
    gate = Gate(path, manifest, dataset, footage=footage, threads=threads)
    frames = choose_frames(
        dataset_candidates(dataset, seed=0), manifest.input, CHECK_FRAMES, origin=dataset.name, min_frames=1
    )
    loud = overflowing_tensors(model, frames.source(), threads=threads)
    half = to_half(model, decode_tensors(model) | fp32_tensors(model, loud))
    verdict = gate.judge(half)
    budget = gate.budget(max_drop, min_agreement)
    if not budget.holds(verdict.figures):
        raise AccuracyError(f"{path.name} in FP16: {budget.describe(verdict.figures)}; allow more with --max-drop")
    before, after = gate.before, verdict.report
    accuracy = dict(manifest.accuracy) | {"fp32": before.metrics, "fp16": after.metrics}
    update = {"name": out.stem, "precision": "fp16", "accuracy": accuracy, "sha256": ""}
    written = manifest.model_copy(update=update)
    save_model(half, out, written)
    write_sidecar(written, out)
    return HalfResult(path, out, written, before, after, loud)
