"""How commands talk: results to standard output (text or JSON), everything else to standard error."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from edge.addresses.secrets import redacted_value

# soft_wrap: a line stays a line when the output is read by a program
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def print_json(value: Any) -> None:
    """Print a JSON value, indented, without colours and secrets."""
    typer.echo(json.dumps(redacted_value(value), indent=2, default=str))
