"""``edge doctor``: is this machine ready, and if not, what to run."""

from __future__ import annotations

from dataclasses import asdict

from edge.console import AsJson, out, print_json
from edge.errors import MissingError

NEEDED = ("numpy", "opencv", "onnxruntime", "av")


def doctor(as_json: AsJson = False) -> None:
    """Report what this machine has and lacks, and how to get it."""
    from rich.text import Text

    from edge.diagnose.doctor import examine

    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        colours = {"ok": "green", "missing": "yellow", "wrong": "red"}
        for finding in findings:
            mark = Text(f"{finding.level:7}", colours[finding.level])
            out.print(mark, f" {finding.topic:24} {finding.found} ", Text(finding.advice, "dim"))
    lacking = [finding for finding in findings if finding.level != "ok" and finding.topic in NEEDED]
    if lacking:
        raise MissingError(f"{lacking[0].topic} is {lacking[0].found}; run: {lacking[0].advice}")
