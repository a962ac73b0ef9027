"""A picture of what ``edge bench`` measured: where the time of a frame goes, and how old results are."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import MissingError
from edge.files import write_atomic
from edge.packages.installed import add_extra

BAR_HEIGHT_IN = 0.28
NUM_BINS = 40


def figure_class() -> Any:
    """Matplotlib's figure; asked for before anything is measured, so that no measurement is lost.

    Raises:
        MissingError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingError(f"--picture needs matplotlib; run: {add_extra('train')}") from None
    return Figure


def draw_report(report: Mapping[str, Any], path: Path) -> None:
    """Write a picture of a bench report: median and 99th percentile per stage, and a histogram of ages.

    Args:
        report: what ``edge bench --json`` prints.
        path: the file; its suffix says the format (``.png``, ``.svg``, ``.pdf``).

    Raises:
        MissingError: matplotlib is not installed.
    """
    new_figure = figure_class()
    loop = report["loop"]
    rows = [(name, stage, spent) for name, one in loop["streams"].items() for stage, spent in one["stages"].items()]
    figure = new_figure(figsize=(10, max(3.0, 1 + BAR_HEIGHT_IN * len(rows))), layout="constrained")
    bars, ages = figure.subplots(1, 2)
    places = range(len(rows))
    bars.barh(places, [spent["p99_ms"] for _, _, spent in rows], color="#cfd8dc", label="99th percentile")
    bars.barh(places, [spent["median_ms"] for _, _, spent in rows], color="#00796b", label="median")
    is_one = len(loop["streams"]) == 1
    bars.set_yticks(places, [stage if is_one else f"{name}: {stage}" for name, stage, _ in rows])
    bars.invert_yaxis()
    bars.set_xlabel("ms per frame")
    bars.legend()
    bars.set_title("stages")
    for name, values in loop["ages_ms"].items():
        ages.hist(values, NUM_BINS, histtype="step", label=name)
    ages.set_xlabel("ms from capture to result")
    ages.set_ylabel("frames")
    ages.legend()
    ages.set_title(f"age: median {loop['age_median_ms']:g} ms, 99th percentile {loop['age_p99_ms']:g} ms")
    figure.suptitle(_title(report))
    data = io.BytesIO()
    figure.savefig(data, format=path.suffix.removeprefix(".") or "png", dpi=120)
    write_atomic(path, data.getvalue())


def _title(report: Mapping[str, Any]) -> str:
    loop, bare = report["loop"], report.get("engine")
    text = f"{loop['fps']:.1f} frames/s, {loop['cpu_ms_per_frame']:.2f} ms CPU a frame, {report['cores']} cores"
    return text if bare is None else f"{bare['name']}: {bare['fps']:.1f} frames/s alone; the loop: {text}"
