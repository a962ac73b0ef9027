"""``edge export``: a checkpoint becomes an ONNX file with its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edge.commands.step_bar import StepBar
from edge.console import AsJson, out, print_json


def export(
    checkpoint: Annotated[Path, typer.Argument(help="best.pt of a run folder, or a foreign ONNX file.")],
    target: Annotated[Path | None, typer.Option("--out", help="The ONNX file to write.")] = None,
    opset: Annotated[int, typer.Option(help="17 for TensorRT 8.6, 20 otherwise.")] = 20,
    nms: Annotated[bool | None, typer.Option("--nms/--no-nms", help="Export the branch that needs NMS.")] = None,
    score: Annotated[float | None, typer.Option(min=0, max=1, help="Least score that is shown; kept with it.")] = None,
    only: Annotated[
        str, typer.Option("--only", help="Of a foreign ONNX file: keep these classes, separated by commas.")
    ] = "",
    activation: Annotated[
        Literal["", "relu", "relu6"],
        typer.Option(help="Of a foreign detector: exchange its activations for this one, which runs whole in INT8."),
    ] = "",
    data: Annotated[
        str, typer.Option(help="Pictures to fit the kernels on, several sets joined by ' + '. Labels are not used.")
    ] = "",
    epochs: Annotated[
        int,
        typer.Option(min=0, help="Of --activation: passes over --data in which the file's own answers are imitated."),
    ] = 0,
    repository: Annotated[
        Path | None, typer.Option("--model-repository", help="Write a model file for Triton into this folder instead.")
    ] = None,
    backend: Annotated[
        Literal["", "onnxruntime", "tensorrt", "openvino", "python"],
        typer.Option(help="Triton's; default: the file's."),
    ] = "",
    batch: Annotated[int, typer.Option(help="Triton: the largest batch.", min=1, max=256)] = 8,
    instances: Annotated[int, typer.Option(help="Triton: how many run at the same time.", min=1, max=64)] = 1,
    device: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Triton: where they run.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint or a foreign model as ONNX, or for Triton; checked."""
    from edge.errors import MissingError, UsageError
    from edge.packages.installed import add_extra

    if (target is None) == (repository is None):
        raise UsageError("expected either --out FILE.onnx or --model-repository DIR")
    if repository is not None:
        _write_repository(checkpoint, repository, (backend, batch, instances, device), as_json=as_json)
        return
    assert target is not None

    try:
        from export.to_onnx import export_checked
    except ModuleNotFoundError as error:
        raise MissingError(f"export needs {error.name}; run: {add_extra('train')}") from None

    if epochs and not activation:
        raise UsageError("--epochs is for --activation: passes in which a file's own answers are imitated")
    if (only or activation or data) and checkpoint.suffix != ".onnx":
        raise UsageError("--only, --activation and --data are for foreign ONNX files; a checkpoint is what it learned")
    if checkpoint.suffix == ".onnx":
        from export.data.open_data import open_dataset
        from export.training.checkpoint import save_checkpoint
        from export.transfer.convert import checkpoint_of

        fitted_on = open_dataset(data, "detect", on_error="skip") if data else None
        wanted = [name for name in only.split(",") if name]
        with StepBar("imitate") as bar:
            found = checkpoint_of(checkpoint, wanted, activation, fitted_on, epochs, step=bar.step)
        if activation:
            # what edge quantize --train-data and edge qat go on from
            save_checkpoint(found, target.with_suffix(".pt"))
        manifest, parity = export_checked(found, target, opset=opset, many=nms, score=score)
    else:
        manifest, parity = export_checked(checkpoint, target, opset=opset, many=nms, score=score)
    if as_json:
        print_json(
            {"model": str(target), "manifest": manifest.model_dump(by_alias=True), "max_error": parity.max_error}
        )
        return
    errors = ", ".join(f"{name} {error:.2g}" for name, error in parity.max_error.items())
    out.print(f"{target}  {target.stat().st_size / 1e6:.2f} MB  opset {opset}  largest difference to torch: {errors}")


def _write_repository(model: Path, folder: Path, options: tuple[str, int, int, str], *, as_json: bool) -> None:
    from export.repository import ServerOptions, write_repository

    backend, batch, instances, device = options
    chosen = ServerOptions(backend=backend, max_batch=batch, instances=instances, device=device)
    place = write_repository(model, folder, model.stem, chosen)
    if as_json:
        print_json({"model": model.stem, "folder": str(place)})
        return
    out.print(f"{place}: serve it with: tritonserver --model-repository={folder}")
