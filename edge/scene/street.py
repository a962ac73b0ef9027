"""The synthetic street: any frame of an endless video, or any number of independent pictures, with their truth.

Frame i depends on the seed, the size, the frame rate, the number of objects and i alone, not on frames before it.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.scene.backdrop import paint_backdrop, sun_lean
from edge.scene.car_shapes import Car, length_m
from edge.scene.compose import Sprite, blend, cast_shadow, contact_shadow, place
from edge.scene.figure import View
from edge.scene.sprites import SpriteBook
from edge.scene.traffic import Actor, Traffic
from edge.scene.truth import SceneTruth, Silhouette
from edge.scene.variation import SceneVariation, draw_variation

if TYPE_CHECKING:
    from edge.types import UInt8

_MARGIN = 64


class Street:
    """A street with traffic, seen by one camera that does not move."""

    def __init__(
        self, seed: int, width: int, height: int, fps: float, num_objects: int, variation: SceneVariation | None = None
    ) -> None:
        """Draw a street.

        Args:
            seed: the same seed gives the same street.
            width, height: pixels of the picture, at least 64.
            fps: frames per second of video.
            num_objects: at most so many at a time; one or two of them are usually just out of the picture.
            variation: the street itself, instead of the one that the seed gives.
        """
        if min(width, height) < 64 or fps <= 0 or num_objects < 0:
            raise ValueError(f"a street of {width}x{height} at {fps} fps with {num_objects} objects is not possible")
        self.fps = fps
        self.variation = variation or draw_variation(seed, width, height, wide=False)
        rng = np.random.default_rng([seed, 61])
        shares = (float(rng.uniform(0.15, 0.4)), float(rng.uniform(0.1, 0.28)))
        self._traffic = Traffic(self.variation, num_objects, shares)
        self._backdrop = paint_backdrop(self.variation)
        self._sprites = SpriteBook(self.variation)
        strength = self.variation.noise / 24
        self._noise: UInt8 = cv2.convertScaleAbs(_noise_tile(width, height), alpha=strength, beta=128 * (1 - strength))
        self._phase = float(rng.uniform(0, 2 * math.pi))

    def render(self, index: int) -> tuple[UInt8, SceneTruth]:
        """Frame ``index``: (H, W, 3) uint8 BGR that is the caller's, and what is in it."""
        time_s = index / self.fps
        picture = self._backdrop.image.copy()
        seen = self._in_view(self._traffic.at(time_s))
        for actor, _, foot, sprite in seen:
            self._shadow(picture, actor, foot, sprite)
        silhouettes = [self._paint(picture, actor, foot, sprite) for actor, _, foot, sprite in seen]
        return self._develop(picture, index, time_s), SceneTruth(silhouettes, self._backdrop.classes)

    def _in_view(self, actors: list[Actor]) -> list[tuple[Actor, float, tuple[float, float, float], Sprite]]:
        """Those in front of the camera with depth, foot (column, row, depth) and sprite, farthest first."""
        camera = self.variation.camera
        entries = []
        for actor in actors:
            u, v, z = camera.point(actor.s, actor.t)
            scale = camera.focal_px / z
            if z < 1.2 or not -3 * scale < u < camera.width + 3 * scale or v - 2.6 * scale > camera.height:
                continue
            view = View(
                actor.heading - camera.yaw - math.atan2(u - camera.width / 2, camera.focal_px),
                math.atan2(camera.height_m - 0.8, z),
            )
            entries.append((actor, z, (u, v, z), self._sprites.get(actor, view, scale)))
        entries.sort(key=lambda entry: -entry[1])
        return entries

    def _shadow(self, picture: UInt8, actor: Actor, foot: tuple[float, float, float], sprite: Sprite) -> None:
        variation = self.variation
        u, v, z = foot
        scale = variation.camera.focal_px / z
        flat = max(0.08, (variation.camera.height_m - 0.1) / z)
        half = 0.34
        if isinstance(actor.model, Car):
            turn = actor.heading - variation.camera.yaw
            half = abs(math.sin(turn)) * length_m(actor.model) / 2 + abs(math.cos(turn)) * 0.95
            flat *= 0.95 / half * abs(math.sin(turn)) + 2.1 / half * abs(math.cos(turn))
        depth = self._backdrop.depth
        contact_shadow(picture, (u, v), (half * scale, half * scale * min(1.0, flat)), 0.72, depth, z - 1.0)
        if variation.sunshine > 0.15:
            cast_shadow(picture, sprite, scale, (u, v), sun_lean(variation), 0.42 * variation.sunshine, depth, z - 1.0)

    def _paint(self, picture: UInt8, actor: Actor, foot: tuple[float, float, float], sprite: Sprite) -> Silhouette:
        u, v, z = foot
        scale = self.variation.camera.focal_px / z
        placed = place(sprite, scale, (u, v), self.variation.blur_px)
        fog = 1 - math.exp(-self.variation.haze_per_m * z)
        shown = blend(picture, placed, self.variation.haze, fog, self._backdrop.depth, z)
        joints = np.array([(u + x * scale, v - y * scale) for x, y in sprite.joints], np.float32).reshape(-1, 2)
        return Silhouette(actor.class_id, actor.track_id, placed.left, placed.top, placed.image[:, :, 3], shown, joints)

    def _develop(self, picture: UInt8, index: int, time_s: float) -> UInt8:
        """Exposure and sensor; the lens is in the backdrop and in the sprites already."""
        variation = self.variation
        gain = 1 + variation.drift * math.sin(time_s * 0.41 + self._phase)
        gain -= variation.clouds * max(0.0, math.sin(time_s * 0.23 + 2 * self._phase))
        rng = np.random.default_rng([variation.seed, 67, index])
        x, y = (int(offset) for offset in rng.integers(0, _MARGIN, 2))
        tile = self._noise[y : y + picture.shape[0], x : x + picture.shape[1]]
        cv2.addWeighted(picture, gain, tile, 1.0, -128.0, dst=picture)
        return picture


