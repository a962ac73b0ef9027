"""``edge replay``: run a raw capture again; the same capture and model give the same bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from edge.console import AsJson, out, print_json


def replay(
    folder: Annotated[Path, typer.Argument(help="A folder made by: edge capture.")],
    jsonl: Annotated[Path, typer.Option("--out", "-o", help="Where the results go.")],
    model: Annotated[Path | None, typer.Option("--model", "-m", help="Another model than the recorded one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a capture again: the same JSONL, byte for byte."""
    from edge.files import atomic_path
    from edge.pipeline.replay import replay as replay_capture

    digest = hashlib.sha256()
    with atomic_path(jsonl) as temporary, temporary.open("wb") as file:

        def write(line: bytes) -> None:
            file.write(line)
            digest.update(line)

        count = replay_capture(folder, write, model)
    if as_json:
        print_json({"frames": count, "sha256": digest.hexdigest()})
    else:
        out.print(f"{count} frames, sha256 {digest.hexdigest()}")
