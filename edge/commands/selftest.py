"""``edge selftest``: does this machine keep what is guaranteed, with cameras that break in every way there is?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from edge.console import AsJson, err, out, print_json
from edge.errors import EdgeError, UsageError


def selftest(
    chaos: Annotated[bool, typer.Option("--chaos", help="Drills with faulty cameras: the only ones.")] = True,
    fault: Annotated[list[str] | None, typer.Option(help="Only this fault, such as half-open; again for more.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each fault lasts.")] = 4.0,
    as_json: AsJson = False,
) -> None:
    """Try this machine against cameras with scripted faults."""
    from edge.chaos.camera import FAULTS
    from edge.chaos.drills import Verdict, run_drills

    fault = [name.replace("-", "_") for name in fault or []]
    unknown = [name for name in fault or [] if name not in FAULTS]
    if unknown or seconds < 1:
        raise UsageError(
            f"--fault {', '.join(unknown)} --seconds {seconds:g}: expected at least 1 s and some of: "
            f"{', '.join(FAULTS)}"
        )
    chosen = [name for name in FAULTS if not fault or name in fault]

    def show(verdict: Verdict) -> None:
        if not as_json:
            mark = Text("pass", "green") if verdict.has_passed else Text("FAIL", "red")
            numbers = ", ".join(str(number) for number in verdict.guarantees)
            out.print(mark, f" {verdict.drill:16} guarantee {numbers:8} {_figures(verdict.figures)}")
            for failure in verdict.failures:
                out.print(f"      {failure}")

    err.print(f"{len(chosen) + 3} drills, about {len(chosen) * (seconds + 2) + 15:.0f} s …")
    verdicts = run_drills(chosen, seconds=seconds, on_verdict=show)
    if as_json:
        print_json([{**asdict(verdict), "passed": verdict.has_passed} for verdict in verdicts])
    failed = [verdict.drill for verdict in verdicts if not verdict.has_passed]
    if failed:
        raise EdgeError(f"{len(failed)} of {len(verdicts)} drills failed: {', '.join(failed)}")


def _figures(figures: dict[str, object]) -> str:
    return "  ".join(f"{name} {value}" for name, value in figures.items())
