"""``edge demo``: the shipped model on the built-in street, or on a camera of one's own, with the live page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.commands.drawn import Lines, Zones, drawn
from edge.console import AsJson, out

SCENE = "synthetic://street?seed=7&fps=30&size=1280x720&objects=14&live=1"


def demo(
    source: Annotated[
        str, typer.Option("--source", "-s", help="The built-in scene, or a camera, file or address.")
    ] = SCENE,
    frames: Annotated[int | None, typer.Option(help="Stop after this many frames.")] = None,
    port: Annotated[int, typer.Option(help="Of the live page; 0 takes a free one.")] = 8080,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="Instead of the shipped model.")] = None,
    line: Lines = None,
    zone: Zones = None,
    as_json: AsJson = False,
) -> None:
    """Show a shipped model at work on a live page."""
    from edge.commands.run import run_and_tell
    from edge.config.load import config_from_arguments
    from edge.models.shipped import demo_model

    config = config_from_arguments(
        [source],
        model or demo_model(source),
        [f"http:{port}"],
        for_model={},
        for_stream={"name": "demo", "analytics": drawn(line, zone)},
    )
    run_and_tell(config, frames=frames, as_json=as_json, console=out, hint="  (Ctrl-C ends the demo)")
