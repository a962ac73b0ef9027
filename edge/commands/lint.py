"""``edge lint``: whether each TensorRT will take a Q/DQ ONNX file, and how each layer will run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.console import AsJson, out, print_json
from edge.errors import ModelError, UsageError

if TYPE_CHECKING:
    from export.lint.lint import LintReport


def lint(
    model: Annotated[Path, typer.Argument(help="The ONNX file.", show_default=False)],
    target: Annotated[str, typer.Option(help="Fail unless this TensorRT takes it, as tensorrt-10.3.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check a Q/DQ model against TensorRT's rules, by layer."""
    from edge.models.onnx_graph import load_onnx
    from export.lint.lint import lint as check
    from export.lint.targets import TARGETS, target_named

    if target and target_named(target) is None:
        known = ", ".join(item.name for item in TARGETS)
        raise UsageError(f"--target: expected one of {known}, found {target!r}")
    report = check(load_onnx(model))
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)
    if target and not report.accepted[target]:
        raise ModelError(f"{model}: {target} will not take it; the findings above say why")


def _show(report: LintReport) -> None:
    from rich.table import Table

    table = Table("layer", "operator", "runs in", "why", box=None, pad_edge=False)
    for layer in report.layers:
        table.add_row(layer.key, layer.op, layer.precision, layer.reason)
    out.print(table)
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for finding in report.findings:
        key = (finding.severity, finding.rule, finding.message, ", ".join(finding.targets))
        groups.setdefault(key, []).append(finding.node)
    for (severity, rule, message, targets), nodes in groups.items():
        places = f"{nodes[0]}: " if nodes[0] else ""
        more = f" (and {len(nodes) - 1} more nodes)" if len(nodes) > 1 else ""
        out.print(f"{severity} ({rule}) {places}{message}{more} [{targets}]", markup=False)
    for name, is_accepted in report.accepted.items():
        out.print(f"{name}: {'takes it' if is_accepted else 'refuses it'}")
    out.print(f"{report.num_int8} of {len(report.layers)} layers run in INT8, opset {report.opset}")
