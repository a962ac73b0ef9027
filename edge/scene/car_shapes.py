"""What cars there are: side profiles, paints, and how one is drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.scene.brush import Colour, Point, shade

PAINTS: tuple[Colour, ...] = (
    (40, 38, 38), (70, 68, 66), (128, 126, 122), (190, 188, 184), (232, 231, 228), (236, 236, 236),
    (45, 40, 150), (30, 30, 190), (140, 70, 35), (190, 110, 50), (105, 60, 30), (60, 95, 45), (60, 170, 215),
    (150, 185, 200), (40, 60, 90), (120, 130, 60),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CarShape:
    """A side profile. Metres; x runs from the rear (negative) to the front, z up.

    Attributes:
        hull: upper line of the body below the windows, rear to front: (x, z).
        cabin: the window part: rear foot, rear roof edge, front roof edge, front foot.
        axles: x of the rear and the front axle; wheel: radius.
        width: of the body; pillars: x of the door pillars.
    """

    hull: tuple[Point, ...]
    cabin: tuple[Point, Point, Point, Point]
    axles: tuple[float, float]
    wheel: float
    width: float
    pillars: tuple[float, ...]


SHAPES = {
    "hatchback": CarShape(
        ((-1.95, 0.42), (-1.98, 0.72), (-1.9, 0.95), (0.75, 0.95), (1.75, 0.76), (1.98, 0.6), (1.96, 0.35)),
        ((-1.88, 0.95), (-1.45, 1.46), (0.15, 1.48), (0.98, 0.94)), (-1.25, 1.28), 0.31, 1.74, (-1.0, -0.15),
    ),
    "saloon": CarShape(
        ((-2.3, 0.42), (-2.33, 0.7), (-2.25, 0.93), (-1.55, 0.98), (0.85, 0.95), (2.05, 0.77), (2.32, 0.6),
         (2.3, 0.34)),
        ((-1.75, 0.96), (-1.05, 1.41), (0.2, 1.43), (1.1, 0.94)), (-1.4, 1.42), 0.33, 1.8, (-0.95, -0.1),
    ),
    "estate": CarShape(
        ((-2.3, 0.42), (-2.34, 0.75), (-2.28, 0.97), (0.85, 0.96), (2.05, 0.78), (2.32, 0.6), (2.3, 0.34)),
        ((-2.22, 0.97), (-1.9, 1.45), (0.2, 1.47), (1.1, 0.95)), (-1.4, 1.42), 0.33, 1.8, (-1.45, -0.85, -0.1),
    ),
    "suv": CarShape(
        ((-2.2, 0.5), (-2.25, 0.85), (-2.18, 1.1), (0.85, 1.1), (1.95, 0.97), (2.24, 0.8), (2.2, 0.42)),
        ((-2.12, 1.1), (-1.8, 1.68), (0.1, 1.7), (0.98, 1.09)), (-1.35, 1.36), 0.38, 1.88, (-1.25, -0.3),
    ),
    "van": CarShape(
        ((-2.45, 0.5), (-2.5, 0.9), (-2.5, 1.15), (1.55, 1.12), (2.2, 0.98), (2.42, 0.75), (2.4, 0.4)),
        ((-2.49, 1.15), (-2.44, 2.02), (0.95, 2.04), (1.72, 1.1)), (-1.5, 1.55), 0.35, 1.96, (0.5,),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Car:
    """One car: its shape, paint, whether the lamps are on, whether it is a taxi, and the seed of small things."""

    shape: str
    paint: Colour
    lamps: bool
    taxi: bool
    seed: int


def draw_car(rng: np.random.Generator, lamps: bool) -> Car:
    """A random car."""
    names = tuple(SHAPES)
    shape = names[int(rng.choice(len(names), p=[0.3, 0.25, 0.13, 0.2, 0.12]))]
    paint = PAINTS[rng.integers(len(PAINTS))]
    if shape == "van" and rng.random() < 0.6:
        paint = (235, 234, 232)
    paint = shade(paint, rng.uniform(0.85, 1.1))
    return Car(shape, paint, lamps, bool(shape == "saloon" and rng.random() < 0.15), int(rng.integers(1 << 16)))


def length_m(car: Car) -> float:
    """Length of the car in metres."""
    hull = SHAPES[car.shape].hull
    return max(x for x, _ in hull) - min(x for x, _ in hull)
