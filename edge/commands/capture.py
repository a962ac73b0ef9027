"""``edge capture``: keep what the cameras give, without loss, so that a run can be repeated exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import UsageError


def capture(
    folder: Annotated[Path, typer.Argument(help="A new folder for the capture.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="A TOML file: all of its streams.")] = None,
    source: Annotated[list[str] | None, typer.Option("--source", "-s", help="Sources instead of a file.")] = None,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="The model that a replay shall run.")] = None,
    seconds: Annotated[float, typer.Option(help="For how long.")] = 30.0,
    raw: Annotated[bool, typer.Option("--raw", help="Lossless pictures and their times (the only kind).")] = True,
    as_json: AsJson = False,
) -> None:
    """Keep raw pictures with their times, for edge replay."""
    from edge.config.load import config_from_arguments, load_config
    from edge.daemon.credentials import with_secrets
    from edge.pipeline.replay import capture as capture_streams

    if (config is None) == (source is None) or not raw:
        raise UsageError("expected either --config or --source with --model; run: edge capture --help")
    if config is not None:
        loaded = load_config(config)
    elif model is None:
        raise UsageError("--source needs --model, which a replay will run")
    else:
        loaded = config_from_arguments(source or [], model.absolute(), [], for_model={}, for_stream={})
    loaded = with_secrets(loaded)
    err.print(f"capturing {len(loaded.streams)} streams for at most {seconds:g} s …")
    counts = capture_streams(loaded, folder, seconds)
    if as_json:
        print_json(counts)
        return
    for name, count in counts.items():
        out.print(f"  {name:20} {count} pictures")
