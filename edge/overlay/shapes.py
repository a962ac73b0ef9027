"""Lines, boxes, trails and zones drawn straight into a picture.

Shape letters: H W frame pixels, K points. Every function changes the ``image (H, W, 3)`` uint8 BGR given to it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

from edge.overlay.palette import Colour
from edge.types import Float32, Int32, UInt8

# drawing functions take coordinates in 1/16 pixel
SHIFT = 4
ONE = 1 << SHIFT
SEAM: Colour = (22, 18, 16)
ZONE_OPACITY = 0.16
MASK_OPACITY = 0.45
# a key point that the model is less sure of is not drawn
LEAST_POINT_SCORE = 0.3


def draw_box(image: UInt8, box: tuple[int, int, int, int], colour: Colour, thickness: int, radius: int) -> None:
    """Draw the frame of a box with round corners and a dark seam outside, which shows it on any background.

    Args:
        image: changed.
        box: x1 y1 x2 y2, right and bottom exclusive, inside the picture.
        colour: of the frame.
        thickness: of the frame, pixels.
        radius: of the corners, pixels; smaller in small boxes.
    """
    x1, y1, x2, y2 = box
    # from here on the last pixel itself: drawing functions include it
    x2, y2 = x2 - 1, y2 - 1
    inner = thickness - 1
    if x2 - x1 < 2 * thickness or y2 - y1 < 2 * thickness:
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, cv2.FILLED)
        return
    r = min(radius, (x2 - x1) // 3, (y2 - y1) // 3)
    seam = max(thickness // 2, 1)
    for begin, end, ink in ((-seam, -1, SEAM), (0, inner, colour)):
        cv2.rectangle(image, (x1 + r, y1 + begin), (x2 - r, y1 + end), ink, cv2.FILLED)
        cv2.rectangle(image, (x1 + r, y2 - end), (x2 - r, y2 - begin), ink, cv2.FILLED)
        cv2.rectangle(image, (x1 + begin, y1 + r), (x1 + end, y2 - r), ink, cv2.FILLED)
        cv2.rectangle(image, (x2 - end, y1 + r), (x2 - begin, y2 - r), ink, cv2.FILLED)
    if r:
        at = np.array([x1, y1, x2, y1, x2, y2, x1, y2], np.int32).reshape(4, 1, 2) * ONE
        arcs = _corner_arcs(r, thickness)
        cv2.polylines(image, list((arcs + at).reshape(-1, *arcs.shape[2:])), False, colour, 1, cv2.LINE_AA, SHIFT)


@lru_cache(maxsize=64)
def _corner_arcs(radius: int, thickness: int) -> Int32:
    """(T, 4, K, 2) arcs around the corners of a box, clockwise from the upper left one, in 1/16 pixels from the corner.

    T strokes of one pixel lie inside one another: OpenCV draws those several times faster than thick ones.
    """
    angle = np.linspace(0, np.pi / 2, 6)
    inset = np.arange(thickness)[:, None]
    x = radius - (radius - inset) * np.cos(angle)
    y = radius - (radius - inset) * np.sin(angle)
    arc = np.stack([x, y], axis=2)
    arcs = np.array([arc, arc * (-1, 1), arc * (-1, -1), arc * (1, -1)]).swapaxes(0, 1)
    rounded: Int32 = np.round(arcs * ONE).astype(np.int32)
    return rounded


def draw_trail(image: UInt8, points: Float32, colour: Colour, thickness: int) -> None:
    """Draw a path of (K, 2) points, oldest first, that gets thinner towards its beginning."""
    if len(points) < 2:
        return
    # thin strokes side by side, as for the corners
    along = np.empty_like(points)
    along[1:-1] = points[2:] - points[:-2]
    along[0], along[-1] = points[1] - points[0], points[-1] - points[-2]
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / length[:, None]
    offsets = np.arange(thickness) - (thickness - 1) / 2
    strokes = np.round((points + offsets[:, None, None] * across) * ONE).astype(np.int32)
    # one stroke less in the older half
    middle = len(points) // 2
    lines = [*strokes[: max(thickness - 1, 1)], *strokes[thickness - 1 :, middle:]]
    cv2.polylines(image, lines, False, colour, 1, cv2.LINE_AA, SHIFT)


def draw_zone(image: UInt8, points: Float32, colour: Colour, thickness: int) -> None:
    """Tint and outline a polygon of (K, 2) points."""
    height, width = image.shape[:2]
    low = np.clip(np.floor(points.min(axis=0)), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)) + 1, 0, (width, height)).astype(int)
    target = image[low[1] : high[1], low[0] : high[0]]
    if target.size:
        fixed = np.round((points - low) * ONE).astype(np.int32)
        filled = target.copy()
        cv2.fillPoly(filled, [fixed], colour, cv2.LINE_AA, SHIFT)
        cv2.addWeighted(filled, ZONE_OPACITY, target, 1 - ZONE_OPACITY, 0, target)
    outline = np.round(points * ONE).astype(np.int32)
    cv2.polylines(image, [outline], True, colour, thickness, cv2.LINE_AA, SHIFT)


def draw_line(image: UInt8, points: Float32, colour: Colour, thickness: int) -> None:
    """Draw a counting line through (K, 2) points with dots at its ends and an arrow to its right-hand side.

    The arrow shows the direction that counts as "in": to the right when walking from the first to the last point.
    """
    fixed = np.round(points * ONE).astype(np.int32)
    cv2.polylines(image, [fixed], False, colour, thickness, cv2.LINE_AA, SHIFT)
    for x, y in (fixed[0], fixed[-1]):
        cv2.circle(image, (int(x), int(y)), 2 * thickness * ONE, colour, cv2.FILLED, cv2.LINE_AA, SHIFT)
    along = points[-1] - points[0]
    length = float(np.hypot(*along))
    if length < 1:
        return
    normal = np.array([-along[1], along[0]]) / length
    middle = (points[0] + points[-1]) / 2
    tip = np.round((middle + normal * 10 * thickness) * ONE).astype(int)
    start = np.round(middle * ONE).astype(int)
    cv2.arrowedLine(image, tuple(start.tolist()), tuple(tip.tolist()), colour, thickness, cv2.LINE_AA, SHIFT, 0.4)


def draw_shape(image: UInt8, kind: Literal["zone", "line"], points: Float32, colour: Colour, thickness: int) -> None:
    """Draw a zone or a line; fewer than two points are nothing."""
    if len(points) < 2:
        return
    if kind == "zone":
        draw_zone(image, points, colour, thickness)
    else:
        draw_line(image, points, colour, thickness)


def tint_mask(image: UInt8, mask: UInt8, place: tuple[int, int, int, int], colour: Colour) -> None:
    """Tint the pixels of an (h, w) mask of 0 and 1 that lies at ``x1 y1 x2 y2`` of the picture."""
    x1, y1, x2, y2 = place
    target = image[y1:y2, x1:x2]
    if target.size:
        # a scalar of four, or OpenCV takes it for an array
        tinted = cv2.addWeighted(target, 1 - MASK_OPACITY, (*map(float, colour), 0.0), MASK_OPACITY, 0)
        cv2.copyTo(tinted, mask, target)


def draw_oriented(image: UInt8, corners: Float32, colour: Colour, thickness: int) -> None:
    """Draw the frame of an oriented box of (4, 2) corners with a dark seam outside."""
    fixed = np.round(corners * ONE).astype(np.int32)
    cv2.polylines(image, [fixed], True, SEAM, thickness + 2, cv2.LINE_AA, SHIFT)
    cv2.polylines(image, [fixed], True, colour, thickness, cv2.LINE_AA, SHIFT)


def draw_figure(
    image: UInt8, points: Float32, limbs: Sequence[tuple[int, int]], colour: Colour, thickness: int
) -> None:
    """Draw the (K, 3) key points that are seen well, and the limbs between them."""
    seen = (points[:, 2] >= LEAST_POINT_SCORE) & np.isfinite(points).all(axis=1)
    fixed = np.round(np.where(seen[:, None], points[:, :2], 0) * ONE).astype(np.int32)
    lines = [fixed[[first, second]] for first, second in limbs if seen[first] and seen[second]]
    cv2.polylines(image, lines, False, colour, thickness, cv2.LINE_AA, SHIFT)
    for x, y in fixed[seen].tolist():
        cv2.circle(image, (x, y), (thickness + 1) * ONE, SEAM, cv2.FILLED, cv2.LINE_AA, SHIFT)
        cv2.circle(image, (x, y), thickness * ONE, colour, cv2.FILLED, cv2.LINE_AA, SHIFT)


def tint_classes(image: UInt8, class_map: UInt8, colours: UInt8, opacity: Float32) -> None:
    """Tint the whole picture by class.

    Args:
        image: changed.
        class_map: (h, w) class ids that cover the picture, without padding.
        colours: (256, 3) BGR by class id.
        opacity: (256,) in [0, 1] by class id.
    """
    size = (image.shape[1], image.shape[0])
    tint = cv2.resize(colours[class_map], size, interpolation=cv2.INTER_LINEAR)
    weight = cv2.resize(opacity[class_map], size, interpolation=cv2.INTER_LINEAR)
    cv2.blendLinear(tint, image, weight, 1 - weight, image)