@functools.lru_cache(maxsize=4)
def _noise_tile(width: int, height: int) -> UInt8:
    """(H + margin, W + margin, 3) uint8 sensor noise, 128 +- 24, mostly grey, slightly smeared as by a codec."""
    rng = np.random.default_rng([71])
    shape = (height + _MARGIN, width + _MARGIN)
    grey = rng.standard_normal(shape, np.float32)[:, :, None]
    coloured = rng.standard_normal((shape[0] // 2, shape[1] // 2, 3), np.float32)
    coloured = cv2.resize(coloured, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    noise = cv2.GaussianBlur(grey * 0.8 + coloured * 0.7, (3, 3), 0.45)
    tile: UInt8 = np.clip(128.5 + 24 * 1.2 * noise, 0, 255).astype(np.uint8)
    return tile


def render_sample(seed: int, width: int, height: int, wide: bool = True) -> tuple[UInt8, SceneTruth]:
    """One picture of a street of its own.

    Args:
        seed: the same seed gives the same picture.
        width, height: pixels.
        wide: of wide variety, with 0 to 25 objects: material for training. Otherwise as ``synthetic://street`` shows
            streets, with 8 to 16 objects: material for judging.

    Returns:
        (H, W, 3) uint8 BGR, and what is in it.
    """
    rng = np.random.default_rng([seed, 73])
    # no street of a video has the seed of one that was trained on
    seed = int(rng.integers(1 << 40, 1 << 62))
    variation = draw_variation(seed, width, height, wide)
    num_objects = 0 if rng.random() < 0.04 else int(rng.integers(1, 26))
    if not wide:
        num_objects = int(rng.integers(8, 17))
    street = Street(seed, width, height, 30.0, num_objects, variation)
    picture, truth = street.render(int(rng.integers(0, 4000)))
    if variation.motion_px > 1.5:
        size = int(variation.motion_px) | 1
        kernel = np.zeros((size, size), np.float32)
        kernel[size // 2] = 1.0 / size
        picture = cv2.filter2D(picture, -1, kernel if rng.random() < 0.7 else kernel.T)
    if variation.jpeg:
        _, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, variation.jpeg])
        picture = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return picture, truth
