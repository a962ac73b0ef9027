"""``edge calibrate``: measure the INT8 ranges of a model on pictures, videos or the device's own cameras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.commands.footage import candidates
from edge.console import AsJson, err, out, print_json
from edge.errors import ModelError, UsageError

if TYPE_CHECKING:
    from calib.calibrate import CalibrationResult


def calibrate(
    model: Annotated[Path, typer.Argument(help="The float ONNX model.", show_default=False)],
    data: Annotated[
        list[str] | None, typer.Option(help="Data set, folder of pictures or video; again for more.")
    ] = None,
    stream: Annotated[list[str] | None, typer.Option(help="Address of a running camera; again for more.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many frames to use.")] = 200,
    every_s: Annotated[float, typer.Option(help="Seconds between two frames of a camera.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of the random choice of pictures.")] = 0,
    ranges: Annotated[Path | None, typer.Option("--out", help="Default MODEL.ranges.json.")] = None,
    merge: Annotated[Path | None, typer.Option(help="Add to the histograms of this ranges.json.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure INT8 ranges and write ranges.json."""
    from rich.progress import Progress, TimeRemainingColumn

    from calib.calibrate import calibrate as measure
    from calib.calibrate import num_passes
    from calib.frames import choose_frames
    from edge.addresses.uris import masked
    from edge.model import find_manifest

    if not data and not stream:
        raise UsageError("edge calibrate needs --data (a data set, folder or video) or --stream (a camera)")
    manifest = find_manifest(model)
    if manifest.extra_inputs:
        named = ", ".join(manifest.extra_inputs)
        raise ModelError(
            f"{model.name}: calibration takes models with one input, this one has {named} too; use it in float"
        )
    passes = num_passes(model)
    origins = [*(data or []), *(stream or [])]
    fingerprints: list[str] = []
    with Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=err) as bars:
        looking = bars.add_task("choose frames", total=None)
        chosen = choose_frames(
            candidates(origins, frames, seed=seed, every_s=every_s, fingerprints=fingerprints),
            manifest.input,
            frames,
            origin=", ".join(map(masked, origins)),
            step=lambda: bars.advance(looking),
        )
        bars.update(looking, total=1, completed=1)
        running = bars.add_task("run the model", total=len(chosen) * passes)
        result = measure(
            model,
            manifest,
            chosen,
            ranges or model.with_suffix(".ranges.json"),
            merge=merge,
            datasets=fingerprints,
            threads=threads,
            step=lambda: bars.advance(running),
        )
    _show(result, as_json)


def _show(result: CalibrationResult, as_json: bool) -> None:
    frames = result.frames
    facts = {
        "ranges": str(result.path),
        "histograms": str(result.histograms),
        "tensors": len(result.table.tensors),
        "frames": result.table.frames,
        "left_out_dark": frames.dark,
        "left_out_repeated": frames.repeated,
        "network_sha256": result.table.network_sha256,
        "frames_sha256": result.table.frames_sha256,
    }
    if as_json:
        print_json(facts)
        return
    out.print(
        f"{result.path}: {len(result.table.tensors)} tensors over {result.table.frames} frames "
        f"({frames.dark} black or flat and {frames.repeated} near-duplicates left out)"
    )
    out.print(f"next: edge quantize {result.table.model} --ranges {result.path} --data DATASET --max-drop 0.01")
