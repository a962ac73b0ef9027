"""Learning: a recipe made of what the network comes from, with epochs as the budget allows; ONNX; INT8."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calib.calibrate import calibrate
from calib.frames import Candidate, choose_frames
from edge.errors import ModelError
from edge.model import find_manifest
from edge.models.manifest import Manifest
from edge.night.shift import write_json
from export.config import TrainSettings, parse_config
from export.data.concat import first
from export.data.open_data import open_dataset
from export.night.label import read
from export.quantize.quantize import QuantizeOptions, QuantizeResult, quantize
from export.to_onnx import export_checked
from export.training.checkpoint import load_checkpoint
from export.training.guess import estimate_s
from export.training.train import TrainResult, train

# a network that can do something already is easily destroyed: low rates, few passes. The heads of our own detectors may
# learn faster than the rest: docs/night.md has what else was tried
OWN_RATE, FOREIGN_RATE = 0.003, 0.00002
TRUNK_SHARE = {"backbone": 0.33, "neck": 0.33}
MAX_EPOCHS, BATCH = 24, 8
# of the budget that is left; judging and quantizing need the rest
LEARNING_SHARE = 0.5
CALIBRATED, JUDGED = 60, 100


def learn(
    work: Path, start: Path, sets: tuple[str, str], threads: int, left_s: float, unseen: Sequence[str] = ()
) -> TrainResult:
    """Train, or go on with the training that was killed.

    Args:
        work: folder of the shift; the recipe is kept there, so that a killed training goes on with the same.
        start: a checkpoint of ``edge train``, or a float ONNX file.
        sets: addresses of what is learned, and of what shows how well.
        threads: of the training.
        left_s: processor seconds that are left for the whole shift.
        unseen: classes that the start never sees, although they are there.

    Raises:
        ModelError: the start cannot be learned from.
        DataError: the labels cannot.
    """
    kept = work / "recipe.json"
    if not kept.is_file():
        write_json(kept, _recipe(start, sets, threads, left_s, unseen).model_dump(mode="json"))
    config = parse_config(json.loads(kept.read_text(encoding="utf-8")), "recipe.json")
    return train(config, work / "run", resume=True)


def _recipe(start: Path, sets: tuple[str, str], threads: int, left_s: float, unseen: Sequence[str]) -> TrainSettings:
    checkpoint = load_checkpoint(start) if start.suffix == ".pt" else None
    tree = _plain(start) if checkpoint is None else checkpoint.recipe.model_dump(mode="json")
    # a checkpoint of a network that was read from somebody's ONNX file is no detector of ours
    is_own = checkpoint is not None and not checkpoint.form
    tree["data"] |= {"train": sets[0], "val": sets[1], "bad": "skip", "workers": 0, "cache": True}
    tree["optim"] |= {
        "optimizer": "adamw", "lr": OWN_RATE if is_own else FOREIGN_RATE, "epochs": 1, "batch_size": BATCH,
        "warmup_steps": 10, "ema_decay": 0.99, "ema_steps": 20, "plain_epochs": 0, "balance": True,
        # few pictures of one place would bend the statistics of all
        "freeze_bn": True,
    }  # fmt: skip
    transfer = {"weights": str(start), "rates": {}, "freeze": [], "renew": []}
    if is_own:
        transfer |= {"rates": TRUNK_SHARE, "renew": list(unseen)}
    tree["transfer"] = {**tree.get("transfer", {}), **transfer, "original": None, "activation": "", "backbone": ""}
    tree["teacher"] = {}
    tree["run"] |= {"threads": threads, "eval_every": 2, "patience": 0, "device": "cpu", "eval_images": 100}
    once = parse_config(tree, "night")
    epoch_s = max(0.1, estimate_s(once, open_dataset(sets[0], "detect", on_error="skip"), time.process_time))
    epochs = max(1, min(MAX_EPOCHS, int(LEARNING_SHARE * left_s / epoch_s)))
    # the last epoch is taken: what few frames of a site would choose among epochs is chance
    tree["optim"]["epochs"] = tree["run"]["eval_every"] = epochs
    return parse_config(tree, "night")


def _plain(start: Path) -> dict[str, Any]:
    """A recipe for a file of somebody else."""
    manifest = find_manifest(start)
    if manifest.task != "detect":
        raise ModelError(f"{start.name} is made to {manifest.task}; the night shift teaches detectors")
    data = {"width": manifest.input.width, "height": manifest.input.height}
    return {
        "task": "detect", "name": start.stem, "data": data, "model": {"nms": manifest.needs_nms}, "optim": {},
        "augment": {"mosaic": 0.3}, "run": {},
    }  # fmt: skip


def exported(checkpoint: Path, out: Path, running: Manifest) -> None:
    """Write the network as ONNX, with the score from which the model that runs shows objects."""
    export_checked(checkpoint, out, score=running.thresholds.score)


def quantized(
    model: Path, out: Path, frames: Sequence[Path], judged: str, threads: int, max_drop: float
) -> QuantizeResult:
    """Through the gate: ranges from the site's frames, judged on labelled pictures, and on other frames of the site.

    Raises:
        AccuracyError: the budget cannot be held; nothing is written.
    """
    manifest = find_manifest(model)
    seen = (Candidate(path.name, read(path)) for path in frames)
    chosen = choose_frames(seen, manifest.input, CALIBRATED, origin="kept frames", min_frames=8)
    ranges = model.with_suffix(".ranges.json")
    table = calibrate(model, manifest, chosen, ranges, threads=threads).table
    used = set(chosen.frame_ids)
    others = (Candidate(path.name, read(path)) for path in frames if path.name not in used)
    footage = choose_frames(others, manifest.input, CALIBRATED, origin="kept frames", min_frames=0)
    options = QuantizeOptions(flavour="cpu", max_drop=max_drop, threads=threads, ranks_layers=False)
    dataset = first(open_dataset(judged, "detect", on_error="skip"), JUDGED)
    return quantize(model, table, dataset, out, options, footage=footage if len(footage) else None)
