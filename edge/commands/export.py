"""``edge export``: a checkpoint becomes an ONNX file with its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.console import AsJson, out, print_json


def export(
    checkpoint: Annotated[Path, typer.Argument(help="best.pt of a run folder.")],
    target: Annotated[Path, typer.Option("--out", help="The ONNX file to write.")],
    opset: Annotated[int, typer.Option(help="17 for TensorRT 8.6, 20 otherwise.")] = 20,
    nms: Annotated[bool | None, typer.Option("--nms/--no-nms", help="Export the branch that needs NMS.")] = None,
    score: Annotated[float | None, typer.Option(min=0, max=1, help="Least score that is shown; kept with it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint as ONNX, checked against torch."""
    from edge.errors import MissingError
    from edge.packages.installed import add_extra

    try:
        from export.to_onnx import export_checked
    except ModuleNotFoundError as error:
        raise MissingError(f"export needs {error.name}; run: {add_extra('train')}") from None

    manifest, parity = export_checked(checkpoint, target, opset=opset, many=nms, score=score)
    if as_json:
        print_json(
            {"model": str(target), "manifest": manifest.model_dump(by_alias=True), "max_error": parity.max_error}
        )
        return
    errors = ", ".join(f"{name} {error:.2g}" for name, error in parity.max_error.items())
    out.print(f"{target}  {target.stat().st_size / 1e6:.2f} MB  opset {opset}  largest difference to torch: {errors}")
