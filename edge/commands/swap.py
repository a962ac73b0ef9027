"""``edge swap``: let a running daemon change its model while the cameras go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import ModelError, UsageError

POLL_S = 0.3


def swap(
    model: Annotated[Path, typer.Argument(help="The new model file, in the folder of the one that runs.")],
    name: Annotated[str, typer.Option(help="Of the model in the configuration.")] = "model",
    url: Annotated[str, typer.Option(help="Of the running daemon.")] = "http://127.0.0.1:8080",
    token_file: Annotated[Path | None, typer.Option(help="File with the token that may operate.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Certificate that signs the daemon's.")] = None,
    renamed: Annotated[
        list[str] | None, typer.Option("--class", help="NEW=OLD where class names differ; NEW= leaves one out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a running daemon's model; back if anything fails."""
    from edge.commands.api_client import ApiClient

    pairs = [text.partition("=") for text in renamed or ()]
    if any(not found or not new for new, found, _ in pairs):
        raise UsageError("--class: expected NEW=OLD, as in --class automobile=car")
    client = ApiClient(url, token_file, ca_file)
    body = {"path": model.name, "classes": {new: old for new, _, old in pairs}}
    client.post(f"/api/models/{name}/swap", body)
    report = _wait(client, name)
    if as_json:
        print_json(report)
    elif report["outcome"] == "kept":
        agreement = report.get("agreement") or {}
        share = f", both agreed on {agreement['share']:.0%}" if agreement else ""
        speed = f"{report['old_ms']:.1f} → {report['new_ms']:.1f} ms per frame"
        out.print(f"{name} runs {model.name} now ({speed}{share})")
    if report["outcome"] != "kept":
        raise ModelError(f"{model.name} was {report['outcome']} in phase {report['phase']}: {report['reason']}")


def _wait(client: Any, name: str) -> dict[str, Any]:
    """Show the phases until the report is there."""
    shown = ""
    while True:
        state: dict[str, Any] = client.get(f"/api/models/{name}/swap")
        if state["report"] is not None:
            report: dict[str, Any] = state["report"]
            return report
        if state["phase"] != shown:
            shown = state["phase"]
            err.print(f"  {shown}")
        time.sleep(POLL_S)
