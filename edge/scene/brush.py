"""Drawing of sprites: shaded limbs, plates and rings on a transparent canvas whose colours are premultiplied.

Anti-aliased drawing over (0, 0, 0, 0) mixes colour and alpha alike, which is exactly what premultiplied means.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from edge.types import Float32, Int32, UInt8

Colour = tuple[float, float, float]
Point = tuple[float, float]
_SHIFT = 4
_ONE = 1 << _SHIFT


def shade(colour: Colour, gain: float, lift: float = 0.0) -> Colour:
    """The colour (B, G, R in 0..255) made brighter or darker, then moved towards white by ``lift``."""
    b, g, r = (min(255.0, max(0.0, part * gain)) for part in colour)
    return b + (255 - b) * lift, g + (255 - g) * lift, r + (255 - r) * lift


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour ``share`` of the way from ``a`` to ``b``."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


@functools.lru_cache(maxsize=4)
def grain(seed: int) -> Float32:
    """(512, 512) cloth-like noise in [-1, 1]."""
    rng = np.random.default_rng([991, seed])
    fine = cv2.GaussianBlur(rng.standard_normal((512, 512)).astype(np.float32), (0, 0), 0.8)
    coarse = cv2.GaussianBlur(rng.standard_normal((512, 512)).astype(np.float32), (0, 0), 6.0)
    field: Float32 = np.clip((fine / fine.std() * 0.7 + coarse / coarse.std()) / 3, -1, 1).astype(np.float32)
    return field


# share of the radius, gain, and shift towards the light of the strokes of a limb
_LIMB_LAYERS = ((1.0, 0.62, 0.0), (0.8, 0.86, 0.14), (0.48, 1.06, 0.3))
_THIN_LAYERS = ((1.0, 0.72, 0.0), (0.6, 1.0, 0.25))
_HALF_CIRCLE = tuple((math.cos(step * math.pi / 6), math.sin(step * math.pi / 6)) for step in range(7))


def _capsule(a: Point, b: Point, ra: float, rb: float) -> list[Point]:
    """Outline of a limb: half a circle around each end."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = math.hypot(dx, dy)
    ux, uy = (dx / length, dy / length) if length > 1e-6 else (0.0, 1.0)
    around_b = [(b[0] + rb * (uy * c + ux * s), b[1] + rb * (uy * s - ux * c)) for c, s in _HALF_CIRCLE]
    around_a = [(a[0] - ra * (uy * c + ux * s), a[1] - ra * (uy * s - ux * c)) for c, s in _HALF_CIRCLE]
    return around_b + around_a


class Canvas:
    """A transparent picture in metres: x to the right, y up, the origin at the object's foot.

    Attributes:
        image: (h, w, 4) uint8 premultiplied BGRA.
        scale: pixels per metre.
        origin: column and row of the foot.
    """

    def __init__(self, left: float, right: float, top: float, bottom: float, scale: float) -> None:
        """Make room for x in [-left, right] and y in [-bottom, top] metres."""
        self.scale = scale
        self.origin = (left * scale + 2, top * scale + 2)
        size = (int((top + bottom) * scale) + 5, int((left + right) * scale) + 5, 4)
        self.image: UInt8 = np.zeros(size, np.uint8)

    def _fixed(self, points: Sequence[Point]) -> Int32:
        x, y, scale = self.origin[0] * _ONE, self.origin[1] * _ONE, self.scale * _ONE
        return np.array([(round(x + px * scale), round(y - py * scale)) for px, py in points], np.int32)

    def polygon(self, points: Sequence[Point], colour: Colour, alpha: float = 255.0) -> None:
        """Fill a polygon."""
        cv2.fillPoly(self.image, [self._fixed(points)], self._paint(colour, alpha), cv2.LINE_AA, _SHIFT)

    def line(self, points: Sequence[Point], width: float, colour: Colour, closed: bool = False) -> None:
        """Draw a line of this width in metres, at least one pixel."""
        thickness = max(1, round(width * self.scale))
        cv2.polylines(
            self.image, [self._fixed(points)], closed, self._paint(colour, 255), thickness, cv2.LINE_AA, _SHIFT
        )

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        self.oval(centre, radius, radius, 0.0, colour)

    def oval(self, centre: Point, rx: float, ry: float, degrees: float, colour: Colour) -> None:
        """Fill an ellipse turned by ``degrees``."""
        x = round((self.origin[0] + centre[0] * self.scale) * _ONE)
        y = round((self.origin[1] - centre[1] * self.scale) * _ONE)
        axes = (max(1, round(rx * self.scale * _ONE)), max(1, round(ry * self.scale * _ONE)))
        cv2.ellipse(self.image, (x, y), axes, -degrees, 0, 360, self._paint(colour, 255), -1, cv2.LINE_AA, _SHIFT)

    def limb(self, a: Point, b: Point, ra: float, rb: float, colour: Colour, light: float = -1.0) -> None:
        """A round tapered limb from ``a`` to ``b``, lit from the side of ``light`` (-1 left, 1 right)."""
        layers = _LIMB_LAYERS if max(ra, rb) * self.scale > 2.5 else _THIN_LAYERS
        for part, gain, shift in layers:
            move, lift = light * shift, 0.3 * shift
            first, last = (a[0] + move * ra, a[1] + lift * ra), (b[0] + move * rb, b[1] + lift * rb)
            outline = _capsule(first, last, ra * part, rb * part)
            cv2.fillConvexPoly(
                self.image, self._fixed(outline), self._paint(shade(colour, gain), 255), cv2.LINE_AA, _SHIFT
            )

    @staticmethod
    def _paint(colour: Colour, alpha: float) -> tuple[float, float, float, float]:
        part = alpha / 255
        return colour[0] * part, colour[1] * part, colour[2] * part, alpha

    def finish(self, tint: Colour, softness_px: float, texture: float, seed: int) -> tuple[UInt8, Point]:
        """Soften the shading inside the silhouette, add cloth grain and the colour of the light; cut off empty rims.

        Args:
            tint: gain per channel, 1 for daylight.
            softness_px: sigma of the smoothing of colours; the silhouette stays sharp.
            texture: strength of the grain, 0 for none.
            seed: chooses the grain.

        Returns:
            (h, w, 4) uint8 premultiplied BGRA, and the column and row of the foot in it.
        """
        left, top, width, height = cv2.boundingRect(cv2.extractChannel(self.image, 3))
        left, top = max(0, left - 2), max(0, top - 2)
        image = self.image[top : top + height + 4, left : left + width + 4]
        planes = cv2.split(cv2.GaussianBlur(image, (0, 0), max(0.4, softness_px)))
        solid = cv2.extractChannel(image, 3)
        alpha = solid.astype(np.float32)
        gain = alpha / np.maximum(planes[3].astype(np.float32), 1.0)
        if texture > 0:
            rows, columns = (np.arange(size) % 512 for size in alpha.shape)
            gain *= 1 + texture * grain(seed % 4)[rows[:, None], columns[None, :]]
        # plane by plane: several times faster than on interleaved colours
        lit = [
            np.minimum(plane * (gain * np.float32(part)), alpha).astype(np.uint8)
            for plane, part in zip(planes[:3], tint, strict=True)
        ]
        finished: UInt8 = cv2.merge([*lit, solid])
        return finished, (self.origin[0] - left, self.origin[1] - top)
