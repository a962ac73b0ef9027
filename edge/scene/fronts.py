"""House fronts painted flat: plaster or brick, windows, doors, balconies and shops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.scene.brush import Colour, mix, shade
from edge.scene.ground import stains

if TYPE_CHECKING:
    from edge.types import UInt8

_PLASTER: tuple[Colour, ...] = (
    (170, 195, 215), (150, 185, 205), (185, 205, 215), (120, 150, 190), (95, 115, 160), (80, 95, 140),
    (190, 190, 185), (160, 150, 140), (140, 175, 160), (185, 175, 160), (205, 215, 222), (115, 130, 150),
    (90, 100, 110), (150, 160, 200),
)  # fmt: skip
_SHOPS: tuple[Colour, ...] = ((60, 40, 120), (90, 60, 30), (50, 90, 45), (40, 40, 45), (60, 120, 190), (140, 100, 60))


def paint_side(length: float, height: float, per_m: float, tone: float, seed: int) -> UInt8:
    """A wall without windows; as ``paint_front``."""
    rng = np.random.default_rng(seed)
    base = shade(_PLASTER[rng.integers(len(_PLASTER))], 0.8 * tone)
    return _plaster(length, height, per_m, base, seed)


def _plaster(length: float, height: float, per_m: float, base: Colour, seed: int) -> UInt8:
    size = (max(4, int(length * per_m)), max(4, int(height * per_m)))
    rows = np.linspace(1.05, 0.88, 128, dtype=np.float32)[:, None]
    gain = rows * (1 + 0.03 * stains(seed % 4)[:128, :128])
    colours = np.clip(np.array(base, np.float32) * gain[:, :, None], 0, 255).astype(np.uint8)
    plaster: UInt8 = cv2.resize(colours, size, interpolation=cv2.INTER_LINEAR)
    return plaster


class _Front:
    """A house front being painted: metres along and up."""

    def __init__(self, texture: UInt8, per_m: float, height: float) -> None:
        self.texture, self.per_m, self.height = texture, per_m, height

    def box(self, x0: float, x1: float, y0: float, y1: float, colour: Colour) -> None:
        a = (round(x0 * self.per_m), round((self.height - y1) * self.per_m))
        b = (max(a[0], round(x1 * self.per_m) - 1), max(a[1], round((self.height - y0) * self.per_m) - 1))
        cv2.rectangle(self.texture, a, b, colour, -1)


def paint_front(length: float, height: float, per_m: float, tone: float, seed: int, dusk: float) -> UInt8:
    """A front with rows of windows, a shop or doors below and a cornice above.

    Args:
        length, height: metres.
        per_m: texels per metre.
        tone: gain of the light that falls on it.
        seed: of the house.
        dusk: 0 day .. 1 windows are lit.

    Returns:
        (h, w, 3) uint8 BGR.
    """
    rng = np.random.default_rng(seed)
    base = shade(_PLASTER[rng.integers(len(_PLASTER))], tone)
    front = _Front(_plaster(length, height, per_m, base, seed), per_m, height)
    trim = shade(base, float(rng.choice([0.75, 1.18])), 0.06)
    if rng.random() < 0.35:
        _courses(front, length, base)
    columns = max(1, int(length / float(rng.uniform(2.0, 3.2))))
    size = float(rng.uniform(0.9, 1.4)), float(rng.uniform(1.3, 1.9))
    frame = shade((225, 228, 230), float(rng.choice([0.35, 0.75, 1.0])))
    has_balconies = bool(rng.random() < 0.3)
    is_shop = bool(rng.random() < 0.55)
    for story in range(1 if is_shop else 0, max(1, int((height - 1.0) / 3.0))):
        for column in range(columns):
            x, y = (column + 0.5) * (length / columns), story * 3.0 + 1.0
            if story == 0 and column == columns // 2:
                _door(front, x, rng, trim)
            else:
                _window(front, (x, y, *size), frame, trim, rng, dusk)
            if has_balconies and story > 0 and column % 2 == 0:
                _balcony(front, x, y, size[0], trim)
        front.box(0, length, story * 3.0 + 0.02, story * 3.0 + 0.14, shade(trim, 0.9))
    if is_shop:
        _shop(front, length, rng, dusk)
    _edges(front, length, base, trim, mix((70, 75, 110), (80, 80, 85), float(rng.random())))
    return front.texture


def _edges(front: _Front, length: float, base: Colour, trim: Colour, roof: Colour) -> None:
    """Plinth, cornice, the edge of the roof, and a rain pipe."""
    height = front.height
    front.box(0, length, 0, 0.5, shade(base, 0.55))
    front.box(0, length, height - 0.75, height - 0.25, trim)
    front.box(0, length, height - 0.82, height - 0.72, shade(base, 0.55))
    front.box(0, length, height - 0.3, height, roof)
    front.box(length - 0.12, length, 0, height, shade(base, 0.6))


def _balcony(front: _Front, x: float, y: float, wide: float, trim: Colour) -> None:
    front.box(x - wide, x + wide, y - 0.15, y, shade(trim, 0.8))
    for bar in np.arange(x - wide, x + wide, 0.22):
        front.box(float(bar), float(bar) + 0.04, y, y + 0.85, (50, 48, 48))
    front.box(x - wide, x + wide, y + 0.8, y + 0.88, (45, 43, 43))


def _courses(front: _Front, length: float, base: Colour) -> None:
    """Lines of brickwork."""
    if front.per_m >= 12:
        for y in np.arange(0.0, front.height, 0.24):
            front.box(0, length, float(y), float(y) + 0.035, shade(base, 0.88))


def _window(
    front: _Front,
    place: tuple[float, float, float, float],
    frame: Colour,
    trim: Colour,
    rng: np.random.Generator,
    dusk: float,
) -> None:
    x, y, wide, tall = place
    lit = rng.random() < 0.45 * dusk
    glass = mix((95, 85, 72), (170, 150, 130), float(rng.random()) * 0.7)
    if dusk > 0:
        glass = mix((90, 190, 245), (120, 210, 250), float(rng.random())) if lit else shade(glass, 0.6)
    front.box(x - wide / 2 - 0.14, x + wide / 2 + 0.14, y - 0.14, y + tall + 0.18, trim)
    front.box(x - wide / 2 - 0.05, x + wide / 2 + 0.05, y - 0.02, y + tall + 0.05, frame)
    front.box(x - wide / 2 + 0.03, x + wide / 2 - 0.03, y + 0.05, y + tall - 0.03, glass)
    front.box(x - wide / 2 + 0.03, x + wide / 2 - 0.03, y + tall * 0.72, y + tall - 0.03, shade(glass, 0.72))
    if rng.random() < 0.5:
        curtain = shade((215, 220, 222), float(rng.uniform(0.55, 0.95)))
        front.box(x - wide / 2 + 0.03, x - wide / 4, y + 0.05, y + tall - 0.03, mix(glass, curtain, 0.6))
        front.box(x + wide / 4, x + wide / 2 - 0.03, y + 0.05, y + tall - 0.03, mix(glass, curtain, 0.6))
    front.box(x - 0.03, x + 0.03, y, y + tall, frame)
    front.box(x - wide / 2, x + wide / 2, y + tall * 0.66, y + tall * 0.69, frame)
    front.box(x - wide / 2 - 0.2, x + wide / 2 + 0.2, y - 0.16, y - 0.05, shade(trim, 1.12))
    front.box(x - wide / 2 - 0.16, x + wide / 2 + 0.16, y - 0.24, y - 0.16, shade(trim, 0.6))


def _door(front: _Front, x: float, rng: np.random.Generator, trim: Colour) -> None:
    paint = shade(_SHOPS[rng.integers(len(_SHOPS))], 0.9)
    front.box(x - 0.7, x + 0.7, 0, 2.5, trim)
    front.box(x - 0.52, x + 0.52, 0, 2.3, paint)
    front.box(x - 0.4, x + 0.4, 1.2, 2.1, shade(paint, 0.7))
    front.box(x - 0.4, x + 0.4, 0.2, 1.0, shade(paint, 0.85))
    front.box(x - 0.4, x + 0.4, 2.32, 2.48, (150, 140, 125))


def _shop(front: _Front, length: float, rng: np.random.Generator, dusk: float) -> None:
    """Shop windows with a sign, an awning and things inside."""
    sign = _SHOPS[rng.integers(len(_SHOPS))]
    inside = mix((70, 80, 90), (130, 205, 245), dusk * 0.85)
    front.box(0.2, length - 0.2, 0.4, 3.05, shade(sign, 0.7))
    panes = max(2, int(length / 2.2))
    door = int(rng.integers(panes))
    for pane in range(panes):
        x0, x1 = 0.4 + pane * (length - 0.8) / panes, 0.4 + (pane + 1) * (length - 0.8) / panes - 0.15
        base = 0.1 if pane == door else 0.55
        front.box(x0, x1, base, 2.4, shade(inside, 0.75))
        front.box(x0, x1, 1.6, 2.4, inside)
        if pane != door:
            for _ in range(5):
                x = float(rng.uniform(x0, x1 - 0.3))
                front.box(
                    x,
                    x + float(rng.uniform(0.1, 0.3)),
                    base,
                    base + float(rng.uniform(0.2, 0.9)),
                    shade(_PLASTER[rng.integers(len(_PLASTER))], 0.75),
                )
        front.box(x0 + 0.1, x0 + 0.3, base, 2.4, shade(inside, 1.25, 0.08))
    front.box(0.2, length - 0.2, 2.45, 3.05, sign)
    text = shade((225, 230, 232), 1.0) if sum(sign) < 330 else (40, 40, 45)
    letters = int(rng.integers(4, 10))
    start = length / 2 - letters * 0.17
    for letter in range(letters):
        tall = float(rng.uniform(0.2, 0.32))
        front.box(start + letter * 0.34, start + letter * 0.34 + 0.22, 2.6, 2.6 + tall, text)
    if rng.random() < 0.45:
        stripe = _SHOPS[rng.integers(len(_SHOPS))]
        for row, x in enumerate(np.arange(0.2, length - 0.5, 0.4)):
            front.box(float(x), float(x) + 0.4, 2.0, 2.5, shade(stripe, 1.1) if row % 2 else (215, 220, 222))
        front.box(0.2, length - 0.2, 1.92, 2.0, (60, 60, 60))
