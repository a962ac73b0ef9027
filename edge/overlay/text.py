"""Text and rounded translucent plates for the overlay, made once and then only blended.

Shape letters: H W frame pixels, h w plate pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from edge.overlay.palette import PANEL, Colour, ink_on
from edge.types import Float32, UInt8

# OpenCV 5 draws TrueType text (and any script); OpenCV 4 has only stroke letters, drawn large and shrunk to look smooth
HAS_FONTS = hasattr(cv2, "FontFace")
STROKE_ZOOM = 4
WEIGHT = 500


@dataclass(frozen=True, slots=True)
class Plate:
    """A small picture with its opacity. ``image (h, w, 3)`` uint8 BGR; ``weight``, ``rest (h, w)`` float32, sum 1."""

    image: UInt8
    weight: Float32
    rest: Float32

    @property
    def width(self) -> int:
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        return int(self.image.shape[0])


@dataclass(frozen=True, slots=True)
class PlateStyle:
    """How a plate looks: fill colour, opacity in [0, 1] and which ends are round."""

    fill: Colour = PANEL
    opacity: float = 0.78
    is_round_left: bool = True
    is_round_right: bool = True


def text_width(text: str, size_px: int) -> int:
    """Width of a text in pixels."""
    if HAS_FONTS:
        box = cv2.getTextSize((1, 1), text, (0, 0), _font(), size_px, WEIGHT)
        return int(box[2])
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, _stroke_scale(size_px), STROKE_ZOOM)
    return int(np.ceil(width / STROKE_ZOOM))


def text_alpha(text: str, size_px: int, width: int, height: int, left: int) -> UInt8:
    """(h, w) uint8 coverage of a text that stands vertically centred, ``left`` pixels from the edge."""
    # capitals are about 0.7 of the size high
    baseline = (height + round(0.7 * size_px)) // 2
    if HAS_FONTS:
        alpha = np.zeros((height, width), np.uint8)
        cv2.putText(alpha, text, (left, baseline), (255, 255, 255), _font(), size_px, WEIGHT)
        return alpha
    zoom = STROKE_ZOOM
    large = np.zeros((height * zoom, width * zoom), np.uint8)
    at = (left * zoom, baseline * zoom)
    cv2.putText(large, text, at, 255, cv2.FONT_HERSHEY_DUPLEX, _stroke_scale(size_px), zoom + 1, cv2.LINE_AA)
    small: UInt8 = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
    return small


def make_plate(text: str, size_px: int, style: PlateStyle) -> Plate:
    """A rounded plate with a line of text, 1.5 times as high as the text's size."""
    margin = max(round(size_px * 0.45), 3)
    height = max(round(size_px * 1.5), 8)
    width = text_width(text, size_px) + 2 * margin
    letters = text_alpha(text, size_px, width, height, margin)
    return compose(letters, style)


def compose(letters: UInt8, style: PlateStyle) -> Plate:
    """Put letters, given as (h, w) coverage, on a plate of this style."""
    colours, opacities = _tables(style)
    # OpenCV's tables are several times faster than indexing
    weight: Float32 = cv2.LUT(letters, opacities)
    round_corners(weight, letters.shape[0] // 4, style)
    image: UInt8 = cv2.LUT(cv2.cvtColor(letters, cv2.COLOR_GRAY2BGR), colours)
    return Plate(image, weight, 1 - weight)


@lru_cache(maxsize=256)
def _tables(style: PlateStyle) -> tuple[UInt8, Float32]:
    """(1, 256, 3) uint8 colour, (1, 256) float32 opacity of a plate where its letters cover a pixel by this much."""
    ink = np.array(ink_on(style.fill), np.float32)
    fill = np.array(style.fill, np.float32)
    cover = np.arange(256, dtype=np.float32) / 255
    colours = (fill + (ink - fill) * cover[:, None]).astype(np.uint8)
    return colours[None], np.maximum(cover, np.float32(style.opacity))[None]


@lru_cache(maxsize=64)
def _corner(radius: int) -> Float32:
    """(radius, radius) coverage of the upper left quarter of a disc."""
    steps = (np.arange(radius * 4, dtype=np.float32) + 0.5) / 4
    inside = ((radius - steps[:, None]) ** 2 + (radius - steps[None, :]) ** 2 <= radius**2).astype(np.float32)
    quarter: Float32 = inside.reshape(radius, 4, radius, 4).mean(axis=(1, 3))
    return quarter


def round_corners(weight: Float32, radius: int, style: PlateStyle) -> None:
    """Take the corners off ``weight (h, w)``, the opacity of a rectangle, at the ends that are round in this style."""
    height, width = weight.shape
    radius = min(radius, height // 2, width // 2)
    if radius < 1:
        return
    quarter = _corner(radius)
    if style.is_round_left:
        weight[:radius, :radius] *= quarter
        weight[-radius:, :radius] *= quarter[::-1]
    if style.is_round_right:
        weight[:radius, -radius:] *= quarter[:, ::-1]
        weight[-radius:, -radius:] *= quarter[::-1, ::-1]


def blend(image: UInt8, plate: Plate, x: int, y: int) -> None:
    """Lay a plate on ``image (H, W, 3)``, its upper left corner at x, y; what lies outside is cut off."""
    height, width = plate.weight.shape
    if 0 <= x <= image.shape[1] - width and 0 <= y <= image.shape[0] - height:
        inside = image[y : y + height, x : x + width]
        cv2.blendLinear(plate.image, inside, plate.weight, plate.rest, inside)
        return
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, image.shape[1]), min(y + height, image.shape[0])
    if left >= right or top >= bottom:
        return
    target = image[top:bottom, left:right]
    part = (slice(top - y, bottom - y), slice(left - x, right - x))
    cv2.blendLinear(plate.image[part], target, plate.weight[part], plate.rest[part], target)


def draw_text(image: UInt8, text: str, at: tuple[int, int], size_px: int, dot: Colour | None = None) -> None:
    """Write a line of changing text on a dark plate whose upper left corner is ``at``, after a coloured dot."""
    height, left = round(1.7 * size_px), round(0.6 * size_px)
    indent = left + (size_px if dot else 0)
    letters = text_alpha(text, size_px, text_width(text, size_px) + indent + left, height, indent)
    plate = compose(letters, PlateStyle(opacity=0.72))
    if dot:
        centre = (left + round(0.3 * size_px), height // 2)
        for layer, ink in ((plate.image, dot), (plate.weight, 1), (plate.rest, 0)):
            cv2.circle(layer, centre, max(round(0.3 * size_px), 3), ink, cv2.FILLED, cv2.LINE_AA)
    blend(image, plate, *at)


def draw_rows(image: UInt8, rows: Sequence[tuple[str, Colour]], size_px: int) -> None:
    """Write lines of text with their dots, one above the other, at the lower left."""
    step = round(1.9 * size_px)
    top = image.shape[0] - size_px // 2 - step * len(rows)
    for number, (text, dot) in enumerate(rows):
        draw_text(image, text, (size_px // 2, top + number * step), size_px, dot)


@lru_cache(maxsize=1)
def _font() -> Any:
    return cv2.FontFace("sans")


def _stroke_scale(size_px: int) -> float:
    # Hershey capitals are 21 pixels high at scale 1, those of a font 0.7 of its size
    return 0.7 * size_px / 21 * STROKE_ZOOM
