"""``edge calibrate``: measure the INT8 ranges of a model on pictures, videos or the device's own cameras."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.commands.console import AsJson, err, out, print_json
from edge.errors import DataError, UsageError

if TYPE_CHECKING:
    from calib.calibrate import CalibrationResult
    from calib.frames import Candidate
    from export.data.sample import Dataset


def calibrate(
    model: Annotated[Path, typer.Argument(help="The float ONNX model.", show_default=False)],
    data: Annotated[
        list[str] | None, typer.Option(help="Data set, folder of pictures or video; again for more.")
    ] = None,
    stream: Annotated[list[str] | None, typer.Option(help="Address of a running camera; again for more.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many frames to use.")] = 200,
    every_s: Annotated[float, typer.Option(help="Seconds between two frames of a camera.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of the random choice.")] = 0,
    ranges: Annotated[Path | None, typer.Option("--out", help="Default MODEL.ranges.json.")] = None,
    merge: Annotated[Path | None, typer.Option(help="Add to the histograms of this ranges.json.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of ONNX Runtime.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure INT8 ranges and write ranges.json."""
    from rich.progress import Progress, TimeRemainingColumn

    from calib.calibrate import calibrate as measure
    from calib.calibrate import num_passes
    from calib.frames import choose_frames
    from edge.model import find_manifest
    from edge.uris import masked

    if not data and not stream:
        raise UsageError("edge calibrate needs --data (a data set, folder or video) or --stream (a camera)")
    manifest = find_manifest(model)
    passes = num_passes(model)
    origins = [*(data or []), *(stream or [])]
    fingerprint: list[str] = []
    with Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=err) as bars:
        looking = bars.add_task("choose frames", total=None)
        candidates = _candidates(origins, frames, seed, every_s, fingerprint)
        chosen = choose_frames(
            candidates,
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
            dataset_sha256=fingerprint[0] if fingerprint else "",
            threads=threads,
            step=lambda: bars.advance(running),
        )
    _show(result, as_json)


def _candidates(
    origins: list[str], frames: int, seed: int, every_s: float, fingerprint: list[str]
) -> Iterator[Candidate]:
    """Pictures from all origins in turn; the fingerprint of a data set is left in ``fingerprint``."""
    from calib.frames import interleave

    share = -(-frames // len(origins))
    return interleave([_from(origin, share, seed, every_s, fingerprint) for origin in origins])


def _from(origin: str, frames: int, seed: int, every_s: float, fingerprint: list[str]) -> Iterator[Candidate]:
    from calib.frames import PICTURES, dataset_candidates, folder_candidates, source_candidates
    from edge.sources.choose import open_source
    from edge.uris import masked

    dataset = _dataset(origin)
    if dataset is not None:
        fingerprint.append(dataset.fingerprint)
        return dataset_candidates(dataset, seed)
    path = Path(origin)
    if path.is_dir() and any(child.suffix.lower() in PICTURES for child in path.rglob("*")):
        return folder_candidates(path, seed)
    return source_candidates(open_source(origin), masked(origin), frames, seed, every_s)


def _dataset(origin: str) -> Dataset | None:
    """The data set that this address names, None where it is something else."""
    from export.data.open_data import SCHEMES, open_dataset

    path = Path(origin)
    scheme = origin.partition(":")[0]
    if (scheme in SCHEMES and "://" not in origin) or path.suffix == ".json":
        return open_dataset(origin, on_error="skip")
    if not path.is_dir():
        return None
    try:
        return open_dataset(origin, on_error="skip")
    except DataError:
        # a folder of pictures without labels is as good
        return None


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
