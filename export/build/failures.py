"""Why a build failed, as one sentence: which layer, and what to try."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge.engines.trt.api import TensorRt

# first match wins; phrases as TensorRT 8.6 to 11 and TensorRT for RTX log them
ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"out ?of ?memory|OutOfMemory|cudaErrorMemoryAllocation|bad_alloc|std::bad_alloc",
        "not enough memory; close other programs, or try a smaller --batch, --workspace-mb or --optimization-level",
    ),
    (
        r"within workspace limit|insufficient workspace|workspace",
        "no kernel fits into the workspace; raise --workspace-mb or leave it out",
    ),
    (
        r"no runners that implement|[Cc]ould not find any implementation|no implementation",
        "no kernel computes this layer in these types; export it another way, or keep it out of INT8 "
        "(edge quantize --float-layer)",
    ),
    (r"optimization profile", "the input's size is not fixed; add --batch"),
    (r"non-?zero zero.?point|[Ii]nt32", "TensorRT takes symmetric INT8 and float biases only; run: edge quantize"),
    (r"CUDA_SUCCESS|cuda error|Cuda Runtime", "the GPU is missing or failed; run: edge doctor"),
)
LAYER_PATTERNS = (
    r"[Cc]ould not find any implementation for node (?P<layer>.+?)\.?(?: due to|\)| In |$)",
    r"(?P<layer>[^\s()]+) has no runners",
    r"(?:node|layer) ['\"\[{](?P<layer>[^'\"\]}]+)['\"\]}]",
)


def explain(model: str, api: TensorRt, layers: Sequence[str]) -> str:
    """One sentence from what TensorRT logged.

    Args:
        model: name of the ONNX file.
        layers: names of the network's layers, to recognise one in the messages.
    """
    text = " ".join(api.messages) or "TensorRT says nothing"
    advice = next((advice for pattern, advice in ADVICE if re.search(pattern, text)), "run again with --debug")
    layer = find_layer(text, layers)
    where = f" at layer {layer!r}" if layer else ""
    return f"{model}: {api.title} could not build it{where}: {advice} ({_short(text)})"


def find_layer(text: str, layers: Sequence[str]) -> str | None:
    """The layer that a message speaks of, None where it names none."""
    for pattern in LAYER_PATTERNS:
        match = re.search(pattern, text)
        if match is not None:
            found = match["layer"].strip()
            # the builder numbers the pieces of a layer: head.nms_0 is of head.nms
            origin = [name for name in layers if found == name or found.startswith(f"{name}_")]
            return max(origin, key=len) if origin else found
    named = [name for name in layers if len(name) > 3 and re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text)]
    return named[0] if named else None


def _short(text: str) -> str:
    match = re.search(r"Error Code \d+: (?P<what>.+)", text)
    return (match["what"] if match else text)[:160].rstrip()
