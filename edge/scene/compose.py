"""Puts sprites into the picture: scaling to sub-pixel places, shadows on the ground, haze, and what stands in front."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from edge.scene.brush import Colour, Point
    from edge.types import Float32, UInt8

# fainter rims are left out, so that "painted" and "belongs to the object" are the same pixels
_FAINTEST = 48


# sigma of a lens that is as good as sharp
SHARP_PX = 0.25
# shadows are soft, so they are made from smaller sprites
SHADOW_SHARE = 0.3


@dataclass(frozen=True)
class Sprite:
    """(h, w, 4) uint8 premultiplied BGRA, the pixel of its foot, its pixels per metre, and its joints in metres."""

    image: UInt8
    foot: tuple[float, float]
    scale: float
    joints: tuple[Point, ...] = ()

    @functools.cached_property
    def small(self) -> UInt8:
        """Its alpha at ``SHADOW_SHARE`` of the size, for shadows."""
        alpha = cv2.extractChannel(self.image, 3)
        shrunk: UInt8 = cv2.resize(alpha, None, fx=SHADOW_SHARE, fy=SHADOW_SHARE, interpolation=cv2.INTER_AREA)
        return shrunk


@dataclass(frozen=True, slots=True)
class Placed:
    """A sprite scaled to the picture: (h, w, 4) premultiplied BGRA whose corner is at picture pixel (left, top)."""

    image: UInt8
    left: int
    top: int


def place(sprite: Sprite, scale: float, at: tuple[float, float], blur_px: float = 0.0) -> Placed:
    """Bring a sprite to ``scale`` pixels per metre, its foot at a picture position; both have fractions.

    The lens' blur (sigma in pixels) is applied here, before it is decided which pixels belong to the object.
    """
    height, width = sprite.image.shape[:2]
    foot, scale = sprite.foot, scale / sprite.scale
    # the empty rim of a sprite leaves room for blur
    left, top = int(np.floor(at[0] - foot[0] * scale)), int(np.floor(at[1] - foot[1] * scale))
    matrix = np.array([[scale, 0, at[0] - foot[0] * scale - left], [0, scale, at[1] - foot[1] * scale - top]])
    size = (int(width * scale) + 2, int(height * scale) + 2)
    image = cv2.warpAffine(sprite.image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    if blur_px > SHARP_PX:
        image = cv2.GaussianBlur(image, (5, 5) if blur_px > 0.8 else (3, 3), blur_px)
    _, solid = cv2.threshold(cv2.extractChannel(image, 3), _FAINTEST - 1, 255, cv2.THRESH_BINARY)
    return Placed(cv2.bitwise_and(image, image, mask=solid), left, top)


def tinted(image: UInt8, tint: Colour) -> UInt8:
    """A premultiplied sprite in light of another colour: ``tint`` is the gain per channel."""
    channels = cv2.split(image)
    lit = [
        cv2.min(cv2.convertScaleAbs(part, alpha=gain), channels[3])
        for part, gain in zip(channels[:3], tint, strict=True)
    ]
    merged: UInt8 = cv2.merge([*lit, channels[3]])
    return merged


def _window(shape: tuple[int, ...], placed: Placed) -> tuple[slice, slice, slice, slice] | None:
    """Rows and columns of the picture, then of the sprite; None where they do not meet."""
    height, width = placed.image.shape[:2]
    top, left = max(0, placed.top), max(0, placed.left)
    bottom, right = min(shape[0], placed.top + height), min(shape[1], placed.left + width)
    if bottom <= top or right <= left:
        return None
    inner = slice(top - placed.top, bottom - placed.top), slice(left - placed.left, right - placed.left)
    return slice(top, bottom), slice(left, right), *inner


def blend(picture: UInt8, placed: Placed, haze: Colour, fog: float, depth: Float32 | None, z: float) -> UInt8:
    """Paint a sprite into ``picture``, hidden where something fixed is nearer.

    Args:
        picture: (H, W, 3) uint8, changed.
        placed: the sprite.
        haze: colour of the distance; fog: how much of it, 0 to 1.
        depth: (H, W) float32 metres of what is fixed, None to paint all.
        z: depth of the sprite.

    Returns:
        (h, w) uint8 alpha that was painted, of the part inside the picture.
    """
    window = _window(picture.shape, placed)
    if window is None:
        return np.zeros((0, 0), np.uint8)
    rows, columns, inner_rows, inner_columns = window
    source = placed.image[inner_rows, inner_columns]
    if depth is not None:
        source = cv2.bitwise_and(source, source, mask=cv2.bitwise_not(_nearer(depth[rows, columns], z)))
    alpha: UInt8 = cv2.extractChannel(source, 3)
    colours = cv2.cvtColor(source, cv2.COLOR_BGRA2BGR)
    if fog > 0.02:
        veil = cv2.multiply(cv2.cvtColor(alpha, cv2.COLOR_GRAY2BGR), (haze[0] / 255, haze[1] / 255, haze[2] / 255, 0))
        colours = cv2.addWeighted(colours, 1 - fog, veil, fog, 0)
    target = picture[rows, columns]
    clear = cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2BGR)
    cv2.add(cv2.multiply(target, clear, scale=1 / 255), colours, dst=target)
    return alpha


def darken(picture: UInt8, shadow: UInt8, left: int, top: int, depth: Float32, z: float) -> None:
    """Multiply the ground by (255 - shadow) / 255 where nothing fixed is nearer than ``z``; changes ``picture``."""
    window = _window(picture.shape, Placed(shadow, left, top))
    if window is None:
        return
    rows, columns, inner_rows, inner_columns = window
    light = cv2.bitwise_not(shadow[inner_rows, inner_columns])
    light = cv2.bitwise_or(light, _nearer(depth[rows, columns], z))
    target = picture[rows, columns]
    cv2.multiply(target, cv2.cvtColor(light, cv2.COLOR_GRAY2BGR), dst=target, scale=1 / 255)


def _nearer(depth: Float32, z: float) -> UInt8:
    """255 where something fixed is as near as ``z``. Not ``cv2.compare``: it takes a column of four for a scalar."""
    near: UInt8 = np.less_equal(depth, z).view(np.uint8) * np.uint8(255)
    return near


_BLOB: UInt8 = (
    255 * np.exp(-3.2 * (np.linspace(-1, 1, 64)[:, None] ** 2 + np.linspace(-1, 1, 64)[None, :] ** 2) ** 1.3)
).astype(np.uint8)
_BLOB[_BLOB < 14] = 0


def contact_shadow(
    picture: UInt8, at: tuple[float, float], size: tuple[float, float], strength: float, depth: Float32, z: float
) -> None:
    """The soft dark patch right under an object: centre and half size in pixels; changes ``picture``."""
    width, height = max(3, int(size[0] * 2.4)), max(3, int(size[1] * 2.4))
    blob = cv2.convertScaleAbs(cv2.resize(_BLOB, (width, height)), alpha=strength)
    darken(picture, blob, int(at[0] - width / 2), int(at[1] - height / 2), depth, z)


def cast_shadow(
    picture: UInt8, sprite: Sprite, scale: float, at: tuple[float, float],
    lean: tuple[float, float], strength: float, depth: Float32, z: float,
) -> None:  # fmt: skip
    """The sun's shadow: the silhouette laid on the ground; changes ``picture``.

    Args:
        picture: (H, W, 3) uint8.
        sprite: the object; scale: picture pixels per metre there; at: the foot in the picture.
        lean: how far right and up the shadow of a point goes, per height of the point.
        strength: darkest part, 0 to 1.
        depth: (H, W) metres of what is fixed; z: depth of the object.
    """
    small = sprite.small
    grow = scale / sprite.scale / SHADOW_SHARE
    height, width = small.shape
    fx, fy = sprite.foot[0] * SHADOW_SHARE, sprite.foot[1] * SHADOW_SHARE
    corners = np.array([[x, y] for x in (0, width) for y in (0, height)], np.float64)
    linear = np.array([[grow, -lean[0] * grow], [0.0, lean[1] * grow]])
    placed = (corners - [fx, fy]) @ linear.T + at
    low, high = np.floor(placed.min(axis=0)).astype(int) - 1, np.ceil(placed.max(axis=0)).astype(int) + 1
    shift = np.array(at) - linear @ np.array([fx, fy]) - low
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    if size[0] < 2 or size[1] < 2 or low[0] > picture.shape[1] or high[0] < 0:
        return
    shadow = cv2.warpAffine(small, np.column_stack([linear, shift]), size, flags=cv2.INTER_LINEAR)
    darken(picture, cv2.convertScaleAbs(shadow, alpha=strength), int(low[0]), int(low[1]), depth, z)
