"""What viewers of a stream want, and the pictures that are made of one frame for them: each once, and only if wanted.

Shape letters: H W frame pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2

from edge.errors import SinkError
from edge.types import UInt8

if TYPE_CHECKING:
    from edge.pictures.planes import Planes

JPEG_QUALITY = 80
# a time that does not come
NEVER_NS = 2**63 - 1
# in place of a width: the annotated picture in its own size
DRAWN = 0
# of the places that plain pictures are shown in: together they have less than twice the pixels of the largest
WIDTHS = (320, 480, 640, 960, 1280, 1920)
# a picture is made smaller by whole numbers, which takes a tenth of the time that others do and is sharper
DIVISORS = (6, 4, 3, 2, 1)
# so much narrower than its place a picture may be
LEAST_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Demand:
    """What the viewers of a stream want.

    Attributes:
        num_viewers: how many there are.
        next_jpeg_ns: when the next annotated JPEG is due, monotonic.
        wants_video, wants_plain_video: whether some take annotated pictures, or plain ones, as video.
        draws_all: whether some draw every result for themselves.
        plain_ns: when the next plain JPEG is due, by the width of the place that it is shown in.
    """

    num_viewers: int = 0
    next_jpeg_ns: int = NEVER_NS
    wants_video: bool = False
    wants_plain_video: bool = False
    draws_all: bool = False
    plain_ns: Mapping[int, int] = field(default_factory=dict)

    def is_due(self, now_ns: int) -> bool:
        """Whether some viewer would take an annotated JPEG now."""
        return now_ns >= self.next_jpeg_ns

    def due_widths(self, now_ns: int) -> list[int]:
        """In which widths some viewer would take a plain JPEG now."""
        return [width for width, next_ns in self.plain_ns.items() if now_ns >= next_ns]

    def wants_picture(self, now_ns: int) -> bool:
        """Whether some viewer would take any picture now."""
        return self.wants_video or self.wants_plain_video or self.is_due(now_ns) or bool(self.due_widths(now_ns))


@dataclass(frozen=True, slots=True)
class Plain:
    """For those who draw for themselves: the picture as it is, and the JSON line with all that is to be drawn."""

    planes: Planes
    marks: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of one frame.

    Attributes:
        jpegs: by the width of the place that they are shown in, ``DRAWN`` for the annotated one.
        marks: the line for those who draw for themselves; empty where nobody does.
        video: the annotated (H, W, 3) uint8 BGR picture for video, None where nobody wants it.
        plain_video: the plain one.
        num_encoded: JPEGs that were made: places of about one size share theirs.
    """

    jpegs: Mapping[int, bytes] = field(default_factory=dict)
    marks: bytes = b""
    video: UInt8 | None = None
    plain_video: Planes | None = None
    num_encoded: int = 0


NOBODY = Demand()
NOTHING = Made()


def make(
    demand: Demand, now_ns: int, picture: Callable[[], UInt8] | None, plain: Plain | None, quality: int = JPEG_QUALITY
) -> Made:
    """What viewers want of one frame now. See ``LiveBoard.publish``.

    Raises:
        SinkError: the picture cannot be encoded as JPEG.
    """
    if not demand.num_viewers:
        return NOTHING
    due = demand.due_widths(now_ns)
    # who cannot have it plain gets it as everybody else does
    is_due = demand.is_due(now_ns) or (plain is None and bool(due))
    wants_video = demand.wants_video or (plain is None and demand.wants_plain_video)
    image = picture() if picture is not None and (is_due or wants_video) else None
    jpegs = {DRAWN: encode_jpeg(image, quality)} if image is not None and is_due else {}
    num_encoded = len(jpegs)
    if plain is None:
        jpegs |= dict.fromkeys(due, jpegs[DRAWN]) if jpegs else {}
        return Made(jpegs, b"", image if wants_video else None, None, num_encoded)
    sizes = {width: divisor_for(width, plain.planes.width) for width in due}
    made = {divisor: encode_jpeg(smaller(plain.planes, divisor).bgr, quality) for divisor in set(sizes.values())}
    jpegs |= {width: made[divisor] for width, divisor in sizes.items()}
    marks = plain.marks() if due or demand.draws_all else b""
    video = plain.planes if demand.wants_plain_video else None
    return Made(jpegs, marks, image if wants_video else None, video, num_encoded + len(made))


def width_step(width: int) -> int:
    """The narrowest of ``WIDTHS`` that this many pixels fit in, or the widest; 0 stays 0."""
    return next((step for step in WIDTHS if width <= step), WIDTHS[-1]) if width > 0 else DRAWN


def divisor_for(width: int, picture_width: int) -> int:
    """By what a picture is made smaller for a place of this width."""
    return next((one for one in DIVISORS if picture_width >= LEAST_SHARE * width * one), 1)


def smaller(planes: Planes, divisor: int) -> Planes:
    """The picture made smaller by this; at least one pixel."""
    if divisor == 1:
        return planes
    return planes.resized(max(planes.width // divisor, 1), max(planes.height // divisor, 1))


def encode_jpeg(image: UInt8, quality: int) -> bytes:
    """Raises: SinkError: it cannot be encoded."""
    is_encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_encoded:
        raise SinkError(f"live page: a picture of shape {image.shape} could not be encoded as JPEG")
    jpeg: bytes = data.tobytes()
    return jpeg
