"""What each TensorRT takes: the table that the linter holds a Q/DQ model against.

Sources: NVIDIA's ONNX opset guide and migration pages, the onnx-tensorrt operator lists of 8.6 and 10.0, and parses and
builds with TensorRT for RTX 1.7; docs/int8.md says which of the rows were measured.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One TensorRT.

    Attributes:
        name: for people.
        min_opset, max_opset: that its parser takes.
        is_typed: precisions come from the graph alone; builder flags for FP16 and INT8 do not exist or must not be set.
        takes_codes: weights may be stored as int8 behind a DequantizeLinear, without a QuantizeLinear.
        refused_ops: operators that its parser or builder has no implementation for.
    """

    name: str
    min_opset: int
    max_opset: int
    is_typed: bool
    takes_codes: bool
    refused_ops: frozenset[str] = frozenset()


TARGETS: tuple[Target, ...] = (
    Target("tensorrt-8.6", 7, 17, False, False, frozenset({"GroupNormalization", "DeformConv", "MatMulInteger"})),
    Target("tensorrt-10.3", 9, 20, False, True),
    Target("tensorrt-10.13", 9, 22, True, True),
    Target("tensorrt-11", 9, 25, True, True),
    Target("tensorrt-rtx", 9, 25, True, True, frozenset({"NonMaxSuppression", "NonZero"})),
)


def target_named(name: str) -> Target | None:
    """The target of this name, None where there is none."""
    return next((target for target in TARGETS if target.name == name), None)
