"""Which kernel of ``kernels.cu`` to start with which grid and arguments: pure arithmetic, tested on the CPU.

The dtypes are the argument structs of ``kernels.cu`` as numpy sees them (same fields and order, C alignment).
Letters: B images, N boxes, H W frame pixels, h w model pixels. Addresses are those of the device's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from edge.pictures.colour import WEIGHTS
from edge.pictures.planes import Colour

if TYPE_CHECKING:
    from edge.models.manifest import InputSpec
    from edge.types import Array, Letterbox

TILE = 16
LINE = 128
WORD_BITS = 64


# frames of one launch: their arguments go by value, and a launch takes 4096 bytes of them
FRAMES = 16
FIXED_POINT = 1 << 20
BT601 = Colour()


def _struct(addresses: str, floats: str, integers: str, vectors: str = "") -> np.dtype[np.void]:
    fields: list[tuple[str, type] | tuple[str, type, int]] = [(name, np.uint64) for name in addresses.split()]
    fields += [(name, np.float32) for name in floats.split()]
    fields += [(name, np.int32) for name in integers.split()]
    fields += [(name, np.float32, 3) for name in vectors.split()]
    return np.dtype(fields, align=True)


FRAME = _struct(
    "image blue red out",
    "",
    "stride chroma_stride chroma_step width height left top inner_width inner_height pixels "
    "luma_offset luma u_blue u_green v_green v_red",
)
LETTERBOX = np.dtype(
    [
        ("frames", FRAME, FRAMES),
        ("out_width", np.int32),
        ("out_height", np.int32),
        ("pad", np.int32),
        ("output", np.int32),
        ("swap", np.int32),
        ("pixel_step", np.int32),
        ("channel_step", np.int32),
        ("mean", np.float32, 3),
        ("scale", np.float32, 3),
    ],
    align=True,
)
OUTPUTS = {"uint8": 0, "float32": 1, "float16": 2}
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


@lru_cache(maxsize=8)
def factors_of(colour: Colour) -> tuple[int, ...]:
    """Offset and factor of luma; factors of U to blue, U to green, V to green, V to red; in 20-bit fixed point."""
    red, blue = WEIGHTS[colour.matrix]
    green = 1 - red - blue
    luma, chroma = (1.0, 1.0) if colour.is_full else (255 / 219, 255 / 224)
    to_blue, to_red = 2 * (1 - blue) * chroma, 2 * (1 - red) * chroma
    factors = (luma, to_blue, -to_blue * blue / green, -to_red * red / green, to_red)
    return (colour.black, *(round(factor * FIXED_POINT) for factor in factors))


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame in the device's memory.

    Attributes:
        image: address of (H, W, 3) BGR bytes, or of the (H, W) luma of YUV.
        stride: bytes from one row to the next.
        blue, red: addresses of the differences U and V, one for each 2x2 pixels; 0 for BGR.
        chroma_stride: bytes from one row of U to the next.
        chroma_step: bytes from one U to the next: 1 for planes of their own (I420), 2 for pairs (NV12).
        colour: of YUV, None for BGR.
    """

    image: int
    stride: int
    blue: int = 0
    red: int = 0
    chroma_stride: int = 0
    chroma_step: int = 0
    colour: Colour | None = None

    @staticmethod
    def nv12(image: int, stride: int, pairs: int, pairs_stride: int, colour: Colour = BT601) -> Picture:
        """Luma, and the (H/2, W/2, 2) plane of U V pairs."""
        return Picture(image, stride, pairs, pairs + 1, pairs_stride, 2, colour)

    @staticmethod
    def i420(image: int, stride: int, blue: int, red: int, chroma_stride: int, colour: Colour = BT601) -> Picture:
        """Luma, and the planes of U and V, each (ceil(H/2), ceil(W/2))."""
        return Picture(image, stride, blue, red, chroma_stride, 1, colour)


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


def can_letterbox(spec: InputSpec) -> bool:
    """Whether the kernel writes this kind of input."""
    if spec.is_cut or spec.interpolation != "bilinear":
        return False
    return spec.dtype != "uint8" or (spec.layout, spec.colour) == ("nhwc", "bgr")


def letterboxes(spec: InputSpec, frames: Sequence[tuple[Letterbox, Picture]], out: int) -> list[Launch]:
    """Resize frames into the first rows of the model's input, with their padding: one launch for 16 frames.

    Args:
        spec: see ``can_letterbox``.
        frames: where each lies in the model's input (``edge.models.preprocess.fit``), and where in memory.
        out: address of the first row.
    """
    if not can_letterbox(spec):
        raise ValueError(f"no kernel writes {spec.dtype} {spec.layout} {spec.colour} ({spec.resize})")
    row_bytes = spec.width * spec.height * 3 * np.dtype(spec.dtype).itemsize
    across, down, _ = _tiles(spec.width, spec.height)
    launches = []
    for start in range(0, len(frames), FRAMES):
        some = frames[start : start + FRAMES]
        arguments = _common(spec)
        for place, (box, picture) in enumerate(some):
            arguments["frames"][place] = _frame(box, picture, out + (start + place) * row_bytes)
        launches.append(Launch("letterbox", (across, down, len(some)), (TILE, TILE, 1), arguments))
    return launches


def _common(spec: InputSpec) -> Array:
    """The arguments that all frames share; the frames are still zeros."""
    arguments = np.zeros((), LETTERBOX)
    is_last = spec.layout == "nhwc"
    values = {
        "out_width": spec.width,
        "out_height": spec.height,
        "pad": spec.pad,
        "output": OUTPUTS[spec.dtype],
        "swap": int(spec.colour == "rgb"),
        "pixel_step": 3 if is_last else 1,
        "channel_step": 1 if is_last else spec.width * spec.height,
        "mean": spec.mean,
        "scale": [1 / std for std in spec.std],
    }
    for name, value in values.items():
        arguments[name] = value
    return arguments


def _frame(box: Letterbox, picture: Picture, out: int) -> tuple[int, ...]:
    """The fields of FRAME, in order."""
    size = (box.frame_width, box.frame_height, int(box.pad_x), int(box.pad_y))
    inner = max(1, round(box.frame_width * box.scale_x)), max(1, round(box.frame_height * box.scale_y))
    factors = (0,) * 6 if picture.colour is None else factors_of(picture.colour)
    strides = (picture.stride, picture.chroma_stride, picture.chroma_step)
    addresses = (picture.image, picture.blue, picture.red, out)
    return (*addresses, *strides, *size, *inner, int(picture.colour is not None), *factors)


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
