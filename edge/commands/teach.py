"""``edge teach``: labels for one's own scene, made by a detector that exists."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import UsageError


def teach(
    model: Annotated[Path, typer.Argument(help="The teacher: any detector that runs here.", show_default=False)],
    source: Annotated[list[str], typer.Option("--source", "-s", help="Folder, video or camera; again for more.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder for pictures, labels.json and review sheets.")],
    keep: Annotated[float, typer.Option(min=0, max=1, help="Score from which a box is a label.")] = 0.5,
    doubt: Annotated[float, typer.Option(min=0, max=1, help="Score from which a box is ignored, up to --keep.")] = 0.15,
    every_s: Annotated[float, typer.Option(min=0, help="Seconds between two frames of a video or camera.")] = 1.0,
    limit: Annotated[int, typer.Option(min=1, help="How many pictures to write.")] = 1000,
    classes: Annotated[str, typer.Option(help="Classes to keep, as person,car; default all.")] = "",
    empty_share: Annotated[float, typer.Option(min=0, max=1, help="Most pictures without objects.")] = 0.1,
    engine: Annotated[
        str, typer.Option(help="auto, ort, ort-cuda, ort-tensorrt, openvino, openvino-bf16, trt.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Let a detector label pictures, to train a smaller one on."""
    from rich.progress import Progress

    from edge.files import sha256_of
    from edge.model import open_model
    from export.data.open_data import open_dataset
    from export.teach.contact_sheet import write_sheets
    from export.teach.teacher import LABELS, Teacher, TeachSettings
    from export.teach.teacher import teach as run

    if doubt > keep:
        raise UsageError(f"--doubt: expected at most --keep ({keep}), found {doubt}")
    names = tuple(name.strip() for name in classes.split(",") if name.strip())
    settings = TeachSettings(keep, doubt, every_s, limit=limit, empty_share=empty_share, classes=names)
    loaded = open_model(model, engine=engine, score=doubt)
    try:
        teacher = Teacher(loaded.predict, loaded.manifest.classes, sha256_of(model))
        with Progress(console=err, transient=True) as bars:
            bar = bars.add_task("pictures", total=limit)
            report = run(teacher, source, folder, settings, lambda count: bars.update(bar, completed=count))
    finally:
        loaded.close()
    sheets = (
        write_sheets(open_dataset(f"coco:{folder / LABELS}", on_error="skip"), folder) if report.num_pictures else []
    )
    if as_json:
        print_json({**asdict(report), "labels": str(folder / LABELS), "sheets": [str(path) for path in sheets]})
        return
    out.print(
        f"{report.num_pictures} pictures ({report.num_empty} without objects), {report.num_labels} labels, "
        f"{report.num_doubtful} doubtful boxes ignored, {report.num_alike} frames skipped as near-duplicates"
    )
    for name, count in report.per_class.items():
        out.print(f"  {name:16} {count}")
    if sheets:
        out.print(f"look at {sheets[0]} … and delete pictures that are wrong, then train with")
        out.print(f'  data.train="coco:{folder / LABELS}" data.bad="skip"')
