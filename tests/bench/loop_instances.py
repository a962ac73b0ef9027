"""What of the bare engine the loop keeps with masks or key points: decode to JSONL, one engine thread, processor time.

    python tests/bench/loop_instances.py yolo11n-seg.onnx yolo11n-pose.onnx --source people-walking-720p.mp4

Engine and loop take turns, a few seconds each, and each figure is the median of the rounds, so that other work on the
machine counts little.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from edge.bench.loop import first_images, measure_engine, measure_loop
from edge.config.load import config_from_arguments
from edge.model import find_manifest, open_model
from edge.models.manifest import write_sidecar
from edge.types import Detections, UInt8


def shown(path: Path, images: Sequence[UInt8], most: int, folder: Path) -> tuple[Path, int]:
    """A copy of the model that shows about ``most`` objects in a picture, as a trained one does; and how many."""
    copy = Path(shutil.copy(path, folder))
    manifest = find_manifest(copy)
    everything = open_model(copy, manifest=manifest, engine="ort", threads=1)
    (found,) = everything.predict(images)
    everything.close()
    assert isinstance(found, Detections)
    least = float(np.sort(found.score)[::-1][: most + 1][-1])
    thresholds = manifest.thresholds.model_copy(update={"score": least, "track_score": least})
    write_sidecar(manifest.model_copy(update={"thresholds": thresholds}), copy)
    return copy, int((found.score >= least).sum())


def measure(path: Path, source: str, rounds: int, seconds: float) -> tuple[float, float]:
    """Processor time of a frame in the engine and in the loop, ms."""
    settings = {"engine": "ort", "threads": 1}
    model = open_model(path, engine="ort", threads=1)
    config = config_from_arguments(
        [source], path, ["jsonl:/dev/null"], for_model=settings, for_stream={"frames": "every"}
    )
    images, _ = first_images(source, 1)
    bare, whole = [], []
    try:
        for _ in range(rounds):
            bare.append(measure_engine(model, images, seconds).cpu_ms_per_frame)
            whole.append(float(measure_loop(config, seconds)["cpu_ms_per_frame"]))
    finally:
        model.close()
    return median(bare), median(whole)


def main(
    files: list[Path],
    source: Annotated[str, typer.Option(help="a clip")],
    objects: Annotated[int, typer.Option(help="shown in the first frame")] = 20,
    rounds: int = 3,
    seconds: float = 6.0,
) -> None:
    images, _ = first_images(source, 1)
    for path in files:
        with tempfile.TemporaryDirectory() as name:
            copy, found = shown(path, images, objects, Path(name))
            bare, whole = measure(copy, source, rounds, seconds)
        print(
            f"{path.stem}: engine {bare:.1f} ms, loop {whole:.1f} ms of processor time a frame, {found} objects: "
            f"{bare / whole:.2f} of the bare engine",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
