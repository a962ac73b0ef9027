"""Sprites of cars: a body lofted from a side profile, with glass, wheels, lights and shading, seen from any side."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.scene.brush import Canvas, Colour, Point, mix, shade
from edge.scene.car_shapes import SHAPES, Car, CarShape, length_m

if TYPE_CHECKING:
    from edge.scene.figure import Joint, View
    from edge.types import UInt8

_GLASS: Colour = (78, 66, 55)


@dataclass(frozen=True, slots=True)
class _Body:
    """The car being painted."""

    car: Car
    shape: CarShape
    canvas: Canvas
    view: View
    light: float
    braking: bool

    def lit(self, colour: Colour, normal: Joint) -> Colour:
        """The colour of a face: light of the sky from above, of the sun from one side."""
        side = normal[0] * math.sin(self.view.heading) + normal[1] * math.cos(self.view.heading)
        gain = 0.58 + 0.32 * max(0.0, normal[2]) + 0.2 * max(0.0, side * self.light)
        return shade(colour, gain, 0.16 * max(0.0, normal[2]) ** 2)

    def face(self, corners: list[Joint], colour: Colour) -> None:
        self.canvas.polygon([self.view.flat(corner) for corner in corners], colour)

    def faces_viewer(self, normal: Joint) -> bool:
        cos, sin = math.cos(self.view.heading), math.sin(self.view.heading)
        level = -normal[0] * cos + normal[1] * sin
        return level * math.cos(self.view.elevation) + normal[2] * math.sin(self.view.elevation) > 0.01

    @property
    def near(self) -> int:
        """1 where the right side of the car is turned to the viewer, else -1."""
        return 1 if math.sin(self.view.heading) > 0 else -1


def paint_car(
    car: Car, view: View, braking: bool, roll: float, scale: float, light: float, tint: Colour
) -> tuple[UInt8, tuple[float, float]]:
    """Paint one car; ``roll`` is the angle of the wheels. Returns as ``paint_pedestrian``."""
    reach = length_m(car) / 2 + 0.35
    canvas = Canvas(reach, reach, 2.3 + 2.6 * math.sin(view.elevation), 0.15 + 2.6 * math.sin(view.elevation), scale)
    body = _Body(car, SHAPES[car.shape], canvas, view, light, braking)
    _underside(body)
    _strips(body, body.shape.hull, body.shape.width / 2, body.shape.width / 2)
    _ends(body)
    if abs(math.sin(view.heading)) > 0.02:
        _flank(body)
        for axle in body.shape.axles:
            _wheel(body, axle, roll)
    _cabin(body)
    return canvas.finish(tint, 0.014 * scale, 0.0, car.seed)


def _underside(body: _Body) -> None:
    half = body.shape.width / 2 - 0.05
    low, high = body.shape.hull[0][0] + 0.1, body.shape.hull[-1][0] - 0.1
    body.face([(low, -half, 0.2), (high, -half, 0.2), (high, half, 0.2), (low, half, 0.2)], (22, 22, 22))
    for side in (-1, 1):
        for axle in body.shape.axles:
            for across in (half - 0.2, half):
                _disc(body, axle, side * across, body.shape.wheel, (25, 25, 26))


def _disc(body: _Body, along: float, across: float, radius: float, colour: Colour, squash: float = 1.0) -> None:
    bend = [2 * math.pi * step / 24 for step in range(24)]
    body.face(
        [(along + radius * math.cos(a), across, body.shape.wheel + radius * math.sin(a) * squash) for a in bend], colour
    )


def _strips(body: _Body, line: tuple[Point, ...], low: float, high: float) -> None:
    """The faces between the two sides, farthest first; ``low``, ``high``: half widths at the line's foot and top."""
    pairs = list(itertools.pairwise(line))
    pairs.sort(key=lambda pair: -(pair[0][0] + pair[1][0]) * math.cos(body.view.heading))
    top = max(z for _, z in line)
    base = min(z for _, z in line)
    for (xa, za), (xb, zb) in pairs:
        length = math.hypot(xb - xa, zb - za)
        normal = (-(zb - za) / length, 0.0, (xb - xa) / length)
        if not body.faces_viewer(normal):
            continue
        wa, wb = (low + (high - low) * (z - base) / max(0.01, top - base) for z in (za, zb))
        colour = body.lit(body.car.paint, normal)
        body.face([(xa, -wa, za), (xb, -wb, zb), (xb, wb, zb), (xa, wa, za)], colour)
        if normal[2] > 0.8:
            body.face(
                [(xa, -wa * 0.5, za), (xb, -wb * 0.5, zb), (xb, wb * 0.6, zb), (xa, wa * 0.6, za)],
                shade(colour, 1.06, 0.1),
            )


