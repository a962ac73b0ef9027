"""How model files do in INT8 and in TensorRT for RTX: rows for the table of docs/models-supported.md.

    python tests/bench/family_table.py MODEL.onnx … [--pictures coco:PATH/val.json]

One file at a time: read and proved as ``edge inspect`` does, built for the RTX 40 series without a GPU, quantized for
CPUs with nothing but the last layers in float, by ranges of half of the pictures. On the other half INT8 is compared
with float as ``edge quantize --footage`` does: objects by F1, class maps by cells, whole pictures by their first class.
Where weights are random this tells whether Q/DQ stand in the right places, and nothing about accuracy.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from calib.calibrate import calibrate
from calib.clipping import Method
from calib.frames import FrameSet, choose_frames, dataset_candidates
from calib.graph import MIN_QDQ_OPSET, GraphIndex, load_float_model, opset_of, with_opset
from edge.engines.trt.api import TensorRt, load
from edge.errors import EdgeError
from edge.model import Model, find_manifest, open_model
from edge.models.manifest import Manifest
from export.build.engine import build_engine
from export.build.options import BuildOptions
from export.data.open_data import open_dataset
from export.data.sample import Dataset, Sample
from export.quantize.agreement import Footage
from export.quantize.placement import default_float_layers
from export.quantize.qdq import insert_qdq, scheme_for
from export.quantize.quantize import save_model

METHODS: tuple[Method, ...] = ("average", "percentile")
ADA = BuildOptions(targets=("8.9",))


class Half:
    """Every second sample of a data set, from ``start`` on."""

    def __init__(self, dataset: Dataset, start: int, most: int) -> None:
        self._dataset, self._start, self._most = dataset, start, most
        self.name, self.task, self.classes = f"{dataset.name}, half {start}", dataset.task, dataset.classes
        self.fingerprint = f"{dataset.fingerprint}:{start}:{most}"

    def __len__(self) -> int:
        return min(self._most, (len(self._dataset) - self._start) // 2)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._start + 2 * index]


def rtx(path: Path, manifest: Manifest, api: TensorRt, folder: Path) -> str:
    """What came of building it."""
    started = time.monotonic()
    try:
        built = build_engine(path, folder / f"{path.stem}-rtx.engine", ADA, api, manifest=manifest)
    except EdgeError as error:
        return f"no: {error}"
    return f"yes, {built.num_bytes / 1e6:.1f} MB in {time.monotonic() - started:.0f} s"


def int8(path: Path, manifest: Manifest, frames: tuple[FrameSet, FrameSet], folder: Path) -> str:
    """How much of what float sees INT8 sees, with the better of two ways to clip."""
    smaller: dict[Method, Model] = {}
    with ExitStack() as stack:
        try:
            full = open_model(path, manifest=manifest)
            stack.callback(full.close)
            for method, file in quantized(path, manifest, frames[0], folder).items():
                smaller[method] = open_model(file)
                stack.callback(smaller[method].close)
            footage = Footage(frames[1], full.manifest.thresholds.score, full.predict)
            shares = {method: footage.compare(model.predict).share for method, model in smaller.items()}
        except EdgeError as error:
            return f"{'runs' if smaller else 'no'}: {error}"
    best = max(shares, key=lambda name: shares[name])
    return f"{shares[best]:.3f} ({best})"


def quantized(path: Path, manifest: Manifest, frames: FrameSet, folder: Path) -> dict[Method, Path]:
    """The INT8 files, by the way of clipping."""
    table = calibrate(path, manifest, frames, folder / "ranges.json").table
    floating = load_float_model(path)
    model = with_opset(floating, max(opset_of(floating), MIN_QDQ_OPSET), str(path))
    float_layers = default_float_layers(GraphIndex(model), table)
    files = {method: folder / f"{path.stem}-{method}.onnx" for method in METHODS}
    for method, file in files.items():
        described = manifest.model_copy(update={"sha256": "", "precision": "int8"})
        save_model(insert_qdq(model, table, scheme_for("cpu", method, float_layers)), file, described)
    return files


def main(
    files: list[Path],
    pictures: Annotated[str, typer.Option(help="a data set; without one nothing is quantized")] = "",
    frames: Annotated[int, typer.Option(help="pictures for ranges, and as many to compare on")] = 24,
) -> None:
    api = load("tensorrt_rtx")
    dataset = open_dataset(pictures) if pictures else None
    for path in files:
        with tempfile.TemporaryDirectory() as name:
            try:
                manifest = find_manifest(path)
            except EdgeError as error:
                print(f"| {path.name} | refused: {error} | | |", flush=True)
                continue
            row = "-"
            if dataset is not None:
                halves = [Half(dataset, start, frames) for start in (0, 1)]
                first, second = (
                    choose_frames(dataset_candidates(half, 0), manifest.input, frames, origin=half.name)
                    for half in halves
                )
                row = int8(path, manifest, (first, second), Path(name))
            print(f"| {path.name} | {manifest.head} | {row} | {rtx(path, manifest, api, Path(name))} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
