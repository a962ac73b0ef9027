"""``edge explain``: where the time of a running daemon goes, what drops and why, what is the next bottleneck."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge.console import AsJson, out, print_json

COLOURS = {"ok": "green", "note": "cyan", "wrong": "red"}


def explain(
    url: Annotated[str, typer.Option(help="Of the running daemon.")] = "http://127.0.0.1:8080",
    token_file: Annotated[Path | None, typer.Option(help="File with the token of the API.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Certificate that signs the daemon's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say where a running daemon's time goes and what it drops."""
    from rich.text import Text

    from edge.commands.api_client import ApiClient
    from edge.diagnose.explain import explain as remarks_on

    remarks = remarks_on(ApiClient(url, token_file, ca_file).get("/api/stats"))
    if as_json:
        print_json([asdict(remark) for remark in remarks])
        return
    for remark in remarks:
        advice = f"  → {remark.advice}" if remark.advice else ""
        out.print(Text(f"{remark.topic:12}", COLOURS[remark.level]), f"{remark.text}{advice}")
