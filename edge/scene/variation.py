"""Everything about a street that is drawn from a seed: camera, layout, light, weather, lens and sensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge.scene.brush import Colour, mix
from edge.scene.camera import Camera

# raised whenever the same seed no longer gives the same picture
SCENE_VERSION = 1
# a person at the far end is 1.7 m and still about this share of the picture's height (40 of 720 rows)
_SMALLEST = 0.056


@dataclass(frozen=True, slots=True)
class SceneVariation:
    """One street. Colours are B, G, R in 0..255, lengths metres.

    Attributes:
        seed: of everything that is drawn later (houses, clutter, traffic).
        camera: where it stands.
        road_half: half the width of the road; pavement: width of each pavement.
        corner: ``s`` at which the houses on both sides end and a cross street begins; far: ``s`` of the houses beyond.
        parking: (left, right) whether cars may be parked at the kerb.
        mirrored: traffic keeps left.
        sun: -1 light from the left, 1 from the right; sunshine: 0 overcast .. 1 hard shadows.
        shade_m: how far the shadow of the houses reaches into the street.
        dusk: 0 day .. 1 lamps are on; rain: umbrellas are open and the road shines.
        ambient: gain per channel on everything; haze: colour of the distance; haze_per_m: how fast it comes.
        trees: share of places at the kerb with a tree; park: trees instead of houses at the far end.
        drift: amplitude of the slow exposure drift; clouds: amplitude of passing cloud shade.
        noise: sigma of the sensor in grey levels; blur_px: sigma of the lens; motion_px: length of a motion streak.
        jpeg: quality of compression, 0 for none.
    """

    seed: int
    camera: Camera
    road_half: float
    pavement: float
    corner: float
    far: float
    parking: tuple[bool, bool]
    mirrored: bool
    sun: float
    sunshine: float
    shade_m: float
    dusk: float
    rain: bool
    ambient: Colour
    haze: Colour
    haze_per_m: float
    trees: float
    park: bool
    drift: float
    clouds: float
    noise: float
    blur_px: float
    motion_px: float
    jpeg: int

    @property
    def wall(self) -> float:
        """Distance from the middle of the road to the houses."""
        return self.road_half + self.pavement

    @property
    def cross(self) -> tuple[float, float]:
        """``s`` at which the cross street's road begins and ends."""
        return self.corner + self.pavement, self.far - self.pavement


def draw_variation(seed: int, width: int, height: int, wide: bool) -> SceneVariation:
    """Draw a street.

    Args:
        seed: the same seed gives the same street.
        width, height: pixels of the picture.
        wide: also the unusual cameras, weathers and lenses that make good training material.
    """
    rng = np.random.default_rng([seed, 17])
    parking = (bool(rng.random() < 0.6), bool(rng.random() < 0.6))
    road_half = float(rng.uniform(3.6, 4.2)) + 1.1 * sum(parking)
    pavement = float(rng.uniform(2.6, 4.6))
    camera = _camera(rng, width, height, wide, road_half + pavement)
    depth = camera.focal_px * 1.7 / (_SMALLEST * height)
    across = 7.6 + 2 * pavement
    corner = max(14.0, min(46.0, depth) / max(0.75, math.cos(camera.yaw)) - across + 1.5)
    dusk = float(rng.uniform(0.6, 1.0)) if rng.random() < 0.18 else 0.0
    sunshine = 0.0 if dusk > 0 else float(np.clip(rng.uniform(-0.4, 1.2), 0, 1))
    rain = bool(sunshine == 0 and rng.random() < 0.3)
    ambient, haze = _light(rng, dusk, sunshine)
    return SceneVariation(
        seed=seed, camera=camera, road_half=road_half, pavement=pavement, corner=corner, far=corner + across,
        parking=parking, mirrored=bool(rng.random() < 0.25), sun=float(rng.choice([-1.0, 1.0])), sunshine=sunshine,
        shade_m=float(max(0.0, rng.uniform(-2.5, 5.5))),
        dusk=dusk, rain=rain, ambient=ambient, haze=haze,
        haze_per_m=float(rng.uniform(0.001, 0.012 if wide else 0.006)),
        trees=float(rng.choice([0.0, 0.35, 0.8])), park=bool(rng.random() < 0.25),
        drift=float(rng.uniform(0.01, 0.05)), clouds=float(rng.uniform(0.0, 0.14)) * (0.3 + sunshine),
        noise=float(rng.uniform(0.8, 9.0 if wide and rng.random() < 0.4 else 3.5)) * (1 + dusk * 0.5),
        blur_px=float(max(0.0, rng.uniform(-0.6, 1.3 if wide else 0.6))) * width / 1280,
        motion_px=float(max(0.0, rng.uniform(-6.0, 5.0))) * width / 1280 if wide else 0.0,
        jpeg=int(rng.integers(35, 96)) if wide and rng.random() < 0.6 else 0,
    )  # fmt: skip


def _camera(rng: np.random.Generator, width: int, height: int, wide: bool, wall: float) -> Camera:
    """Most cameras look along the street, some across it from the other side."""
    height_m = float(rng.uniform(2.4, 7.5) if wide else rng.uniform(2.9, 6.0))
    focal = width * float(rng.uniform(0.72, 1.25) if wide else rng.uniform(0.8, 1.1))
    share = float(rng.uniform(0.16, 0.46) if wide else rng.uniform(0.24, 0.38))
    # high cameras look down more, so that the nearest ground is not far away
    horizon = height * (share - 0.02 * (height_m - 4.5))
    if rng.random() < 0.22:
        side = float(rng.choice([-1.0, 1.0]))
        return Camera(
            width, height, focal * 0.85, horizon, height_m, -side * (wall - 0.3), side * float(rng.uniform(0.95, 1.5))
        )
    offset = float(rng.uniform(-0.75, 0.75)) * wall
    aim = -offset / wall * 0.22 + float(rng.normal(0, 0.22 if wide else 0.13))
    return Camera(width, height, focal, horizon, height_m, offset, float(np.clip(aim, -0.7, 0.7)))


def _light(rng: np.random.Generator, dusk: float, sunshine: float) -> tuple[Colour, Colour]:
    """Gain per channel, and the colour of the distance."""
    level = float(rng.uniform(0.94, 1.15)) * (1.0 - 0.42 * dusk)
    warm = float(rng.normal(0.03 * sunshine, 0.03))
    ambient = (level * (1 - warm + 0.1 * dusk), level, level * (1 + warm - 0.08 * dusk))
    haze = mix((205, 200, 192), (225, 205, 180), sunshine)
    return ambient, mix(haze, (110, 80, 85), dusk)
