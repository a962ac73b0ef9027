"""The whole of calibration: run the model over chosen frames, merge with earlier runs, write ranges and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calib.collect import Step, groups_of, observe, observed_tensors
from calib.frames import FrameSet
from calib.graph import GraphIndex, load_float_model
from calib.observers import TensorObserver
from calib.ranges import (
    RangeTable,
    check_input_range,
    check_table,
    load_histograms,
    load_table,
    make_table,
    save_histograms,
)
from edge.models.manifest import Manifest


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """The table, where it was written, and how many frames of this run and of earlier ones are in it."""

    table: RangeTable
    path: Path
    histograms: Path
    frames: FrameSet


def histogram_path(ranges: Path) -> Path:
    """Where the histograms of a table lie."""
    return ranges.with_suffix(".npz")


def num_passes(path: Path) -> int:
    """How often calibration will read each frame."""
    model = load_float_model(path)
    return len(groups_of(model, observed_tensors(GraphIndex(model))))


def calibrate(
    path: Path,
    manifest: Manifest,
    frames: FrameSet,
    out: Path,
    *,
    merge: Path | None = None,
    datasets: Sequence[str] = (),
    threads: int = 1,
    step: Step = lambda: None,
) -> CalibrationResult:
    """Measure the ranges of a float ONNX model and write them.

    Args:
        path: the model.
        manifest: describes its input; frames were chosen for it.
        frames: the calibration frames.
        out: ``ranges.json``; histograms go next to it.
        merge: an earlier table of this network whose histograms are added.
        datasets: fingerprints of the data sets that the frames were taken from.
        step: called after every frame and pass.

    Raises:
        ModelError: the model cannot be used, or NaN came out of it.
        DataError: the earlier table is of another network, or the input's range does not fit the manifest.
    """
    model = load_float_model(path)
    index = GraphIndex(model)
    observers = observe(model, frames.source(), threads=threads, step=step)
    frame_ids, digests, sets = list(frames.frame_ids), list(frames.digests), list(datasets)
    if merge is not None:
        earlier = load_table(merge)
        check_table(earlier, index, manifest.input, path.name)
        observers = _merged(observers, load_histograms(histogram_path(merge)), index)
        frame_ids = [*earlier.frame_ids, *frame_ids]
        digests = [*earlier.frame_digests, *digests]
        sets = [*earlier.datasets, *sets]
    table = make_table(
        index,
        observers,
        manifest.input,
        frame_ids,
        model=path.name,
        origin=frames.origin,
        frame_digests=digests,
        datasets=list(dict.fromkeys(sets)),
    )
    check_input_range(table, index, manifest.input, path.name)
    save_histograms(observers, index.roles, histogram_path(out))
    table.save(out)
    return CalibrationResult(table, out, histogram_path(out), frames)


def _merged(
    observers: dict[str, TensorObserver], earlier: dict[str, TensorObserver], index: GraphIndex
) -> dict[str, TensorObserver]:
    roles = index.roles
    return {
        name: seen.merge(earlier[roles[name]]) if roles[name] in earlier else seen for name, seen in observers.items()
    }
