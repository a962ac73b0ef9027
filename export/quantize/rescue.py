"""Where calibration alone cannot hold the budget: other activations, then fine-tuning with rounding, judged alike."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from calib.calibrate import calibrate
from calib.frames import FrameSet, choose_frames, dataset_candidates
from calib.graph import load_float_model, opset_of
from calib.ranges import RangeTable
from edge.errors import AccuracyError, ModelError, UsageError
from edge.model import find_manifest
from edge.models.manifest import Manifest
from export.data.sample import Dataset
from export.models.build import build_network
from export.models.foreign_detector import ForeignDetector
from export.quantize.quantize import Progress, QuantizeOptions, QuantizeResult, quantize
from export.to_onnx import export_checked
from export.training.checkpoint import load_checkpoint, save_checkpoint
from export.training.qat import QatOptions, fine_tune
from export.transfer.convert import checkpoint_of
from export.transfer.equalise import equalise, is_levelable
from export.transfer.start import EQUALISE_PICTURES, pictures

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Learning:
    """What may be tried beyond calibration.

    Attributes:
        dataset: pictures to learn from, none of which judge; a YOLOX detector that was read needs no labels.
        checkpoint: of the training that the model was exported from; None for a foreign file, whose activations are
            exchanged then.
        epochs: of fine-tuning.
        frames: to calibrate a changed network on.
    """

    dataset: Dataset
    checkpoint: Path | None = None
    epochs: int = 5
    frames: int = 200


@dataclass(frozen=True, slots=True)
class _Form:
    """The network at one point of the way: as checkpoint, as file, with ranges."""

    checkpoint: Path
    model: Path
    table: RangeTable


def quantize_or_tune(
    path: Path,
    table: RangeTable,
    dataset: Dataset,
    out: Path,
    options: QuantizeOptions,
    learning: Learning,
    progress: Progress | None = None,
    *,
    footage: FrameSet | None = None,
) -> QuantizeResult:
    """As ``quantize``; where that cannot hold the budget, change the network and try again.

    The accuracy to keep is always that of ``path``. What is made on the way (``OUT-relu`` or
    ``OUT-level``, and ``OUT-qat``: ``.pt``, ``.onnx``, ``.ranges.json``) stays next to ``out``.

    Raises:
        UsageError: the pictures to learn from are those that judge.
        AccuracyError: nothing holds the budget; the message says what each way gave.
        ModelError, DataError: as ``quantize``.
    """
    if learning.dataset.fingerprint == dataset.fingerprint:
        raise UsageError(f"{dataset.name} cannot both teach and judge; give other pictures to learn from")
    try:
        return quantize(path, table, dataset, out, options, progress, footage=footage)
    except AccuracyError as error:
        found = [f"calibration alone: {error}"]
    log.warning("%s; trying more", found[0])
    for name, form in _ways(path, table, out, options, learning, found):
        try:
            return quantize(form.model, form.table, dataset, out, options, progress, footage=footage, reference=path)
        except AccuracyError as error:
            found.append(f"{name}: {error}")
            log.warning("%s", found[-1])
    raise AccuracyError("; ".join(found))


def _ways(
    path: Path, table: RangeTable, out: Path, options: QuantizeOptions, learning: Learning, found: list[str]
) -> Iterator[tuple[str, _Form]]:
    """Changed forms of the network, the cheaper one first; what is not possible is added to ``found``."""
    if learning.checkpoint is not None:
        form = _Form(learning.checkpoint, path, table)
        if (level := _levelled(path, learning.checkpoint, out, learning)) is not None:
            yield "channels of one height", level
            form = level
    else:
        try:
            form = _exchanged(path, out, learning)
        except (UsageError, ModelError) as error:
            found.append(f"{error}; fine-tuning needs the checkpoint that {path.name} was exported from (--checkpoint)")
            return
        yield "other activations", form
    yield "fine-tuned", _fine_tuned(path, form, out, options, learning)


def _exchanged(path: Path, out: Path, learning: Learning) -> _Form:
    """The foreign network with ReLU, its kernels fitted to what they computed."""
    checkpoint = out.with_name(f"{out.stem}-relu.pt")
    save_checkpoint(checkpoint_of(path, activation="relu", data=learning.dataset), checkpoint)
    return _exported(path, checkpoint, learning)


def _levelled(path: Path, checkpoint: Path, out: Path, learning: Learning) -> _Form | None:
    """The checkpoint's network with channels of one height, which computes the same; None where that cannot be."""
    saved = load_checkpoint(checkpoint)
    network = build_network(saved.recipe, len(saved.classes), saved.form)
    if not isinstance(network, ForeignDetector) or not network.form.keeps_head or not is_levelable(network.form.plan):
        return None
    network.load_state_dict(saved.ema)
    equalise(network.eval(), pictures(saved.recipe, learning.dataset, EQUALISE_PICTURES))
    state = network.state_dict()
    level = out.with_name(f"{out.stem}-level.pt")
    save_checkpoint(replace(saved, model=state, ema=state), level)
    return _exported(path, level, learning)


def _fine_tuned(path: Path, form: _Form, out: Path, options: QuantizeOptions, learning: Learning) -> _Form:
    method = "average" if options.method == "auto" else options.method
    chosen = QatOptions(epochs=learning.epochs, method=method, is_unsigned=options.flavour == "cpu")
    tuned = out.with_name(f"{out.stem}-qat.pt")
    fine_tune(form.checkpoint, form.model, form.table, learning.dataset, tuned, chosen)
    return _exported(path, tuned, learning)


def _exported(path: Path, checkpoint: Path, learning: Learning) -> _Form:
    """The checkpoint as a file like the first one, with ranges of its own."""
    model, before = checkpoint.with_suffix(".onnx"), find_manifest(path)
    opset = min(max(opset_of(load_float_model(path)), 17), 21)
    manifest, _ = export_checked(checkpoint, model, opset=opset, many=before.needs_nms, score=before.thresholds.score)
    return _Form(checkpoint, model, _ranges(model, manifest, learning))


def _ranges(model: Path, manifest: Manifest, learning: Learning) -> RangeTable:
    dataset = learning.dataset
    frames = choose_frames(dataset_candidates(dataset, 0), manifest.input, learning.frames, origin=dataset.name)
    out = model.with_suffix(".ranges.json")
    return calibrate(model, manifest, frames, out, datasets=[dataset.fingerprint]).table
