"""Houses: where they stand, and their walls put into perspective. H W pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.scene.fronts import paint_front, paint_side
from edge.scene.truth import SEGMENT_CLASSES

if TYPE_CHECKING:
    from edge.scene.variation import SceneVariation
    from edge.types import Float32, Float64, UInt8

BUILDING = SEGMENT_CLASSES.index("building")
# what is closer to the camera than this is not painted
_NEAREST_M = 0.6


@dataclass(frozen=True, slots=True)
class Wall:
    """An upright rectangle: from (s, t) metres, ``length`` along the direction (ds, dt), ``height`` up."""

    s: float
    t: float
    ds: float
    dt: float
    length: float
    height: float
    is_front: bool
    tone: float
    seed: int


def draw_walls(variation: SceneVariation) -> list[Wall]:
    """The houses of both sides and of the far end, farthest first."""
    rng = np.random.default_rng([variation.seed, 47])
    walls: list[Wall] = []
    stories_mean = float(rng.uniform(2.2, 5.5))
    for side in (-1, 1):
        # light from the left falls on the houses on the right
        tone = 1.0 + 0.1 * variation.sunshine * (1 if side * variation.sun < 0 else -1)
        end = variation.corner
        while end > -30:
            length = float(rng.uniform(6, 14))
            height = _height(rng, stories_mean)
            seed = int(rng.integers(1 << 30))
            walls.append(Wall(end - length, side * variation.wall, 1, 0, length, height, True, tone, seed))
            walls.append(Wall(end - length, side * variation.wall, 0, side, 12.0, height, False, 0.82, seed))
            end -= length
    place = -70.0
    while place < 70 and not variation.park:
        length = float(rng.uniform(8, 16))
        height, seed = _height(rng, stories_mean + 0.5), int(rng.integers(1 << 30))
        walls.append(Wall(variation.far, place, 0, 1, length, height, True, 0.97, seed))
        place += length
    walls.sort(key=lambda wall: -_depth(variation, wall))
    return walls


def _height(rng: np.random.Generator, mean: float) -> float:
    return 3.0 * max(1, round(rng.normal(mean, 1.0))) + 1.6


def _depth(variation: SceneVariation, wall: Wall) -> float:
    """Where in the order of painting: walls that face the street go after the side walls of the same house."""
    ends = [variation.camera.point(wall.s + wall.ds * part, wall.t + wall.dt * part)[2] for part in (0.0, wall.length)]
    return sum(ends) / 2 + (0.0 if wall.is_front else 3.0) + (40.0 if wall.s == variation.far else 0.0)


def paint_wall(variation: SceneVariation, wall: Wall, image: UInt8, classes: UInt8, depth: Float32) -> None:
    """Put one wall into the picture, with its class and depth."""
    camera = variation.camera
    stretch = _before_lens(variation, wall)
    if stretch is None:
        return
    low, high = stretch
    outline = ((low, 0.0), (high, 0.0), (high, wall.height), (low, wall.height))
    corners = np.array([camera.point(wall.s + wall.ds * a, wall.t + wall.dt * a, y)[:2] for a, y in outline])
    limit = np.array([camera.width, camera.height])
    x0, y0 = (int(part) for part in np.clip(np.floor(corners.min(axis=0)) - 1, 0, limit))
    x1, y1 = (int(part) for part in np.clip(np.ceil(corners.max(axis=0)) + 2, 0, limit))
    if x1 <= x0 or y1 <= y0:
        return
    columns: Float64 = (np.arange(x0, x1, dtype=np.float64) + 0.5 - camera.width / 2) / camera.focal_px
    z = _wall_depth(variation, wall, columns)
    closest = max(_NEAREST_M, float(np.min(z[z > _NEAREST_M], initial=60.0)))
    painted = _in_perspective(variation, wall, (x0, y0, x1, y1), closest)
    mask = np.zeros(painted.shape[:2], np.uint8)
    fixed = np.clip(np.round((corners - [x0, y0]) * 16), -(1 << 20), 1 << 20).astype(np.int32)
    cv2.fillConvexPoly(mask, fixed, 255, cv2.LINE_AA, 4)
    fog = (1 - np.exp(-variation.haze_per_m * z)).astype(np.float32)[None, :, None]
    share = (mask.astype(np.float32) / 255)[:, :, None]
    region = image[y0:y1, x0:x1]
    colours = painted.astype(np.float32) * (1 - fog) + np.array(variation.haze, np.float32) * fog
    region[:] = (region * (1 - share) + colours * share + 0.5).astype(np.uint8)
    inside = mask > 127
    classes[y0:y1, x0:x1][inside] = BUILDING
    depth[y0:y1, x0:x1][inside] = np.broadcast_to(z.astype(np.float32), mask.shape)[inside]


def _before_lens(variation: SceneVariation, wall: Wall) -> tuple[float, float] | None:
    """Metres along the wall between which it is in front of the camera; None where it is behind."""
    camera = variation.camera
    end = np.array([wall.s + wall.ds * wall.length, wall.t + wall.dt * wall.length])
    last = float(camera.to_view(end[:1], end[1:])[1][0])
    first = float(camera.to_view(np.array([wall.s]), np.array([wall.t]))[1][0])
    slope = (last - first) / wall.length
    low, high = 0.0, wall.length
    if slope > 0:
        low = max(low, (_NEAREST_M - first) / slope)
    elif slope < 0:
        high = min(high, (_NEAREST_M - first) / slope)
    is_behind = max(first + slope * low, first + slope * high) < _NEAREST_M
    return None if is_behind or high - low < 0.05 else (low, high)


def _in_perspective(variation: SceneVariation, wall: Wall, box: tuple[int, int, int, int], closest_m: float) -> UInt8:
    """The wall's texture as seen by the camera, in the picture's rectangle ``box`` (x0, y0, x1, y1)."""
    camera = variation.camera
    # one texel per pixel at the nearest place that is seen, but not more than the texture is worth
    per_m = float(np.clip(camera.focal_px / closest_m, 4, camera.width / 18))
    texture = (
        paint_front(wall.length, wall.height, per_m, wall.tone, wall.seed, variation.dusk)
        if wall.is_front
        else paint_side(wall.length, wall.height, per_m, wall.tone, wall.seed)
    )
    to_texture = np.array([[per_m, 0, 0], [0, -per_m, wall.height * per_m], [0, 0, 1.0]])
    to_picture = camera.plane(wall.s, wall.t, wall.ds, wall.dt) @ np.linalg.inv(to_texture)
    shift = np.array([[1, 0, -float(box[0])], [0, 1, -float(box[1])], [0, 0, 1.0]])
    size = (box[2] - box[0], box[3] - box[1])
    seen: UInt8 = cv2.warpPerspective(
        texture, shift @ to_picture, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return seen


def _wall_depth(variation: SceneVariation, wall: Wall, columns: Float64) -> Float64:
    """Depth at which the rays of these columns (x/z) meet the plane of the wall."""
    camera = variation.camera
    cos, sin = math.cos(camera.yaw), math.sin(camera.yaw)
    if wall.ds:
        return (wall.t - camera.offset_m) / np.where(np.abs(sin + columns * cos) < 1e-6, 1e-6, sin + columns * cos)
    return wall.s / np.where(np.abs(cos - columns * sin) < 1e-6, 1e-6, cos - columns * sin)
