"""Which precision each layer of a network has, told by its tensors' types.

The inspector of TensorRT would tell the chosen kernels, but needs the engine on a GPU; the types bind them all the same
in a strongly typed network. In a weakly typed one the builder may choose, and the report says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# they place, move or retype values; nothing of the network's arithmetic
SILENT_KINDS = frozenset(
    {"CONSTANT", "SHAPE", "QUANTIZE", "DEQUANTIZE", "CAST", "IDENTITY", "SHUFFLE", "SQUEEZE", "UNSQUEEZE", "ASSERTION"}
)
WEIGHTED_KINDS = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "FULLY_CONNECTED"})
SHORT = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "INT32": "int32", "INT64": "int64"}
FLOATS = ("fp32", "fp16")


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer.

    Attributes:
        kind: ``convolution``, ``activation``, …
        precision: ``int8`` where all its inputs come out of Q/DQ; else its type, or ``fp32|fp16`` where TensorRT may
            choose. ``tf32``: FP32 whose factors may be rounded to 10 bits, as Ampere and later GPUs multiply fastest.
    """

    name: str
    kind: str
    precision: str

    @property
    def is_weighted(self) -> bool:
        return self.kind.upper() in WEIGHTED_KINDS


def report_layers(network: Any, flags: Sequence[str], *, has_tf32: bool = False) -> tuple[LayerReport, ...]:
    """All layers that compute, in the network's order."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
    may_choose = "FP16" in flags
    return tuple(
        LayerReport(layer.name, _kind(layer).lower(), _precision(layer, makers, may_choose, has_tf32))
        for layer in layers
        if _kind(layer) not in SILENT_KINDS and not _is_shape_arithmetic(layer)
    )


def count_precisions(layers: Sequence[LayerReport]) -> dict[str, int]:
    """How many of the layers with weights have which precision, most frequent first."""
    return dict(Counter(layer.precision for layer in layers if layer.is_weighted).most_common())


def _precision(layer: Any, makers: Mapping[str, Any], may_choose: bool, has_tf32: bool) -> str:
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    sources = [makers.get(tensor.name) for tensor in inputs if tensor is not None]
    real = [source for source in sources if source is None or _kind(source) != "CONSTANT"]
    if real and _kind(layer) in WEIGHTED_KINDS and all(source is not None and _is_int8(source) for source in real):
        return "int8"
    found = _type(layer.get_output(0))
    if found == "fp32" and may_choose:
        return "|".join(FLOATS)
    return "tf32" if found == "fp32" and has_tf32 and _kind(layer) in WEIGHTED_KINDS else found


def _is_int8(maker: Any) -> bool:
    return _kind(maker) == "DEQUANTIZE" and _type(maker.get_input(0)) == "int8"


def _is_shape_arithmetic(layer: Any) -> bool:
    return _type(layer.get_output(0)) == "int64" and layer.name.startswith("ONNXTRT_")


def _kind(layer: Any) -> str:
    return str(layer.type).rpartition(".")[2]


def _type(tensor: Any) -> str:
    name = str(tensor.dtype).rpartition(".")[2]
    return SHORT.get(name, name.lower())
