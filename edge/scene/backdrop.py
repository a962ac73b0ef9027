"""The street without its traffic: picture, depth and classes of everything that stands still, painted once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.scene.clutter import Thing, draw_clutter, paint_thing
from edge.scene.compose import SHARP_PX, Placed, blend, cast_shadow, contact_shadow, place, tinted
from edge.scene.ground import SKY, paint_ground, paint_sky
from edge.scene.houses import draw_walls, paint_wall

if TYPE_CHECKING:
    from edge.scene.variation import SceneVariation
    from edge.types import Float32, UInt8


@dataclass(frozen=True, slots=True)
class Backdrop:
    """What stands still.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        depth: (H, W) float32 metres to what can hide an object; the ground and the sky are far away.
        classes: (H, W) uint8 segment classes.
    """

    image: UInt8
    depth: Float32
    classes: UInt8


def sun_lean(variation: SceneVariation) -> tuple[float, float]:
    """How far right and up (in the picture) the shadow of a point falls, per height of the point."""
    return -variation.sun * 0.75, 0.16


def paint_backdrop(variation: SceneVariation) -> Backdrop:
    """Paint sky, ground, houses and clutter."""
    camera = variation.camera
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    classes = np.full((camera.height, camera.width), SKY, np.uint8)
    depth = np.full((camera.height, camera.width), 1e4, np.float32)
    paint_sky(variation, image)
    paint_ground(variation, image, classes, depth)
    for wall in draw_walls(variation):
        paint_wall(variation, wall, image, classes, depth)
    lit = np.clip(image.astype(np.float32) * np.array(variation.ambient, np.float32), 0, 255)
    if variation.dusk > 0:
        lit = _lamp_light(variation, lit, classes)
    image = lit.astype(np.uint8)
    things = draw_clutter(variation)
    for thing in things:
        _paint_shadow(variation, thing, image, depth)
    for thing in things:
        _paint_thing(variation, thing, image, classes, depth)
    if variation.blur_px > SHARP_PX:
        image = cv2.GaussianBlur(image, (0, 0), variation.blur_px)
    return Backdrop(_vignette(image), depth, classes)


def _scale(variation: SceneVariation, thing: Thing) -> tuple[float, float, float, float]:
    u, v, z = variation.camera.point(thing.s, thing.t)
    return u, v, z, variation.camera.focal_px / z


def _paint_shadow(variation: SceneVariation, thing: Thing, image: UInt8, depth: Float32) -> None:
    u, v, z, scale = _scale(variation, thing)
    if thing.kind == "wood":
        return
    wide = {"tree": 0.7, "bench": 0.9, "bush": 0.8}.get(thing.kind, 0.35)
    contact_shadow(
        image, (u, v), (wide * scale, max(1.0, wide * scale * variation.camera.height_m / z)), 0.6, depth, z - 1.0
    )
    if variation.sunshine > 0.15:
        sprite = paint_thing(thing, variation, min(scale, 30.0))
        cast_shadow(image, sprite, scale, (u, v), sun_lean(variation), 0.42 * variation.sunshine, depth, z - 1.0)


def _paint_thing(variation: SceneVariation, thing: Thing, image: UInt8, classes: UInt8, depth: Float32) -> None:
    u, v, z, scale = _scale(variation, thing)
    if not -6 * scale < u < variation.camera.width + 6 * scale:
        return
    placed = place(paint_thing(thing, variation, scale), scale, (u, v))
    placed = Placed(tinted(placed.image, variation.ambient), placed.left, placed.top)
    fog = 1 - math.exp(-variation.haze_per_m * z)
    alpha = blend(image, placed, variation.haze, fog, depth, z)
    solid = alpha > 127
    rows = slice(max(0, placed.top), max(0, placed.top) + alpha.shape[0])
    columns = slice(max(0, placed.left), max(0, placed.left) + alpha.shape[1])
    classes[rows, columns][solid] = thing.segment
    depth[rows, columns][solid] = z


def _lamp_light(variation: SceneVariation, lit: Float32, classes: UInt8) -> Float32:
    """Warm pools under the lamps and a glow around them."""
    camera = variation.camera
    glow = np.zeros((camera.height // 4, camera.width // 4), np.float32)
    for thing in draw_clutter(variation):
        if thing.kind != "lamp":
            continue
        u, v, z, scale = _scale(variation, thing)
        across = (int(u / 4), int(v / 4))
        axes = (max(1, int(scale * 3.6 / 4)), max(1, int(scale * 3.6 * camera.height_m / z / 4)))
        if abs(u) < 4 * camera.width:
            pool = np.zeros_like(glow)
            cv2.ellipse(pool, across, axes, 0, 0, 360, 0.5, -1)
            head = (int((u - math.copysign(1.3, thing.t) * scale) / 4), int((v - 5.7 * scale) / 4))
            cv2.circle(pool, head, max(1, int(scale * 0.5 / 4)), 0.9, -1)
            glow += cv2.GaussianBlur(pool, (0, 0), max(1.0, scale * 0.8 / 4))
    glow = cv2.resize(glow, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)[:, :, None]
    light = np.array((0.55, 0.95, 1.25), np.float32) * glow * variation.dusk
    result: Float32 = np.clip(lit * (1 + 0.9 * light) + 26 * light * (classes != SKY)[:, :, None], 0, 255).astype(
        np.float32
    )
    return result


def _vignette(image: UInt8) -> UInt8:
    """Darken the corners a little, as lenses do."""
    height, width = image.shape[:2]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    gain = 1 - 0.09 * (rows**2 + columns**2)
    return (image * gain[:, :, None]).astype(np.uint8)
