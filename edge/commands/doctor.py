"""``edge doctor``: is this machine ready, and if not, what to run."""

from __future__ import annotations

from dataclasses import asdict

from edge.console import AsJson, out, print_json
from edge.errors import MissingError

NEEDED = ("numpy", "opencv", "onnxruntime", "av")


def doctor(as_json: AsJson = False) -> None:
    """Report what this machine has and lacks, and how to get it."""
    from rich.markup import escape

    from edge.diagnose.doctor import examine

    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        marks = {"ok": "[green]ok[/green]     ", "missing": "[yellow]missing[/yellow]", "wrong": "[red]wrong[/red]  "}
        for finding in findings:
            advice = escape(finding.advice)
            out.print(f"{marks[finding.level]}  {finding.topic:24} {escape(finding.found)}  [dim]{advice}[/dim]")
    lacking = [finding for finding in findings if finding.level != "ok" and finding.topic in NEEDED]
    if lacking:
        raise MissingError(f"{lacking[0].topic} is {lacking[0].found}; run: {lacking[0].advice}")
