"""Sky and ground of the street: asphalt, markings, kerbs, paving stones and puddles, by the metre under each pixel."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.scene.brush import mix, shade
from edge.scene.truth import SEGMENT_CLASSES

if TYPE_CHECKING:
    from edge.scene.variation import SceneVariation
    from edge.types import Array, Float32, UInt8

ROAD, PAVEMENT, SKY = (SEGMENT_CLASSES.index(name) for name in ("road", "pavement", "sky"))
_TILE = 512


@functools.lru_cache(maxsize=4)
def stains(seed: int) -> Float32:
    """(512, 512) seamless noise of many sizes, mean 0, deviation 1."""
    rng = np.random.default_rng([77, seed])
    total = np.zeros((_TILE, _TILE), np.float32)
    for sigma, weight in ((0.7, 0.7), (3.0, 0.6), (12.0, 0.8), (40.0, 1.0)):
        noise = rng.standard_normal((_TILE, _TILE)).astype(np.float32)
        pad = int(3 * sigma) + 1
        soft = cv2.GaussianBlur(np.pad(noise, pad, mode="wrap"), (0, 0), sigma)[pad:-pad, pad:-pad]
        total += weight * soft / soft.std()
    field: Float32 = (total / total.std()).astype(np.float32)
    return field


def _look_up(field: Float32, s: Float32, t: Float32, per_m: float) -> Float32:
    """The field's value at places in metres; it repeats for ever."""
    looked: Float32 = cv2.remap(field, s * per_m, t * per_m, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return looked


def _band(x: Float32, low: float, high: float, soft: Float32) -> Float32:
    """1 where low < x < high, with edges as soft as a pixel."""
    inside = np.minimum(x - low, high - x) / soft + 0.5
    clipped: Float32 = np.clip(inside, 0, 1)
    return clipped


def paint_sky(variation: SceneVariation, image: UInt8) -> None:
    """Fill the picture with sky: a gradient, the glow of the sun or the dusk, and clouds."""
    rng = np.random.default_rng([variation.seed, 41])
    # the sky is smooth: a quarter of the size is enough
    height, width = image.shape[0] // 4, image.shape[1] // 4
    horizon = max(1.0, variation.camera.horizon_px / 4)
    rows = np.clip(np.arange(height, dtype=np.float32) / horizon, 0, 1)[:, None, None]
    blue = mix((200, 196, 190), (235, 185, 120), variation.sunshine)
    zenith = mix(shade(blue, float(rng.uniform(0.85, 1.05))), (85, 45, 35), variation.dusk)
    low = mix(variation.haze, (95, 140, 225), variation.dusk * float(rng.uniform(0.2, 0.9)))
    sky = np.array(zenith, np.float32) * (1 - rows) + np.array(shade(low, 1.08), np.float32) * rows
    sky = np.repeat(sky, width, axis=1)
    depth = 1.0 / (1.08 - rows[:, :, 0])
    columns = np.arange(width, dtype=np.float32)[None, :] / width - 0.5
    field = _look_up(
        _smooth_stains(variation.seed % 4),
        depth * columns * 160 + float(rng.uniform(0, 400)),
        depth * 90 + np.zeros_like(columns),
        1.0,
    )
    cover = np.clip((field - float(rng.uniform(-0.8, 0.9))) * 0.7, 0, 1)[:, :, None] * (0.75 - 0.35 * variation.dusk)
    cloud = np.array(mix((246, 244, 243), (120, 105, 140), variation.dusk), np.float32)
    small = np.clip(sky * (1 - cover) + cloud * cover, 0, 255).astype(np.uint8)
    cv2.resize(small, (image.shape[1], image.shape[0]), dst=image, interpolation=cv2.INTER_CUBIC)


@functools.lru_cache(maxsize=4)
def _smooth_stains(seed: int) -> Float32:
    soft = cv2.GaussianBlur(stains(seed), (0, 0), 6.0, borderType=cv2.BORDER_REFLECT)
    field: Float32 = (soft / soft.std()).astype(np.float32)
    return field


def paint_ground(variation: SceneVariation, image: UInt8, classes: UInt8, depth: Float32) -> None:
    """Paint all below the horizon, its classes and its depth (m)."""
    first, s64, t64, z64 = variation.camera.ground()
    # what is farther lies behind the houses
    s, t = (np.clip(metres, -250, 250).astype(np.float32) for metres in (s64, t64))
    z = z64.astype(np.float32)
    pixel_m = z / variation.camera.focal_px
    # a row of the picture covers more metres the flatter it is seen
    along = np.maximum(pixel_m * z / variation.camera.height_m, pixel_m)
    rng = np.random.default_rng([variation.seed, 43])
    low, high = variation.cross
    on_road = np.maximum(
        _band(t, -variation.road_half, variation.road_half, pixel_m) * (s < high), _band(s, low, high, along)
    )
    field = _look_up(stains(variation.seed % 4), s, t, 26.0)
    colours = _pavement(rng, field, s, t, pixel_m + along)
    road = _road(variation, rng, field, s, t, pixel_m, along)
    colours += (road - colours) * on_road[:, :, None]
    _kerb(variation, colours, s, t, pixel_m)
    wall = np.maximum(np.abs(t) - variation.wall, -9.0) * (s < variation.corner)
    near_wall = np.exp(-np.abs(wall) / 0.8) * (np.abs(t) < variation.wall + 0.1) * (s < variation.corner)
    # the houses on the side of the sun throw their shadow on the street
    from_wall = variation.wall - t * variation.sun
    in_shade = (
        np.clip((variation.shade_m - from_wall) / (pixel_m + 0.15) + 0.5, 0, 1)
        * (s < variation.corner)
        * (variation.shade_m > 0)
    )
    colours *= (1 - 0.3 * near_wall - 0.36 * variation.sunshine * in_shade)[:, :, None]
    image[first:] = np.clip(colours, 0, 255).astype(np.uint8)
    classes[first:] = np.where(on_road > 0.5, ROAD, PAVEMENT)
    depth[first:] = 1e4


def _pavement(rng: np.random.Generator, field: Float32, s: Float32, t: Float32, soft: Float32) -> Float32:
    base = np.array(
        shade(mix((150, 158, 165), (135, 150, 172), float(rng.random())), float(rng.uniform(0.72, 1.15))), np.float32
    )
    stone_s, stone_t = float(rng.choice([0.4, 0.6, 1.0])), float(rng.choice([0.4, 0.6]))
    brick = np.mod(np.floor(t / stone_t), 2) * stone_s / 2
    joint = np.minimum(_gap(s + brick, stone_s), _gap(t, stone_t)) / (0.012 + soft * 0.6)
    groove = (1 - np.clip(joint, 0, 1)) * np.clip(0.02 / soft, 0, 1)
    each = np.floor((s + brick) / stone_s) * 12.9898 + np.floor(t / stone_t) * 78.233
    tone = np.mod(np.sin(each) * 43758.5453, 1.0) - 0.5
    gain = 1 + 0.035 * field + 0.09 * tone * np.clip(0.12 / soft, 0, 1) - 0.28 * groove
    result: Float32 = base * gain[:, :, None]
    return result


def _gap(x: Float32, size: float) -> Float32:
    rest = np.mod(x, size)
    gap: Float32 = np.minimum(rest, size - rest)
    return gap


def _road(
    variation: SceneVariation,
    rng: np.random.Generator,
    field: Float32,
    s: Float32,
    t: Float32,
    soft: Float32,
    along: Float32,
) -> Float32:
    base = np.array(mix((92, 92, 94), (72, 70, 70), float(rng.random())), np.float32) * float(rng.uniform(0.8, 1.3))
    fine = _look_up(stains(2), s, t, 90.0) * np.clip(0.02 / soft, 0, 1)
    tyre = np.exp(-((np.abs(np.abs(t) - 1.75) - 0.75) ** 2) / 0.08)
    gain = 1 + 0.05 * field + 0.06 * fine - 0.07 * tyre
    patch_s, patch_t = float(rng.uniform(6, 22)), float(rng.uniform(-2, 1))
    gain -= 0.13 * _band(s, patch_s, patch_s + float(rng.uniform(2, 6)), along) * _band(t, patch_t, patch_t + 1.4, soft)
    if variation.rain:
        gain *= 0.72
    colours = base * gain[:, :, None]
    if variation.rain:
        puddle = np.clip(_look_up(_smooth_stains(2), s, t, 14.0) - 0.5, 0, 1)[:, :, None] * 0.55
        colours += (np.array(variation.haze, np.float32) * 0.85 - colours) * puddle
    paint = _markings(variation, rng, s, t, soft, along) * (0.82 + 0.1 * np.clip(field, -2, 1))
    white: Float32 = colours + (np.array((222, 226, 228), np.float32) - colours) * np.clip(paint, 0, 1)[:, :, None]
    return white


def _markings(
    variation: SceneVariation, rng: np.random.Generator, s: Float32, t: Float32, soft: Float32, along: Float32
) -> Float32:
    """1 where the road is painted white: centre line, edge lines, zebra crossing and stop line."""
    end = variation.cross[0]
    before = _band(s, -90.0, end - 3.6, along)
    dash = np.clip((1.5 - np.abs(np.mod(s, 6.0) - 3.0)) / along + 0.5, 0, 1)
    paint = _band(t, -0.07, 0.07, soft) * before * (dash if rng.random() < 0.8 else 1.0)
    for side, parking in ((-1, variation.parking[0]), (1, variation.parking[1])):
        if parking:
            line = side * (variation.road_half - 2.15)
            paint = np.maximum(paint, _band(t, line - 0.05, line + 0.05, soft) * before * (_gap(s, 6.2) > 0.4))
    zebras = [end - 2.8]
    if rng.random() < 0.5:
        zebras.append(float(rng.uniform(8, max(9.0, variation.corner - 6))))
    for start in zebras:
        bars = np.clip((0.25 - np.abs(np.mod(t, 1.0) - 0.5)) / soft + 0.5, 0, 1)
        inside = _band(s, start, start + 2.6, along) * _band(
            t, -variation.road_half + 0.3, variation.road_half - 0.3, soft
        )
        # the gaps between the bars cover the lines beneath
        paint = np.where(inside > 0.5, bars * inside, paint)
    return paint


def _kerb(variation: SceneVariation, colours: Float32, s: Float32, t: Float32, soft: Float32) -> None:
    edge = np.abs(np.abs(t) - variation.road_half - 0.09)
    stone = np.clip((0.09 - edge) / soft + 0.5, 0, 1) * (s < variation.cross[0])
    gutter = np.clip((0.1 - np.abs(np.abs(t) - variation.road_half + 0.1)) / soft + 0.5, 0, 1) * (
        s < variation.cross[0]
    )
    stone_colour: Array = np.array((176, 180, 182), np.float32)
    colours += (stone_colour - colours) * (0.75 * stone)[:, :, None]
    colours *= (1 - 0.35 * gutter)[:, :, None]
