"""Which kernel of ``kernels.cu`` to start with which grid and arguments: pure arithmetic, tested on the CPU.

The dtypes are the argument structs of ``kernels.cu`` as numpy sees them (same fields and order, C alignment).
Letters: B images, N boxes, H W frame pixels, h w model pixels. Addresses are those of the device's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from edge.models.manifest import InputSpec
    from edge.types import Array, Letterbox

TILE = 16
LINE = 128
WORD_BITS = 64


def _struct(addresses: str, floats: str, integers: str, vectors: str = "") -> np.dtype[np.void]:
    fields: list[tuple[str, type] | tuple[str, type, int]] = [(name, np.uint64) for name in addresses.split()]
    fields += [(name, np.float32) for name in floats.split()]
    fields += [(name, np.int32) for name in integers.split()]
    fields += [(name, np.float32, 3) for name in vectors.split()]
    return np.dtype(fields, align=True)


LETTERBOX = _struct(
    "image chroma out",
    "",
    "stride chroma_stride width height out_width out_height left top inner_width inner_height pad pixels output swap",
    "mean scale",
)
NMS = _struct(
    "xyxy score class_id order overlaps keep count",
    "threshold",
    "images num words",
)


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel start. Attributes: ``arguments``: the kernel's struct, 0-d structured array."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: Array


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame in the device's memory.

    Attributes:
        image: address of (H, W, 3) BGR bytes, or of the (H, W) luma of NV12.
        stride: bytes from one row to the next.
        chroma, chroma_stride: the (H/2, W/2, 2) U V plane of NV12, 0 for BGR.
    """

    image: int
    stride: int
    chroma: int = 0
    chroma_stride: int = 0


@dataclass(frozen=True, slots=True)
class NmsMemory:
    """Addresses that NMS works on; allocate once with ``nms_bytes``.

    Attributes:
        xyxy: (B, N, 4) float32 boxes.
        score: (B, N) float32.
        class_id: (B, N) int32, or 0 where all boxes compete.
        keep: (B, N) int32 out, kept indices, highest score first.
        count: (B,) int32 out, how many were kept.
        order, overlaps: scratch.
    """

    xyxy: int
    score: int
    class_id: int
    order: int
    overlaps: int
    keep: int
    count: int


def nms_bytes(images: int, num: int) -> dict[str, int]:
    """Bytes of every output and scratch array of ``NmsMemory``."""
    cells = images * num * 4
    return {
        "order": cells,
        "overlaps": images * num * _words(num) * 8,
        "keep": cells,
        "count": images * 4,
    }


def letterbox(
    spec: InputSpec, box: Letterbox, picture: Picture, out: int, pixels: Literal["bgr", "nv12"] = "bgr"
) -> Launch:
    """Resize a frame into one row of the model's input, with its padding.

    Args:
        spec: uint8 NHWC BGR, or float32 NCHW.
        box: from ``edge.models.preprocess.fit``.
        out: address of this frame's (h, w, 3) or (3, h, w).
    """
    as_bytes = (spec.dtype, spec.layout, spec.colour) == ("uint8", "nhwc", "bgr")
    if not as_bytes and (spec.dtype, spec.layout) != ("float32", "nchw"):
        raise ValueError(f"no kernel writes {spec.dtype} {spec.layout} {spec.colour}")
    arguments = np.zeros((), LETTERBOX)
    values = {
        "image": picture.image,
        "chroma": picture.chroma,
        "out": out,
        "stride": picture.stride,
        "chroma_stride": picture.chroma_stride,
        "width": box.frame_width,
        "height": box.frame_height,
        "out_width": box.model_width,
        "out_height": box.model_height,
        "left": int(box.pad_x),
        "top": int(box.pad_y),
        "inner_width": max(1, round(box.frame_width * box.scale_x)),
        "inner_height": max(1, round(box.frame_height * box.scale_y)),
        "pad": spec.pad,
        "pixels": int(pixels == "nv12"),
        "output": int(not as_bytes),
        "swap": int(spec.colour == "rgb"),
        "mean": spec.mean,
        "scale": [1 / std for std in spec.std],
    }
    for name, value in values.items():
        arguments[name] = value
    return Launch("letterbox", _tiles(box.model_width, box.model_height), (TILE, TILE, 1), arguments)


def greedy_nms(memory: NmsMemory, images: int, num: int, threshold: float) -> Sequence[Launch]:
    """As ``edge.boxes.nms`` for B images of N boxes, within classes where there are any."""
    arguments = _nms_arguments(memory, images, num, threshold)
    lines = -(-num // LINE)
    begin = Launch("nms_begin", (max(lines, 1), images, 1), (LINE, 1, 1), arguments)
    if num == 0:
        return (begin,)
    return (
        begin,
        Launch("nms_rank", (lines, images, 1), (LINE, 1, 1), arguments),
        Launch("nms_overlaps", (lines, _words(num), images), (LINE, 1, 1), arguments),
        Launch("nms_greedy", (-(-images // 32), 1, 1), (32, 1, 1), arguments),
    )


def silence_doubles(memory: NmsMemory, images: int, num: int) -> Launch:
    """After ``greedy_nms``: set the scores of the boxes that it did not keep to 0, in place; NaN stays NaN."""
    arguments = _nms_arguments(memory, images, num)
    return Launch("nms_silence", (max(-(-num // LINE), 1), images, 1), (LINE, 1, 1), arguments)


def _nms_arguments(memory: NmsMemory, images: int, num: int, threshold: float = 0.0) -> Array:
    arguments = np.zeros((), NMS)
    for name in ("xyxy", "score", "class_id", "order", "overlaps", "keep", "count"):
        arguments[name] = getattr(memory, name)
    arguments["threshold"], arguments["images"] = threshold, images
    arguments["num"], arguments["words"] = num, _words(num)
    return arguments


def _words(num: int) -> int:
    return -(-num // WORD_BITS)


def _tiles(width: int, height: int) -> tuple[int, int, int]:
    return (-(-width // TILE), -(-height // TILE), 1)
