"""Speeds of tracks in pixels per second and, with a calibrated ground plane, in metres per second. N tracks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.analytics.geometry import area_of, crosses_itself
from edge.errors import ConfigError

if TYPE_CHECKING:
    from edge.config.analytics import GroundSettings
    from edge.types import Float32, Float64, Tracks

# of the quadrilateral's area: a corner with less than this is as good as on the line between its neighbours
MIN_CORNER_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Motion:
    """How the tracks of a frame move; the ground columns are NaN without calibration or beyond its reach.

    Attributes:
        speed_px_s: (N,) pixels per second of the box centre.
        speed_m_s: (N,) metres per second on the ground.
        ground_m: (N, 2) where the bottom centre stands.
    """

    speed_px_s: Float32
    speed_m_s: Float32
    ground_m: Float32


class Ground:
    """Maps picture points on the ground to metres: the homography through four points (direct linear transform)."""

    def __init__(self, settings: GroundSettings, where: str, width: int, height: int) -> None:
        image = np.array(settings.pixels(width, height), np.float64)
        metres = np.array(settings.ground_m, np.float64)
        for points, name in ((image, "image points"), (metres, "ground_m")):
            _check_quadrilateral(points, f"{where}: its {name}")
        self._matrix = _homography(image, metres)
        # the sign of the third coordinate tells this side of the horizon from the other
        self._sign = np.sign(np.append(image.mean(0), 1.0) @ self._matrix[2])
        self._max_m_per_px = settings.max_m_per_px

    def locate(self, points: Float32, velocity: Float32) -> tuple[Float64, Float64]:
        """Where picture points stand and how fast they move there.

        Args:
            points: (N, 2) pixels.
            velocity: (N, 2) pixels per second.

        Returns:
            (N, 2) metres and (N,) metres per second, NaN at or above the horizon and where a pixel covers more than
            ``max_m_per_px``.
        """
        homogeneous = np.column_stack((points.astype(np.float64), np.ones(len(points)))) @ self._matrix.T
        weight = homogeneous[:, 2:]
        is_ground = (weight * self._sign)[:, 0] > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            metres = homogeneous[:, :2] / weight
            # derivative of the projection: (H_xy - metres * H_w) / w
            jacobian = (self._matrix[None, :2, :2] - metres[..., None] * self._matrix[2, :2]) / weight[..., None]
            scale = np.sqrt((jacobian**2).sum((1, 2)))
            is_ground &= scale <= self._max_m_per_px * np.sqrt(2)
            speed = np.hypot(*np.einsum("nij,nj->in", jacobian, velocity.astype(np.float64)))
        metres[~is_ground] = np.nan
        speed[~is_ground] = np.nan
        return metres, speed


def motion_of(tracks: Tracks, ground: Ground | None) -> Motion:
    """Speeds and ground positions of all tracks of a frame."""
    speed_px_s = np.hypot(tracks.velocity[:, 0], tracks.velocity[:, 1])
    if ground is None:
        nothing = np.full(len(tracks), np.nan, np.float32)
        return Motion(speed_px_s, nothing, np.column_stack((nothing, nothing)))
    box = tracks.xyxy
    metres, speed_m_s = ground.locate(np.column_stack(((box[:, 0] + box[:, 2]) / 2, box[:, 3])), tracks.velocity)
    return Motion(speed_px_s, speed_m_s.astype(np.float32), metres.astype(np.float32))


def _check_quadrilateral(points: Float64, where: str) -> None:
    """See that four points are the corners of a convex quadrilateral, in order."""
    if not np.isfinite(points).all():
        raise ConfigError(f"{where} must be finite numbers, found {points.tolist()}")
    if crosses_itself(points):
        raise ConfigError(f"{where} {points.tolist()} cross over; give them in order around the quadrilateral")
    triangles = [area_of(np.delete(points, corner, 0)) for corner in range(4)]
    whole = area_of(points)
    if min(triangles) < MIN_CORNER_SHARE * whole or whole == 0:
        raise ConfigError(f"{where} {points.tolist()} lie three on a line; choose four corners of a wide area")
    # a diagonal that leaves the quadrilateral cuts it into two triangles that are larger than it together
    if max(triangles[0] + triangles[2], triangles[1] + triangles[3]) > whole * (1 + 1e-9):
        raise ConfigError(f"{where} {points.tolist()} have a corner that points inwards; choose a convex quadrilateral")


def _homography(image: Float64, metres: Float64) -> Float64:
    """(3, 3) with ``metres ~ H @ (x, y, 1)``, from four pairs (Hartley & Zisserman, 4.1)."""
    to_unit = _normaliser(image)
    points = np.column_stack((image, np.ones(4))) @ to_unit.T
    rows = []
    for (x, y, _), (u, v) in zip(points, metres - metres.mean(0), strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y, -u])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y, -v])
    solution = np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)
    shift = np.eye(3)
    shift[:2, 2] = metres.mean(0)
    matrix: Float64 = shift @ solution @ to_unit
    matrix /= np.abs(matrix).max()
    return matrix


def _normaliser(points: Float64) -> Float64:
    """(3, 3) that moves points to mean 0 and mean distance about 1."""
    centre = points.mean(0)
    scale = 1 / np.hypot(*(points - centre).T).mean()
    return np.array([[scale, 0, -scale * centre[0]], [0, scale, -scale * centre[1]], [0, 0, 1]])