def _ends(body: _Body) -> None:
    """Bumper, grille, lamps and plate of the end that is turned to the viewer."""
    is_front = math.cos(body.view.heading) < 0
    half = body.shape.width / 2
    high, middle, _ = body.shape.hull[-3:] if is_front else body.shape.hull[2::-1]
    x = (1 if is_front else -1) * (max(abs(high[0]), abs(middle[0])) + 0.01)
    paint = body.car.paint

    def plate(wide: float, narrow: float, low: float, top: float, colour: Colour) -> None:
        body.face([(x, -wide, low), (x, wide, low), (x, narrow, top), (x, -narrow, top)], colour)

    plate(half, half, 0.22, 0.45, shade(paint, 0.5))
    plate(half * 0.9, half * 0.9, 0.2, 0.3, (30, 30, 30))
    base, top = middle[1] - 0.04, middle[1] + 0.13
    if is_front:
        plate(half * 0.55, half * 0.5, base - 0.06, top - 0.04, (28, 27, 27))
        lamp: Colour = (225, 250, 255) if body.car.lamps else (205, 205, 200)
    else:
        plate(half * 0.7, half * 0.7, top + 0.02, top - 0.01, shade(paint, 0.5))
        lamp = (60, 60, 255) if body.braking else (45, 40, 190) if body.car.lamps else (35, 30, 140)
    for side in (-1, 1):
        _lamp(body, x, (side * half * 0.6, side * half * 0.98), (base, top), lamp)
    plate(0.25, 0.25, 0.36, 0.46, (215, 220, 222))


def _lamp(body: _Body, x: float, across: tuple[float, float], rows: tuple[float, float], colour: Colour) -> None:
    """A lamp at one corner of an end: from the inner to the outer edge, between two heights."""
    sign = 1 if x > 0 else -1
    (inner, outer), (low, top) = across, rows
    body.face(
        [(x, inner, low), (x, outer, low), (x - sign * 0.12, outer, top), (x - sign * 0.05, inner, top)],
        shade(colour, 0.6),
    )
    inner, outer, low, top = inner * 1.08, outer * 0.96, low + 0.03, top - 0.03
    body.face([(x, inner, low), (x, outer, low), (x - sign * 0.1, outer, top), (x - sign * 0.04, inner, top)], colour)


def _flank(body: _Body) -> None:
    """The side of the body below the windows: bands of reflected sky and ground, doors, lamps."""
    shape, side = body.shape, body.near
    across = side * shape.width / 2
    paint = body.lit(body.car.paint, (0.0, float(side), 0.0))
    rear, front = shape.hull[0][0], shape.hull[-1][0]
    body.face([(rear, across, 0.24), *[(x, across, z) for x, z in shape.hull], (front, across, 0.22)], paint)
    belt = shape.cabin[0][1]

    def patch(colour: Colour, *corners: Point) -> None:
        body.face([(x, across, z) for x, z in corners], colour)

    bands = (
        (belt - 0.16, belt - 0.03, 1.12, 0.14),
        (0.5, 0.6, 0.9, 0.0),
        (0.3, 0.5, 0.78, 0.0),
        (0.22, 0.31, 0.45, 0.0),
    )
    for low, high, gain, lift in bands:
        ends = [x for x, z in shape.hull if z >= high - 0.05] if high > 0.65 else [rear, front]
        left, right = min(ends) + 0.06, max(ends) - (0.06 if high < 0.65 else 0.45)
        patch(shade(paint, gain, lift), (left, low), (right, low), (right - 0.05, high), (left + 0.05, high))
    _doors(body, across, belt, paint)
    z = belt - 0.1
    patch((40, 35, 165), (rear, z - 0.2), (rear + 0.16, z - 0.16), (rear + 0.12, z), (rear + 0.02, z))
    x, z = shape.hull[-3]
    patch((210, 212, 208), (x + 0.2, z - 0.14), (x - 0.2, z - 0.06), (x - 0.1, z - 0.01), (x + 0.18, z - 0.08))


def _doors(body: _Body, across: float, belt: float, paint: Colour) -> None:
    """Seams and handles."""
    flat = body.view.flat
    seams = [*body.shape.pillars, body.shape.cabin[3][0] - 0.15]
    for x in seams:
        body.canvas.line([flat((x, across, 0.34)), flat((x, across, belt))], 0.012, shade(paint, 0.5))
    for x in seams[1:]:
        ends = [flat((x - 0.28, across, belt - 0.13)), flat((x - 0.12, across, belt - 0.13))]
        body.canvas.line(ends, 0.025, shade(paint, 0.6))


