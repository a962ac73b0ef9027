"""``edge models``: which model files are at hand, how good and how fast they are here, and which to take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.console import AsJson, out, print_json
from edge.errors import UsageError

if TYPE_CHECKING:
    from edge.models.shipped import AtHand

_METRICS = {"detect": "map50", "segment": "miou", "classify": "top1"}
_WARMUP, _RUNS = 2, 8


def models(
    action: Annotated[str, typer.Argument(help="list, or add.", show_default=True)] = "list",
    origin: Annotated[str, typer.Argument(help="With add: a file, or an https:// address.")] = "",
    sha256: Annotated[str, typer.Option(help="With add: what the file must hash to.")] = "",
    speed: Annotated[bool, typer.Option(help="Time each model here, one thread.")] = True,
    as_json: AsJson = False,
) -> None:
    """List the models at hand, or add one."""
    from edge.models.shipped import add_model, models_at_hand

    if action == "add":
        path = add_model(origin, sha256)
        out.print(f"{path}  next: edge inspect {path} --write, where it has no manifest")
        return
    if action != "list" or origin:
        raise UsageError(f"edge models: expected list or add FILE --sha256 HASH, found {action} {origin}".rstrip())
    found = [_facts(one, speed) for one in models_at_hand()]
    if as_json:
        print_json(found)
        return
    _show(found)


def _facts(one: AtHand, with_speed: bool) -> dict[str, Any]:
    manifest = one.manifest
    metric = _METRICS.get(manifest.task, "")
    return {
        "model": one.path.stem,
        "path": str(one.path),
        "task": manifest.task,
        "precision": manifest.precision,
        "metric": metric,
        "accuracy": manifest.accuracy.get(manifest.precision, {}).get(metric),
        "megabytes": round(one.path.stat().st_size / 1e6, 1),
        "ms": _milliseconds(one.path) if with_speed else None,
        "classes": list(manifest.classes),
        "dataset": manifest.provenance.dataset,
        "terms": manifest.provenance.terms,
        "advice": one.advice,
    }


def _milliseconds(path: Path) -> float | None:
    """Median time of one picture on one thread; None for files that are for other engines."""
    import numpy as np

    from edge.model import open_model

    if path.stem.endswith("-trt"):
        return None
    model = open_model(path, engine="ort", threads=1, max_batch=1)
    spec = model.manifest.input
    tensor, _ = model.preprocessor.images([np.full((spec.height, spec.width, 3), 114, np.uint8)])
    spent = []
    for _ in range(_WARMUP + _RUNS):
        started = time.perf_counter()
        model.engine.infer(tensor)
        spent.append(time.perf_counter() - started)
    model.close()
    return round(float(np.median(spent[_WARMUP:])) * 1e3, 1)


def _show(found: list[dict[str, Any]]) -> None:
    """Figures in a table, then what to take for what; the whole of data and terms is in ``--json``."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (("model", "left"), ("accuracy", "left"), ("MB", "right"), ("ms here", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("licence")
    for row in found:
        accuracy = "-" if row["accuracy"] is None else f"{row['metric']} {row['accuracy']:.3f}"
        spent = "-" if row["ms"] is None else f"{row['ms']:.1f}"
        licence = row["terms"].partition(";")[0]
        table.add_row(row["model"], accuracy, f"{row['megabytes']:.1f}", spent, licence)
    out.print(table)
    out.print()
    for row in found:
        if row["advice"]:
            out.print(f"take {row['model']} for {row['advice']}")
