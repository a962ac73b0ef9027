"""Sprites of the traffic, painted when first needed and kept within a fixed amount of memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from edge.scene.car import paint_car
from edge.scene.car_shapes import Car
from edge.scene.compose import Sprite
from edge.scene.cyclist import Cyclist, paint_cyclist
from edge.scene.figure import View
from edge.scene.pedestrian import joints_of, paint_pedestrian

if TYPE_CHECKING:
    from edge.scene.traffic import Actor
    from edge.scene.variation import SceneVariation

# pixels per metre; a sprite is painted at the next larger one and made smaller
_SCALES = (16.0, 24.0, 36.0, 54.0, 80.0, 120.0, 160.0)
_STEPS = 12
_MAX_BYTES = 160 << 20


class SpriteBook:
    """Paints sprites and remembers those used last."""

    def __init__(self, variation: SceneVariation) -> None:
        self._variation = variation
        self._pages: OrderedDict[tuple[int | bool, ...], Sprite] = OrderedDict()
        self._bytes = 0

    def get(self, actor: Actor, view: View, scale: float) -> Sprite:
        """The sprite of an actor seen from ``view``, to be shown at ``scale`` pixels per metre."""
        level = next((row for row, known in enumerate(_SCALES) if known >= scale), len(_SCALES) - 1)
        is_car = isinstance(actor.model, Car)
        turn = 24 if not is_car else 72 if level < 4 else 120
        heading = round(view.heading / (2 * math.pi) * turn) % turn
        phase, moving = _pose(actor)
        tilt = round(view.elevation / 0.06) if is_car else 2
        key = (actor.track_id, level, heading, tilt, phase, moving, actor.braking and is_car)
        known = self._pages.get(key)
        if known is not None:
            self._pages.move_to_end(key)
            return known
        stepped = View(heading * 2 * math.pi / turn, tilt * 0.06)
        sprite = self._paint(actor, stepped, phase, moving, _SCALES[level])
        self._pages[key] = sprite
        self._bytes += sprite.image.nbytes
        while self._bytes > _MAX_BYTES:
            self._bytes -= self._pages.popitem(last=False)[1].image.nbytes
        return sprite

    def _paint(self, actor: Actor, view: View, phase: int, moving: bool, scale: float) -> Sprite:
        light, tint = self._variation.sun, self._variation.ambient
        angle = phase * 2 * math.pi / _STEPS
        match actor.model:
            case Car():
                image, foot = paint_car(actor.model, view, actor.braking, angle / 5, scale, light, tint)
            case Cyclist():
                image, foot = paint_cyclist(actor.model, view, -angle, scale, light, tint)
            case outfit:
                stride = 1.0 if moving else 0.12
                image, foot = paint_pedestrian(outfit, view, angle, stride, scale, light, tint)
                return Sprite(image, foot, scale, joints_of(outfit, view, angle, stride))
        return Sprite(image, foot, scale)


def _pose(actor: Actor) -> tuple[int, bool]:
    """Step of the gait, pedals or wheels, and whether the actor moves."""
    match actor.model:
        case Car():
            # the rims turn too fast to be seen; a few positions are enough
            return int(actor.travelled * 3) % 3, True
        case Cyclist():
            return int(actor.travelled / 4.6 * _STEPS) % _STEPS, True
        case outfit:
            moving = actor.speed > 0.25
            cycle_m = 0.82 * outfit.height
            return (int(actor.travelled / cycle_m * _STEPS) % _STEPS if moving else 0), moving