def _wheel(body: _Body, axle: float, roll: float) -> None:
    across, radius = body.near * body.shape.width / 2, body.shape.wheel
    _disc(body, axle, across, radius * 1.18, (20, 20, 20))
    _disc(body, axle, across * 1.01, radius, (38, 37, 37))
    _disc(body, axle, across * 1.01, radius * 0.68, (150, 152, 155))
    _disc(body, axle, across * 1.01, radius * 0.6, (92, 93, 95))
    for spoke in range(5):
        angle = roll + spoke * 2 * math.pi / 5
        end = (axle + radius * 0.62 * math.cos(angle), across * 1.02, radius + radius * 0.62 * math.sin(angle))
        body.canvas.line([body.view.flat((axle, across * 1.02, radius)), body.view.flat(end)], 0.06, (176, 178, 180))
    _disc(body, axle, across * 1.02, radius * 0.16, (120, 120, 122))


def _cabin(body: _Body) -> None:
    """Roof, windscreens and side windows."""
    shape = body.shape
    low, high = shape.width / 2 - 0.05, shape.width / 2 - 0.19
    van = body.car.shape == "van"
    _strips(body, shape.cabin, low, high)
    rear_foot, rear_roof, front_roof, front_foot = shape.cabin
    for foot, roof, glazed in ((front_foot, front_roof, True), (rear_foot, rear_roof, not van)):
        sign = 1 if foot is front_foot else -1
        length = math.hypot(foot[0] - roof[0], foot[1] - roof[1])
        if glazed and body.faces_viewer((sign * (roof[1] - foot[1]) / length, 0.0, abs(foot[0] - roof[0]) / length)):
            _screen(body, foot, roof, low, high)
    side = body.near
    if abs(math.sin(body.view.heading)) < 0.02:
        return
    wall = [(x, side * (low if z < shape.cabin[1][1] - 0.2 else high), z) for x, z in shape.cabin]
    paint = body.lit(body.car.paint, (0.0, side * 0.9, 0.35))
    body.face(wall, paint)
    start = shape.pillars[0] + 0.06 if van else rear_foot[0] + 0.16
    stops = [start, *[x for x in shape.pillars if x > start], front_foot[0] - 0.12]
    for a, b in itertools.pairwise(stops):
        _window(body, a + 0.035, b - 0.035, side, (low, high))
    if body.car.taxi:
        x, y = body.view.flat((-0.4, 0.0, rear_roof[1]))
        body.canvas.polygon([(x - 0.2, y), (x - 0.16, y + 0.15), (x + 0.16, y + 0.15), (x + 0.2, y)], (80, 215, 245))


def _screen(body: _Body, foot: Point, roof: Point, low: float, high: float) -> None:
    """Front or rear window with the sky's reflection."""

    def at(share: float, across: float) -> Joint:
        half = (low + (high - low) * share) * 0.9
        return foot[0] + (roof[0] - foot[0]) * share, half * across, foot[1] + (roof[1] - foot[1]) * share

    sky: Colour = (190, 175, 160)
    body.face([at(0.06, -1), at(0.06, 1), at(0.92, 0.96), at(0.92, -0.96)], shade(_GLASS, 0.7))
    body.face([at(0.5, -0.97), at(0.5, 0.97), at(0.9, 0.94), at(0.9, -0.94)], mix(_GLASS, sky, 0.22))
    body.face([at(0.1, -0.6), at(0.1, -0.2), at(0.9, 0.3), at(0.9, -0.1)], mix(_GLASS, sky, 0.38))


def _window(body: _Body, start: float, stop: float, side: int, widths: tuple[float, float]) -> None:
    """A side window between two pillars, cut by the slanted posts of the cabin."""
    (x0, z0), (x1, z1), (x2, _), (x3, _) = body.shape.cabin
    low, high = z0 + 0.05, z1 - 0.08

    def at(x: float, z: float) -> Joint:
        share = (z - z0) / (z1 - z0)
        left, right = x0 + (x1 - x0) * share + 0.07, x3 + (x2 - x3) * share - 0.07
        return min(max(x, left), right), side * (widths[0] + (widths[1] - widths[0]) * share), z

    body.face([at(start, low), at(stop, low), at(stop, high), at(start, high)], shade(_GLASS, 0.8))
    middle = (low + high) / 2
    body.face([at(start, middle), at(stop, middle), at(stop, high), at(start, high)], mix(_GLASS, (185, 170, 155), 0.3))
