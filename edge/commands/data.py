"""``edge data``: check a data set, and say what it contains."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import UsageError

if TYPE_CHECKING:
    from export.data.statistics import Statistics


def data(
    uri: Annotated[str, typer.Argument(help="coco:FILE.json, voc:DIR, yolo:DIR, masks:DIR, classes:DIR, synthetic:…")],
    on_error: Annotated[str, typer.Option(help="refuse, or skip faulty pictures and labels.")] = "refuse",
    as_json: AsJson = False,
) -> None:
    """Check a data set and count what it contains."""
    from export.data.open_data import open_dataset
    from export.data.statistics import measure

    if on_error not in ("refuse", "skip"):
        raise UsageError(f"--on-error: expected refuse or skip, found {on_error!r}")
    with err.status("reading"):
        found = measure(open_dataset(uri, on_error="skip" if on_error == "skip" else "refuse"))
    if as_json:
        print_json(asdict(found))
    else:
        _show(found)


def _show(found: Statistics) -> None:
    from rich.table import Table

    table = Table(title=f"{found.name}: {found.num_images} images, task {found.task}")
    columns = list(next(iter(found.per_class.values())))
    for name in ("class", *columns):
        table.add_column(name, justify="left" if name == "class" else "right")
    for label, counts in found.per_class.items():
        table.add_row(label, *(str(counts[name]) for name in columns))
    out.print(table)
    out.print(f"{found.num_empty} images without labels, {found.num_ignored} boxes ignored")
    out.print("smallest, 5 %, middle, 95 %, largest:")
    for name, values in (("width", found.widths), ("height", found.heights), ("box side", found.box_sides)):
        if values:
            out.print(f"  {name:9} {'  '.join(f'{value:g}' for value in values)} px")
