"""Where the camera of the synthetic street stands, and how street metres become pixels.

Street metres: ``s`` along the street, 0 at the camera and growing away from it; ``t`` across it to the right; ``y`` up.
The picture plane stays upright (a shifted lens), so verticals of the street are verticals of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edge.types import Float64


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera.

    Attributes:
        width, height: pixels of the picture.
        focal_px: pixels per unit of x/z.
        horizon_px: row of the horizon.
        height_m: of the lens above the ground.
        offset_m: ``t`` of the lens.
        yaw: radians that the camera looks to the right of the street's direction.
    """

    width: int
    height: int
    focal_px: float
    horizon_px: float
    height_m: float
    offset_m: float
    yaw: float

    def to_view(self, s: Float64, t: Float64) -> tuple[Float64, Float64]:
        """Metres to the right of the camera's axis, and metres of depth along it; any shape."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        across = t - self.offset_m
        return across * cos - s * sin, s * cos + across * sin

    def project(self, s: Float64, t: Float64, y: Float64) -> tuple[Float64, Float64, Float64]:
        """Column, row and depth (m) of points of the street; depths below 5 cm are taken as 5 cm."""
        x, z = self.to_view(s, t)
        z = np.maximum(z, 0.05)
        return self.width / 2 + self.focal_px * x / z, self.horizon_px + self.focal_px * (self.height_m - y) / z, z

    def point(self, s: float, t: float, y: float = 0.0) -> tuple[float, float, float]:
        """``project`` for one point."""
        u, v, z = self.project(np.float64(s), np.float64(t), np.float64(y))
        return float(u), float(v), float(z)

    def plane(self, s0: float, t0: float, ds: float, dt: float) -> Float64:
        """(3, 3) homography from a wall's (metres along, metres up, 1) to pixels; the wall starts at (s0, t0)."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        across = t0 - self.offset_m
        x = np.array([dt * cos - ds * sin, 0.0, across * cos - s0 * sin])
        z = np.array([ds * cos + dt * sin, 0.0, s0 * cos + across * sin])
        y = np.array([0.0, -1.0, self.height_m])
        return np.stack([self.width / 2 * z + self.focal_px * x, self.horizon_px * z + self.focal_px * y, z])

    def ground(self) -> tuple[int, Float64, Float64, Float64]:
        """Where the rows below the horizon meet the ground.

        Returns:
            First row, then (rows, W) ``s``, (rows, W) ``t`` and (rows, 1) depth in metres.
        """
        first = max(0, math.floor(self.horizon_px) + 1)
        rows = np.arange(first, self.height, dtype=np.float64)[:, None] + 0.5
        z = self.focal_px * self.height_m / np.maximum(rows - self.horizon_px, 0.3)
        x = (np.arange(self.width, dtype=np.float64)[None, :] + 0.5 - self.width / 2) / self.focal_px * z
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return first, z * cos - x * sin, z * sin + x * cos + self.offset_m, z
