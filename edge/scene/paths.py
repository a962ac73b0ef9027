"""Ways through the street, and how far along them something has come at a given time. n points."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edge.types import Float64

_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """Distance covered since time 0: a table over one period, repeated forever."""

    distance: Float64
    period_s: float

    def at(self, time_s: float) -> float:
        """Metres covered by then."""
        rounds, rest = divmod(time_s, self.period_s)
        return float(
            rounds * self.distance[-1] + np.interp(rest / _STEP_S, np.arange(len(self.distance)), self.distance)
        )


def draw_pace(
    rng: np.random.Generator, speed: float, pauses: float, pause_s: tuple[float, float], soft_s: float
) -> Pace:
    """A pace around ``speed`` (m/s) with about ``pauses`` stops a minute, changing over ``soft_s`` seconds."""
    steps = int(rng.uniform(40, 70) / _STEP_S)
    times = np.arange(steps) * _STEP_S
    factor = 1 + 0.12 * np.sin(2 * math.pi * (times / times[-1] * rng.integers(2, 6) + rng.random()))
    for _ in range(rng.poisson(pauses * steps * _STEP_S / 60)):
        start = rng.integers(steps)
        factor[start : start + int(rng.uniform(*pause_s) / _STEP_S)] = 0.0
    size = max(3, int(soft_s / _STEP_S))
    smooth = np.convolve(np.concatenate([factor[-size:], factor, factor[:size]]), np.ones(size) / size, "same")[
        size:-size
    ]
    return Pace(np.concatenate([[0.0], np.cumsum(smooth * speed * _STEP_S)]), steps * _STEP_S)


@dataclass(frozen=True, slots=True)
class Path:
    """A way through the street: (n,) ``s`` and ``t`` of points, (n,) metres from the first."""

    s: Float64
    t: Float64
    length: Float64

    def at(self, metres: float) -> tuple[float, float, float]:
        """``s``, ``t`` and heading there."""
        s, t = (float(np.interp(metres, self.length, line)) for line in (self.s, self.t))
        ahead, behind = min(metres + 0.4, float(self.length[-1])), max(metres - 0.4, 0.0)
        ds, dt = (
            float(np.interp(ahead, self.length, line) - np.interp(behind, self.length, line))
            for line in (self.s, self.t)
        )
        return s, t, math.atan2(dt, ds)


def make_path(corners: list[tuple[float, float]], radius: float) -> Path:
    """Straight lines between corners that are rounded off."""
    points = []
    for (sa, ta), (sb, tb) in itertools.pairwise(corners):
        steps = max(2, int(math.hypot(sb - sa, tb - ta) / 0.25))
        share = np.linspace(0, 1, steps, endpoint=False)
        points.append(np.stack([sa + (sb - sa) * share, ta + (tb - ta) * share]))
    line = np.concatenate([*points, np.array(corners[-1])[:, None]], axis=1)
    size = max(1, int(radius / 0.25)) * 2 + 1
    padded = np.pad(line, ((0, 0), (size // 2, size // 2)), mode="edge")
    s, t = (np.convolve(row, np.ones(size) / size, "valid") for row in padded)
    steps_m = np.hypot(np.diff(s), np.diff(t))
    return Path(s, t, np.concatenate([[0.0], np.cumsum(steps_m)]))
