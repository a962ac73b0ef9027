"""What stands still at the kerb: trees, lamps, signs, bins, benches, bushes; objects pass in front of it and behind."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.scene.brush import Canvas, Colour, mix, shade
from edge.scene.compose import Sprite
from edge.scene.truth import SEGMENT_CLASSES

if TYPE_CHECKING:
    from edge.scene.variation import SceneVariation
    from edge.types import UInt8

VEGETATION, BACKGROUND = SEGMENT_CLASSES.index("vegetation"), SEGMENT_CLASSES.index("background")

# pixels per metre; things are painted at the next larger one and made smaller
_SCALES = (20.0, 36.0, 60.0, 110.0)


@dataclass(frozen=True, slots=True)
class Thing:
    """One piece of clutter: its kind, place and seed."""

    kind: str
    s: float
    t: float
    seed: int

    @property
    def segment(self) -> int:
        """Class in the class map."""
        return VEGETATION if self.kind in ("tree", "bush", "wood") else BACKGROUND


def draw_clutter(variation: SceneVariation) -> list[Thing]:
    """Everything that stands in the street, farthest first; nothing right before the lens."""
    rng = np.random.default_rng([variation.seed, 53])
    things: list[Thing] = []
    kerb = variation.road_half + 0.45
    for side in (-1, 1):
        lamps = float(rng.uniform(3, 9))
        for s in np.arange(lamps, variation.corner, 16.0):
            things.append(Thing("lamp", float(s), side * kerb, int(rng.integers(1 << 30))))
        for s in np.arange(lamps - 5, variation.corner - 1, 5.3):
            roll = rng.random()
            place = (float(s) + float(rng.uniform(-0.8, 0.8)), side * kerb, int(rng.integers(1 << 30)))
            if roll < variation.trees:
                things.append(Thing("tree", *place))
            elif roll < variation.trees + 0.5:
                kind = ("bin", "sign", "bench", "bollard", "box", "bush")[rng.integers(6)]
                things.append(Thing(kind, *place))
    if variation.park:
        for t in np.arange(-70, 70, 3.2):
            things.append(Thing("wood", variation.far + float(rng.uniform(0, 4)), float(t), int(rng.integers(1 << 30))))
    depths = [(variation.camera.point(thing.s, thing.t)[2], thing) for thing in things]
    near = 5.0 + variation.camera.height_m * 0.6
    # a tree right before the lens would hide the street
    kept = [(z, thing) for z, thing in depths if z > (near + 6.0 if thing.kind == "tree" else near)]
    return [thing for _, thing in sorted(kept, key=lambda pair: -pair[0])]


def paint_thing(thing: Thing, variation: SceneVariation, scale: float) -> Sprite:
    """The picture of one thing, to be shown at ``scale`` pixels per metre, in daylight."""
    level = next((known for known in _SCALES if known >= scale), _SCALES[-1])
    reach = -math.copysign(1.0, thing.t) if thing.kind == "lamp" else 0.0
    return _paint(thing.kind, thing.seed % 16, level, variation.sun, reach, variation.dusk > 0)


@functools.lru_cache(maxsize=192)
def _paint(kind: str, seed: int, scale: float, light: float, reach: float, is_dark: bool) -> Sprite:
    rng = np.random.default_rng([83, seed])
    tint: Colour = (1, 1, 1)
    match kind:
        case "tree" | "wood":
            scale = min(scale, 60.0)
            return Sprite(*_tree(rng, scale, light, tint, kind == "wood"), scale)
        case "lamp":
            canvas = _lamp(scale, reach, float(is_dark))
        case "bush":
            return Sprite(*_bush(rng, scale, light, tint), scale)
        case "sign":
            canvas = _sign(rng, scale)
        case "bench":
            canvas = _bench(scale)
        case "bin":
            canvas = _bin(rng, scale, light)
        case "box":
            canvas = _box(rng, scale, light)
        case _:
            canvas = Canvas(0.3, 0.3, 1.2, 0.1, scale)
            canvas.limb((0, 0.05), (0, 0.95), 0.08, 0.07, (70, 72, 74), light)
            canvas.line([(-0.07, 0.8), (0.07, 0.8)], 0.07, (220, 222, 225))
    return Sprite(*canvas.finish(tint, 0.012 * scale, 0.06, seed), scale)


def _leaves(
    canvas: Canvas, rng: np.random.Generator, crown: tuple[float, float, float, float], green: Colour, light: float
) -> None:
    """Clumps of leaves in an ellipse (x, y, rx, ry): dark ones behind, sunlit ones on top, single leaves at the rim."""
    x, y, rx, ry = crown
    big = int(np.clip(rx * ry * 18, 24, 110))
    fine = int(np.clip(rx * ry * 2.2 * canvas.scale, 60, 1500))
    rolls = rng.random((big + fine, 6))
    for row, (turn, far, size_roll, flat, tilt, tone) in enumerate(rolls):
        layer = row / big if row < big else 0.35 + 0.65 * (row - big) / fine
        angle, reach = float(turn) * 2 * math.pi, math.sqrt(float(far)) * (1.0 if row < big else 1.12)
        dx, dy = reach * math.cos(angle), reach * math.sin(angle)
        size = (
            (0.12 + 0.16 * size_roll) * (rx + ry) * (0.6 - 0.35 * layer)
            if row < big
            else (0.05 + 0.08 * size_roll) * (1 + 0.15 * rx)
        )
        # clumps bulge towards the light; gaps between them are dark
        clump = math.sin(dx * 5 + rx * 9) * math.sin(dy * 6 + ry * 7)
        lit = (light * dx + dy) * 0.2 + 0.1 * clump
        colour = shade(green, 0.42 + 0.5 * layer + lit + 0.3 * (tone - 0.5) * (1.0 if row >= big else 0.4))
        canvas.oval((x + dx * rx, y + dy * ry), size, size * (0.5 + 0.5 * flat), float(tilt) * 180, colour)


def _green(rng: np.random.Generator) -> Colour:
    return mix(mix((45, 105, 70), (50, 130, 110), float(rng.random())), (45, 120, 190), 0.5 * float(rng.random() < 0.1))


def _tree(
    rng: np.random.Generator, scale: float, light: float, tint: Colour, is_wood: bool
) -> tuple[UInt8, tuple[float, float]]:
    tall = float(rng.uniform(5.5, 8.5)) * (1.4 if is_wood else 1.0)
    width = tall * float(rng.uniform(0.26, 0.36))
    canvas = Canvas(width * 1.35, width * 1.35, tall * 1.15, 0.2, scale)
    bark: Colour = (62, 76, 92)
    canvas.limb((0, 0.05), (0.08, tall * 0.55), 0.17, 0.1, bark, light)
    for side in (-1, 1):
        canvas.limb((0.05, tall * 0.4), (side * width * 0.5, tall * 0.62), 0.08, 0.04, bark, light)
    green = _green(rng)
    low, high = (0.1, 0.9) if is_wood else (0.45, 0.98)
    for part in range(5 if is_wood else 4):
        middle = low + (high - low) * (0.3 + 0.5 * part / 4)
        across = float(rng.uniform(-0.45, 0.45)) * width * (1 - 0.12 * part)
        size = float(rng.uniform(0.62, 0.8)) * (1 - 0.1 * part)
        _leaves(
            canvas,
            rng,
            (across, tall * middle, width * size, tall * (high - low) * 0.42 * size),
            shade(green, 0.9 + 0.05 * part),
            light,
        )
    return canvas.finish(tint, 0.02 * scale, 0.16, int(rng.integers(4)))


def _bush(rng: np.random.Generator, scale: float, light: float, tint: Colour) -> tuple[UInt8, tuple[float, float]]:
    canvas = Canvas(1.0, 1.0, 1.3, 0.2, scale)
    canvas.polygon([(-0.6, 0.0), (0.6, 0.0), (0.66, 0.42), (-0.66, 0.42)], (105, 118, 132))
    canvas.polygon([(-0.3, 0.0), (0.6, 0.0), (0.66, 0.42), (-0.2, 0.42)], (125, 138, 150))
    _leaves(canvas, rng, (0.0, 0.7, 0.6, 0.34), _green(rng), light)
    return canvas.finish(tint, 0.02 * scale, 0.16, int(rng.integers(4)))


def _lamp(scale: float, reach: float, dusk: float) -> Canvas:
    canvas = Canvas(1.8, 1.8, 6.2, 0.1, scale)
    steel: Colour = (74, 72, 70)
    canvas.limb((0, 0.03), (0, 0.8), 0.11, 0.09, steel)
    canvas.limb((0, 0.7), (0, 5.4), 0.07, 0.045, steel)
    canvas.limb((0, 5.3), (reach * 1.2, 5.75), 0.045, 0.035, steel)
    canvas.polygon([(reach * 0.95, 5.82), (reach * 1.65, 5.82), (reach * 1.6, 5.66), (reach * 1.0, 5.66)], (60, 60, 62))
    canvas.polygon(
        [(reach * 1.02, 5.68), (reach * 1.58, 5.68), (reach * 1.5, 5.6), (reach * 1.1, 5.6)],
        mix((170, 175, 178), (215, 245, 255), dusk),
    )
    return canvas


def _sign(rng: np.random.Generator, scale: float) -> Canvas:
    canvas = Canvas(0.5, 0.5, 3.0, 0.1, scale)
    canvas.limb((0, 0.03), (0, 2.7), 0.035, 0.035, (140, 142, 145))
    kind = rng.integers(3)
    if kind == 0:
        canvas.disc((0, 2.5), 0.32, (45, 40, 190))
        canvas.disc((0, 2.5), 0.24, (225, 228, 230))
    elif kind == 1:
        canvas.disc((0, 2.5), 0.32, (170, 95, 30))
        canvas.polygon(
            [(-0.06, 2.3), (0.06, 2.3), (0.06, 2.55), (0.14, 2.55), (0, 2.74), (-0.14, 2.55), (-0.06, 2.55)],
            (230, 232, 235),
        )
    else:
        canvas.polygon([(-0.36, 2.25), (0.36, 2.25), (0, 2.87)], (45, 40, 190))
        canvas.polygon([(-0.24, 2.32), (0.24, 2.32), (0, 2.73)], (225, 228, 230))
    return canvas


def _bench(scale: float) -> Canvas:
    canvas = Canvas(1.0, 1.0, 1.1, 0.2, scale)
    for x in (-0.7, 0.7):
        canvas.limb((x, 0.02), (x, 0.8), 0.04, 0.04, (50, 50, 52))
    for y in (0.42, 0.48, 0.66, 0.8):
        canvas.line([(-0.85, y), (0.85, y)], 0.07, mix((60, 95, 140), (80, 120, 165), y))
    return canvas


def _bin(rng: np.random.Generator, scale: float, light: float) -> Canvas:
    canvas = Canvas(0.5, 0.5, 1.3, 0.15, scale)
    paint = ((60, 90, 50), (70, 70, 72), (50, 60, 130), (120, 85, 45))[rng.integers(4)]
    canvas.polygon([(-0.27, 0.05), (0.27, 0.05), (0.33, 1.0), (-0.33, 1.0)], shade(paint, 0.75))
    canvas.polygon(
        [(-0.2 + 0.1 * light, 0.05), (0.12 + 0.1 * light, 0.05), (0.14 + 0.1 * light, 1.0), (-0.22 + 0.1 * light, 1.0)],
        paint,
    )
    canvas.polygon([(-0.36, 0.98), (0.36, 0.98), (0.3, 1.12), (-0.3, 1.12)], shade(paint, 0.55))
    canvas.disc((-0.2, 0.08), 0.09, (30, 30, 30))
    return canvas


def _box(rng: np.random.Generator, scale: float, light: float) -> Canvas:
    """A grey cabinet or a post box."""
    canvas = Canvas(0.6, 0.6, 1.5, 0.1, scale)
    paint = ((120, 128, 125), (40, 150, 215), (45, 45, 165))[rng.integers(3)]
    canvas.polygon([(-0.4, 0.05), (0.4, 0.05), (0.4, 1.25), (-0.4, 1.25)], shade(paint, 0.8))
    canvas.polygon([(-0.34, 0.1), (0.3, 0.1), (0.3, 1.2), (-0.34, 1.2)], shade(paint, 0.95 + 0.08 * light))
    canvas.line([(-0.2, 0.95), (0.2, 0.95)], 0.05, shade(paint, 0.4))
    canvas.polygon([(-0.44, 1.23), (0.44, 1.23), (0.4, 1.3), (-0.4, 1.3)], shade(paint, 0.6))
    return canvas
