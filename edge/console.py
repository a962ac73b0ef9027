"""How commands talk: results to standard output (text or JSON), everything else to standard error."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from edge.addresses.printable import printable
from edge.addresses.secrets import redacted_value


class PlainConsole(Console):
    """Prints the names of strangers as they are: no markup, and nothing that moves the cursor."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **{**options, "markup": False})


# soft_wrap: a line stays a line when the output is read by a program
out = PlainConsole(highlight=False, soft_wrap=True)
err = PlainConsole(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def timed_bar(text: str, seconds: float) -> Iterator[None]:
    """A bar on a terminal for work that takes about so long."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    done, started_s = threading.Event(), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        bar = bars.add_task(text, total=seconds)

        def move() -> None:
            while not done.wait(0.2):
                bars.update(bar, completed=min(time.monotonic() - started_s, seconds))

        mover = threading.Thread(target=move, name="bar", daemon=True)
        mover.start()
        try:
            yield
        finally:
            done.set()
            mover.join()


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def print_json(value: Any) -> None:
    """Print a JSON value, indented, without colours and secrets."""
    typer.echo(json.dumps(redacted_value(value), indent=2, default=str))
