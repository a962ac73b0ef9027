"""``edge eval``: the accuracy of any artefact on any labelled data set, with the field's own metrics."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from edge.commands.labelled import labelled
from edge.console import AsJson, err, out, print_json
from edge.errors import UsageError

if TYPE_CHECKING:
    from export.data.sample import Dataset
    from export.evaluate.evaluate import Report

_CHECKPOINTS = (".pt", ".pth")


def evaluate_command(
    model: Annotated[Path, typer.Argument(help="ONNX file, engine, or checkpoint (.pt).", show_default=False)],
    data: Annotated[str, typer.Option(help="coco:FILE.json, voc:DIR, yolo:DIR, masks:DIR, classes:DIR, synthetic:…")],
    engine: Annotated[
        str, typer.Option(help="auto, ort, ort-cuda, ort-tensorrt, openvino, openvino-bf16, trt.")
    ] = "auto",
    backend: Annotated[str | None, typer.Option(hidden=True)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only this many images.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 8,
    pictures: Annotated[Path | None, typer.Option(help="Folder for confusion matrix, curves, samples.")] = None,
    on_error: Annotated[str, typer.Option(help="refuse, or skip faulty images and labels.")] = "refuse",
    save: Annotated[bool, typer.Option(help="Write the accuracy into the model's manifest.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy: COCO mAP, mIoU or top-1, per class."""
    if backend is not None:
        raise UsageError(f"--backend is called --engine now; run: edge eval … --engine {backend}")
    if on_error not in ("refuse", "skip"):
        raise UsageError(f"--on-error: expected refuse or skip, found {on_error!r}")
    if save and limit is not None:
        raise UsageError("--save writes the accuracy on a whole data set; leave --limit out")
    if save and model.suffix in _CHECKPOINTS:
        raise UsageError("--save needs a model with a manifest; export the checkpoint first")
    with tempfile.TemporaryDirectory() as folder:
        path = _exported(model, Path(folder)) if model.suffix in _CHECKPOINTS else model
        dataset = labelled(path, data, cast(Literal["refuse", "skip"], on_error), limit or 0)
        report = _measure(path, dataset, engine, batch, pictures)
    if save:
        _save(model, report)
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)


def _exported(checkpoint: Path, folder: Path) -> Path:
    """The checkpoint as an ONNX file, so that what is judged is what would run."""
    from export.to_onnx import export_onnx

    path = folder / f"{checkpoint.stem}.onnx"
    export_onnx(checkpoint, path)
    return path


def _measure(model: Path, dataset: Dataset, engine: str, batch: int, pictures: Path | None) -> Report:
    from edge.model import find_manifest
    from export.evaluate.evaluate import evaluate_model
    from export.evaluate.pictures import SampleSheet, draw_report

    sheet = None
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        sheet = SampleSheet(dataset.classes, find_manifest(model).classes, len(dataset))
    report = evaluate_model(
        model,
        dataset,
        engine=engine,
        batch_size=batch,
        progress=err.is_terminal,
        on_sample=None if sheet is None else sheet.add,
    )
    if pictures is not None and sheet is not None:
        sheet.write(pictures / "samples.png")
        draw_report(report, pictures)
    return report


def _save(model: Path, report: Report) -> None:
    """Put the main metrics into the manifest next to the model, under its precision."""
    from edge.model import find_manifest
    from edge.models.manifest import write_sidecar

    manifest = find_manifest(model)
    accuracy = {**manifest.accuracy, manifest.precision: {k: round(v, 4) for k, v in report.metrics.items()}}
    write_sidecar(manifest.model_copy(update={"accuracy": accuracy}), model)


def _show(report: Report) -> None:
    from rich.table import Table

    table = Table(title=f"{report.dataset}: {report.num_images} images")
    columns = list(dict.fromkeys(name for values in report.per_class.values() for name in values))
    table.add_column("class")
    for name in columns:
        table.add_column(name, justify="right")
    for label, values in report.per_class.items():
        table.add_row(label, *(_cell(name, values) for name in columns))
    out.print(table)
    known = report.intervals()
    for name, value in report.metrics.items():
        edges = known.get(name)
        out.print(f"{name:16} {value:.4f}" + (f"  95 %: {edges[0]:.4f} to {edges[1]:.4f}" if edges else ""))
    speed = report.num_images / report.seconds if report.seconds else 0.0
    out.print(f"{report.seconds:.1f} s in the model, {speed:.1f} images/s")
    for names, side in ((report.only_data, "data set"), (report.only_model, "model")):
        if names:
            out.print(f"only in the {side}, not judged: {_listed(names)}")


def _cell(name: str, values: dict[str, Any]) -> str:
    if name not in values:
        return "-"
    return f"{values[name]:.0f}" if name.startswith("num_") else f"{values[name]:.3f}"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
