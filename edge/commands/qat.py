"""``edge qat``: fine-tune a checkpoint with INT8 rounding in place, where calibration alone costs too much."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.commands.labelled import labelled
from edge.commands.step_bar import StepBar
from edge.console import AsJson, out, print_json
from edge.errors import UsageError


def qat(
    checkpoint: Annotated[Path, typer.Argument(help="Of edge train.", show_default=False)],
    model: Annotated[Path, typer.Option(help="The float ONNX file exported from it.", show_default=False)],
    data: Annotated[str, typer.Option(help="Labelled data set to learn from.", show_default=False)],
    ranges: Annotated[Path | None, typer.Option(help="From edge calibrate; default MODEL.ranges.json.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data set.")] = 5,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate at the start.")] = 1e-4,
    method: Annotated[str, typer.Option(help="Clip method whose ranges the network learns to live with.")] = "average",
    flavour: Annotated[str, typer.Option(help="fp32 or fp16 (signed codes), cpu (unsigned codes).")] = "fp32",
    out_path: Annotated[Path | None, typer.Option("--out", help="Default CHECKPOINT-qat.pt.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a checkpoint for INT8."""
    from calib.clipping import METHODS
    from calib.ranges import load_table
    from export.training.qat import QatOptions, fine_tune

    if method not in METHODS:
        raise UsageError(f"--method: expected one of {', '.join(METHODS)}, found {method!r}")
    if flavour not in ("fp32", "fp16", "cpu"):
        raise UsageError(f"--flavour: expected fp32, fp16 or cpu, found {flavour!r}")
    table = load_table(ranges or model.with_suffix(".ranges.json"))
    options = QatOptions(epochs=epochs, lr=lr, method=method, is_unsigned=flavour == "cpu")
    destination = out_path or checkpoint.with_name(f"{checkpoint.stem}-qat.pt")
    with StepBar("fine-tune") as bar:
        fine_tune(checkpoint, model, table, labelled(model, data, "skip"), destination, options, step=bar.step)
    losses = bar.losses
    if as_json:
        print_json(
            {"checkpoint": str(destination), "steps": len(losses), "first_loss": losses[0], "last_loss": losses[-1]}
        )
        return
    out.print(f"{destination}: {len(losses)} steps; next: edge export {destination}, then calibrate and quantize it")
