"""Sprites of pedestrians: clothes, bags and umbrellas drawn at random, limbs that swing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edge.scene.brush import Canvas, Colour, Point, shade
from edge.scene.figure import Joint, Outfit, Painter, View, walk_joints

if TYPE_CHECKING:
    from edge.types import UInt8

SKINS: tuple[Colour, ...] = (
    (150, 180, 224),
    (120, 155, 205),
    (95, 130, 185),
    (70, 100, 150),
    (45, 68, 105),
    (35, 50, 80),
    (165, 195, 235),
)
HAIRS: tuple[Colour, ...] = ((25, 25, 28), (35, 45, 62), (45, 70, 105), (90, 140, 180), (150, 155, 160), (40, 55, 110))


# people are painted as from no steeper than this, in radians: they have no top
STEEPEST = 0.25


def cloth_colour(rng: np.random.Generator) -> Colour:
    """A colour that people wear: mostly dark or muted, sometimes bright."""
    kind = rng.random()
    if kind < 0.35:
        level = rng.uniform(28, 90)
        return (level * rng.uniform(0.95, 1.3), level, level * rng.uniform(0.85, 1.1))
    if kind < 0.5:
        level = rng.uniform(160, 235)
        return (level * rng.uniform(0.88, 1.0), level * rng.uniform(0.93, 1.0), level)
    hue, saturation, value = rng.uniform(0, 2 * math.pi), rng.uniform(0.25, 0.85), rng.uniform(80, 220)
    blue, green, red = (value * (1 - saturation * (0.5 + 0.5 * math.cos(hue + shift))) for shift in (0.0, 2.09, 4.19))
    return (blue, green, red)


def _pick(rng: np.random.Generator, names: tuple[str, ...], weights: tuple[float, ...]) -> str:
    return names[int(rng.choice(len(names), p=np.array(weights) / sum(weights)))]


def draw_outfit(rng: np.random.Generator, rain: bool, rider: bool = False) -> Outfit:
    """A random person; umbrellas only in rain, helmets only for riders."""
    child = not rider and rng.random() < 0.08
    hat = _pick(rng, ("none", "cap", "hood", "long hair"), (0.5, 0.12, 0.1, 0.28))
    if rider:
        hat = "helmet" if rng.random() < 0.6 else "none"
    legs = _pick(rng, ("trousers", "shorts", "skirt"), (0.74, 0.13, 0.0 if rider else 0.13))
    return Outfit(
        height=float(np.clip(rng.normal(1.73, 0.08), 1.55, 1.95)) * (0.72 if child else 1.0),
        build=float(np.clip(rng.normal(1.0, 0.11), 0.82, 1.35)),
        top=cloth_colour(rng),
        second=cloth_colour(rng),
        bottom=cloth_colour(rng)
        if rng.random() < 0.45
        else (rng.uniform(45, 110), rng.uniform(40, 70), rng.uniform(30, 60)),
        shoes=shade((60, 60, 62), rng.uniform(0.4, 3.4)),
        hair=HAIRS[rng.integers(len(HAIRS))],
        skin=SKINS[rng.integers(len(SKINS))],
        bag_colour=cloth_colour(rng),
        sleeves=_pick(rng, ("long", "short"), (0.7, 0.3)),
        legs=legs,
        coat=float(rng.choice([0.0, 0.05, 0.1, 0.3], p=[0.35, 0.3, 0.2, 0.15])) * (0.3 if rider else 1.0),
        hat=hat,
        bag=_pick(rng, ("none", "backpack", "handbag"), (0.5, 0.28, 0.22)),
        stripes=bool(rng.random() < 0.12),
        umbrella=bool(not rider and rng.random() < (0.6 if rain else 0.03)),
        seed=int(rng.integers(1 << 16)),
    )


def paint_pedestrian(
    outfit: Outfit, view: View, phase: float, stride: float, scale: float, light: float, tint: Colour
) -> tuple[UInt8, tuple[float, float]]:
    """Paint one person.

    Args:
        outfit: what to paint.
        view: from where.
        phase: of the gait, radians.
        stride: 1 walking, 0 standing.
        scale: pixels per metre.
        light: -1 lit from the left, 1 from the right.
        tint: gain per channel.

    Returns:
        (h, w, 4) uint8 premultiplied BGRA, and the column and row of the foot.
    """
    tall = outfit.height
    canvas = Canvas(0.75, 0.75, tall + (0.45 if outfit.umbrella else 0.12), 0.28, scale)
    painter = Painter(canvas, View(view.heading, min(view.elevation, STEEPEST)), light)
    joints = walk_joints(phase, tall, stride)
    sides = ("left", "right") if painter.view.depth((0, -1, 0)) > painter.view.depth((0, 1, 0)) else ("right", "left")
    walks_away = math.cos(view.heading) > 0.3
    if outfit.bag == "backpack" and not walks_away:
        _backpack(painter, outfit)
    _arm(painter, joints[f"{sides[0]} arm"], outfit)
    for side in sides:
        _leg(painter, joints[f"{side} leg"], outfit)
    hip: Joint = (0.0, 0.0, 0.53 * tall)
    neck: Joint = (0.015 * tall, 0.0, 0.845 * tall)
    if outfit.legs == "skirt":
        _skirt(painter, outfit, stride * math.sin(phase))
    painter.limb((0.0, 0.0, 0.83 * tall), (0.01, 0.0, 0.9 * tall), 0.034 * tall, 0.03 * tall, shade(outfit.skin, 0.85))
    painter.torso(hip, neck, outfit, (0.118 * tall * outfit.build, 0.074 * tall * outfit.build))
    if outfit.bag == "backpack" and walks_away:
        _backpack(painter, outfit)
    painter.head((0.02 * tall, 0.0, 0.93 * tall), 0.071 * tall, outfit)
    if outfit.hat == "hood":
        painter.limb(
            (-0.03 * tall, 0, 0.86 * tall), (-0.015, 0, 0.9 * tall), 0.07 * tall, 0.05 * tall, shade(outfit.top, 0.95)
        )
    _arm(painter, joints[f"{sides[1]} arm"], outfit)
    if outfit.bag == "handbag":
        _handbag(painter, joints[f"{sides[1]} arm"][2], outfit)
    if outfit.umbrella:
        _umbrella(painter, outfit)
    return canvas.finish(tint, 0.012 * scale, 0.1, outfit.seed)


def joints_of(outfit: Outfit, view: View, phase: float, stride: float) -> tuple[Point, ...]:
    """Where ``JOINTS`` are on the canvas of ``paint_pedestrian``: metres right of the foot and above it."""
    tall = outfit.height
    seen = View(view.heading, min(view.elevation, STEEPEST))
    joints = walk_joints(phase, tall, stride)
    arms = [_held(joints[f"{side} arm"], outfit) for side in ("left", "right")]
    legs = [joints[f"{side} leg"] for side in ("left", "right")]
    return tuple(
        seen.flat(joint) for joint in ((0.02 * tall, 0.0, 0.93 * tall), *arms[0], *arms[1], *legs[0], *legs[1])
    )


def _held(joints: tuple[Joint, Joint, Joint], outfit: Outfit) -> tuple[Joint, Joint, Joint]:
    """Shoulder, elbow and hand: of who has an umbrella, as it is held."""
    if not outfit.umbrella:
        return joints
    tall, across = outfit.height, joints[1][1]
    return joints[0], (0.1 * tall, across, 0.66 * tall), (0.16 * tall, across * 0.4, 0.74 * tall)


def _leg(painter: Painter, joints: tuple[Joint, Joint, Joint], outfit: Outfit) -> None:
    tall, wide = outfit.height, outfit.build
    ankle = joints[2]
    toe = (ankle[0] + 0.085 * tall, ankle[1], max(0.015, ankle[2] - 0.03 * tall))
    heel = (ankle[0] - 0.015 * tall, ankle[1], toe[2] + 0.005)
    painter.limb(heel, toe, 0.025 * tall, 0.018 * tall, outfit.shoes)
    thigh = outfit.bottom if outfit.legs != "skirt" else outfit.skin
    shin = outfit.bottom if outfit.legs == "trousers" else outfit.skin
    loose = 1.12 if outfit.legs == "trousers" else 0.9
    painter.chain(joints, (0.052 * tall * wide, 0.037 * tall * loose, 0.026 * tall * loose), (thigh, shin))


def _arm(painter: Painter, joints: tuple[Joint, Joint, Joint], outfit: Outfit) -> None:
    tall, wide = outfit.height, outfit.build
    joints = _held(joints, outfit)
    hand = joints[2]
    painter.limb(hand, (hand[0] + 0.01, hand[1], hand[2] - 0.025 * tall), 0.021 * tall, 0.016 * tall, outfit.skin)
    lower = outfit.top if outfit.sleeves == "long" else outfit.skin
    painter.chain(joints, (0.037 * tall * wide, 0.028 * tall, 0.021 * tall), (outfit.top, lower))


def _skirt(painter: Painter, outfit: Outfit, swing: float) -> None:
    tall = outfit.height
    x, y = painter.view.flat((0.0, 0.0, 0.53 * tall))
    flare, hem = 0.13 * tall, 0.3 * tall
    painter.canvas.polygon(
        [
            (x - 0.08 * tall, y + 0.06),
            (x - flare + 0.02 * swing, hem),
            (x + flare + 0.02 * swing, hem),
            (x + 0.08 * tall, y + 0.06),
        ],
        shade(outfit.bottom, 0.75),
    )
    side = painter.light * 0.03 * tall
    painter.canvas.polygon(
        [
            (x - 0.05 * tall + side, y + 0.06),
            (x - 0.07 * tall + side, hem),
            (x + 0.07 * tall + side, hem),
            (x + 0.05 * tall + side, y + 0.06),
        ],
        outfit.bottom,
    )


def _backpack(painter: Painter, outfit: Outfit) -> None:
    tall = outfit.height
    painter.limb(
        (-0.095 * tall, 0, 0.76 * tall), (-0.105 * tall, 0, 0.63 * tall), 0.068 * tall, 0.078 * tall, outfit.bag_colour
    )
    if math.cos(painter.view.heading) > 0.3:
        painter.limb(
            (-0.12 * tall, -0.03 * tall, 0.64 * tall),
            (-0.12 * tall, 0.03 * tall, 0.64 * tall),
            0.035 * tall,
            0.035 * tall,
            shade(outfit.bag_colour, 0.8),
        )


def _handbag(painter: Painter, hand: Joint, outfit: Outfit) -> None:
    x, y = painter.view.flat(hand)
    painter.canvas.line(
        [(x - 0.08, y - 0.18), (x - 0.02, y - 0.02), (x + 0.02, y - 0.02), (x + 0.08, y - 0.18)],
        0.015,
        shade(outfit.bag_colour, 0.5),
    )
    painter.canvas.polygon(
        [(x - 0.13, y - 0.18), (x - 0.15, y - 0.4), (x + 0.15, y - 0.4), (x + 0.13, y - 0.18)],
        shade(outfit.bag_colour, 0.8),
    )
    painter.canvas.polygon(
        [(x - 0.09, y - 0.2), (x - 0.1, y - 0.34), (x + 0.06, y - 0.34), (x + 0.06, y - 0.2)],
        shade(outfit.bag_colour, 1.05),
    )


def _umbrella(painter: Painter, outfit: Outfit) -> None:
    tall = outfit.height
    canvas = painter.canvas
    x, base = painter.view.flat((0.1, 0.0, tall * 0.98))
    canvas.line([painter.view.flat((0.16 * tall, 0, 0.72 * tall)), (x, base + 0.3)], 0.02, (60, 60, 60))
    for low, high, gain in ((-0.6, 0.6, 0.75), (-0.6, 0.05, 0.95), (-0.35, 0.2, 1.05)):
        bend = [low + (high - low) * step / 12 for step in range(13)]
        dome = [(x + p, base + 0.36 * math.sqrt(max(0.0, 1 - (p / 0.62) ** 2))) for p in bend]
        canvas.polygon(
            [*dome, (x + high * 0.9, base + 0.02), (x + (low + high) / 2, base + 0.06), (x + low * 0.9, base + 0.02)],
            shade(outfit.second, gain),
        )
