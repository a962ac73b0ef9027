"""Judges any Q/DQ ONNX file: will each TensorRT parse it, and will it be fast, layer by layer. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from onnx import ModelProto

from export.lint.graph import QdqGraph, Weighted
from export.lint.parse import parse_findings
from export.lint.speed import speed_findings
from export.lint.targets import TARGETS, Target

Severity: TypeAlias = Literal["refused", "slow", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know.

    Attributes:
        rule: short name, stable.
        severity: ``refused`` by the parser or builder, ``slow``, or a ``note``.
        node: name of the node, "" for the whole file.
        message: what was found and what to do.
        targets: for which TensorRTs.
    """

    rule: str
    severity: Severity
    node: str
    message: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LayerVerdict:
    """How a layer will run. Attributes: ``precision`` ``int8``, ``fp16`` or ``fp32``; ``reason`` why not INT8."""

    key: str
    op: str
    precision: str
    reason: str


@dataclass(frozen=True, slots=True)
class LintReport:
    """Everything about one file. ``accepted`` holds target name → whether no rule refuses the file."""

    opset: int
    accepted: dict[str, bool]
    findings: tuple[Finding, ...]
    layers: tuple[LayerVerdict, ...]

    @property
    def num_int8(self) -> int:
        return sum(layer.precision == "int8" for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "num_int8": self.num_int8, "num_layers": len(self.layers)}


def lint(model: ModelProto, targets: Sequence[Target] = TARGETS) -> LintReport:
    """Hold a model against the rules of these TensorRTs."""
    graph = QdqGraph(model)
    findings: dict[tuple[str, str, str, Severity], list[str]] = {}
    for target in targets:
        for rule, node, message in parse_findings(graph, target):
            findings.setdefault((rule, node, message, "refused"), []).append(target.name)
        for rule, node, message in speed_findings(graph, target):
            severity: Severity = "note" if rule.endswith("-note") else "slow"
            findings.setdefault((rule, node, message, severity), []).append(target.name)
    listed = tuple(
        Finding(rule, severity, node, message, tuple(names))
        for (rule, node, message, severity), names in findings.items()
    )
    refused = {name for finding in listed if finding.severity == "refused" for name in finding.targets}
    return LintReport(
        opset=graph.opset,
        accepted={target.name: target.name not in refused for target in targets},
        findings=listed,
        layers=tuple(_verdict(graph, layer) for layer in graph.layers),
    )


def _verdict(graph: QdqGraph, layer: Weighted) -> LayerVerdict:
    if layer.has_int8_input and layer.has_int8_weight:
        return LayerVerdict(layer.key, layer.op, "int8", "")
    precision = "fp16" if graph.is_half(layer) else "fp32"
    if layer.has_int8_input:
        reason = "its weight is float"
    elif layer.has_int8_weight:
        reason = "its input is float"
    else:
        reason = "neither input nor weight is quantized"
    return LayerVerdict(layer.key, layer.op, precision, reason)
