"""Sprites of cyclists: a bicycle with turning pedals and its rider; both together are one object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.scene.brush import Canvas, Colour, shade
from edge.scene.figure import Joint, Outfit, Painter, View
from edge.scene.pedestrian import cloth_colour, draw_outfit

if TYPE_CHECKING:
    from edge.types import UInt8

_WHEEL_M = 0.345
_REAR, _FRONT = -0.52, 0.53


@dataclass(frozen=True, slots=True)
class Cyclist:
    """A rider and the bicycle.

    Attributes:
        rider: the person.
        frame: colour of the bicycle's frame.
        lean: metres that the shoulders are ahead of the hips.
        basket, box: whether there is a basket in front, a delivery box behind.
    """

    rider: Outfit
    frame: Colour
    lean: float
    basket: bool
    box: bool


def draw_cyclist(rng: np.random.Generator) -> Cyclist:
    """A random cyclist."""
    rider = draw_outfit(rng, rain=False, rider=True)
    return Cyclist(
        rider, cloth_colour(rng), float(rng.uniform(0.12, 0.42)), bool(rng.random() < 0.25), bool(rng.random() < 0.12)
    )


def paint_cyclist(
    cyclist: Cyclist, view: View, phase: float, scale: float, light: float, tint: Colour
) -> tuple[UInt8, tuple[float, float]]:
    """Paint one cyclist; ``phase`` is the angle of the pedals. Returns as ``paint_pedestrian``."""
    canvas = Canvas(1.1, 1.1, 2.0, 0.35, scale)
    painter = Painter(canvas, View(view.heading, min(view.elevation, 0.25)), light)
    sides = (-1, 1) if painter.view.depth((0, -1, 0)) > painter.view.depth((0, 1, 0)) else (1, -1)
    front_first = math.cos(view.heading) > 0
    _wheel(painter, _FRONT if front_first else _REAR, phase)
    _leg(painter, cyclist, sides[0], phase)
    _arm(painter, cyclist, sides[0])
    if front_first:
        _front(painter, cyclist)
    _frame(painter, cyclist)
    _wheel(painter, _REAR if front_first else _FRONT, phase)
    _body(painter, cyclist)
    if not front_first:
        _front(painter, cyclist)
    _leg(painter, cyclist, sides[1], phase)
    _arm(painter, cyclist, sides[1])
    return canvas.finish(tint, 0.011 * scale, 0.1, cyclist.rider.seed)


def _ring(painter: Painter, along: float, radius: float) -> list[tuple[float, float]]:
    bend = [2 * math.pi * step / 28 for step in range(28)]
    return [painter.view.flat((along + radius * math.cos(a), 0.0, _WHEEL_M + radius * math.sin(a))) for a in bend]


def _wheel(painter: Painter, along: float, phase: float) -> None:
    canvas = painter.canvas
    hub = painter.view.flat((along, 0.0, _WHEEL_M))
    for spoke in range(4):
        angle = phase * 2.3 + spoke * math.pi / 4
        ends = [
            (along + side * 0.3 * math.cos(angle), 0.0, _WHEEL_M + side * 0.3 * math.sin(angle)) for side in (-1, 1)
        ]
        canvas.line([painter.view.flat(end) for end in ends], 0.006, (150, 150, 150))
    canvas.line(_ring(painter, along, _WHEEL_M - 0.02), 0.045, (34, 33, 33), closed=True)
    canvas.line(_ring(painter, along, _WHEEL_M - 0.055), 0.012, (105, 106, 108), closed=True)
    canvas.disc(hub, 0.04, (80, 80, 82))


def _frame(painter: Painter, cyclist: Cyclist) -> None:
    seat, crank, head, rear = (-0.2, 0, 0.86), (-0.04, 0, 0.3), (0.36, 0, 0.82), (_REAR, 0, _WHEEL_M)
    for a, b in (
        (seat, crank),
        (crank, head),
        ((-0.17, 0, 0.78), head),
        (crank, rear),
        ((-0.17, 0, 0.76), rear),
        (head, (_FRONT, 0, _WHEEL_M)),
    ):
        painter.limb(a, b, 0.022, 0.022, cyclist.frame)
    painter.limb((-0.32, 0, 0.92), (-0.1, 0, 0.92), 0.045, 0.025, (40, 38, 38))
    painter.limb((-0.2, 0, 0.9), seat, 0.016, 0.016, (120, 120, 120))
    if cyclist.box:
        corners = [
            painter.view.flat(corner)
            for corner in ((-0.78, 0.2, 0.82), (-0.3, 0.2, 0.82), (-0.3, -0.2, 0.82), (-0.78, -0.2, 0.82))
        ]
        left, right = min(x for x, _ in corners), max(x for x, _ in corners)
        base = min(y for _, y in corners)
        painter.canvas.polygon(
            [(left, base), (right, base), (right, base + 0.45), (left, base + 0.45)],
            shade(cyclist.rider.bag_colour, 0.8),
        )
        painter.canvas.polygon(
            [
                (left + 0.04, base + 0.05),
                (right - 0.04, base + 0.05),
                (right - 0.04, base + 0.41),
                (left + 0.04, base + 0.41),
            ],
            cyclist.rider.bag_colour,
        )


def _front(painter: Painter, cyclist: Cyclist) -> None:
    painter.limb((0.36, 0, 0.82), (0.34, 0, 1.0), 0.02, 0.02, (70, 70, 72))
    painter.limb((0.36, -0.27, 1.03), (0.36, 0.27, 1.03), 0.02, 0.02, (60, 60, 62))
    if cyclist.basket:
        x, y = painter.view.flat((0.56, 0, 0.78))
        painter.canvas.polygon(
            [(x - 0.18, y + 0.26), (x - 0.14, y), (x + 0.14, y), (x + 0.18, y + 0.26)], (70, 100, 130)
        )
        painter.canvas.line([(x - 0.17, y + 0.14), (x + 0.17, y + 0.14)], 0.02, (50, 75, 100))
    lamp = painter.view.flat((0.42, 0, 0.94))
    painter.canvas.disc(lamp, 0.035, (235, 245, 250) if math.cos(painter.view.heading) < 0 else (60, 60, 62))


def _leg(painter: Painter, cyclist: Cyclist, side: int, phase: float) -> None:
    rider = cyclist.rider
    angle = phase + (math.pi if side > 0 else 0.0)
    foot = (-0.04 + 0.17 * math.cos(angle), side * 0.11, 0.33 + 0.17 * math.sin(angle))
    hip = (-0.2, side * 0.09, 0.98)
    knee = _bend(hip, foot, 0.46, 0.45, side * 0.12)
    painter.limb(
        (foot[0] - 0.06, foot[1], foot[2] - 0.03), (foot[0] + 0.13, foot[1], foot[2] - 0.04), 0.042, 0.03, rider.shoes
    )
    shin = rider.bottom if rider.legs == "trousers" else rider.skin
    painter.chain(
        (hip, knee, (foot[0], foot[1], foot[2] + 0.05)), (0.09 * rider.build, 0.062, 0.043), (rider.bottom, shin)
    )


def _bend(hip: Joint, foot: Joint, upper: float, lower: float, across: float) -> Joint:
    """The knee in front of the line from hip to foot (two-link inverse kinematics in the plane of the bicycle)."""
    dx, dz = foot[0] - hip[0], foot[2] - hip[2]
    reach = min(upper + lower - 1e-3, math.hypot(dx, dz))
    inner = math.acos((upper**2 + reach**2 - lower**2) / (2 * upper * reach))
    angle = math.atan2(dz, dx) + inner
    return hip[0] + upper * math.cos(angle), across, hip[2] + upper * math.sin(angle)


def _arm(painter: Painter, cyclist: Cyclist, side: int) -> None:
    rider = cyclist.rider
    shoulder = (-0.2 + cyclist.lean, side * 0.19, 1.43 - 0.3 * cyclist.lean)
    hand = (0.36, side * 0.25, 1.06)
    elbow = tuple((a + b) / 2 + shift for a, b, shift in zip(shoulder, hand, (-0.02, side * 0.05, -0.07), strict=True))
    lower = rider.top if rider.sleeves == "long" else rider.skin
    painter.limb(hand, hand, 0.04, 0.035, rider.skin)
    painter.chain((shoulder, (elbow[0], elbow[1], elbow[2]), hand), (0.065, 0.05, 0.036), (rider.top, lower))


def _body(painter: Painter, cyclist: Cyclist) -> None:
    rider, lean = cyclist.rider, cyclist.lean
    top = 1.5 - 0.3 * lean
    painter.torso((-0.21, 0, 1.0), (-0.2 + lean, 0, top), rider, (0.2 * rider.build, 0.125 * rider.build))
    if rider.bag == "backpack":
        painter.limb((-0.34 + lean, 0, top - 0.14), (-0.36 + lean * 0.4, 0, top - 0.36), 0.12, 0.13, rider.bag_colour)
    painter.limb((-0.19 + lean, 0, top), (-0.15 + lean, 0, top + 0.08), 0.06, 0.055, shade(rider.skin, 0.85))
    painter.head((-0.13 + lean, 0, top + 0.16), 0.122, rider)
