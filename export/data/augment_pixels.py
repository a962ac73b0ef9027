"""Random changes that leave every pixel in its place: colour, and what cameras and encoders do to a picture. H W."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from edge.types import UInt8

# OpenCV keeps the hue of 8-bit pictures in [0, 180)
_HUE_LEVELS = 180


@dataclass(frozen=True, slots=True)
class PixelSettings:
    """Probabilities and strengths, as in ``AugmentSettings``."""

    colour: float
    hue: float
    saturation: float
    value: float
    blur: float
    blur_sigma_px: float
    noise: float
    noise_sigma: float
    jpeg: float
    jpeg_quality_min: int


def change_pixels(image: UInt8, settings: PixelSettings, rng: Generator) -> UInt8:
    """Apply what chance decides to an (H, W, 3) BGR picture; the input is left as it was."""
    if rng.random() < settings.colour:
        image = _shift_colours(image, settings, rng)
    if rng.random() < settings.blur:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), max(0.1, settings.blur_sigma_px * rng.random())), np.uint8)
    if rng.random() < settings.noise:
        image = _add_noise(image, settings.noise_sigma * rng.random(), rng)
    if rng.random() < settings.jpeg:
        image = _compress(image, int(rng.integers(settings.jpeg_quality_min, 96)))
    return image


def _shift_colours(image: UInt8, settings: PixelSettings, rng: Generator) -> UInt8:
    """Turn the hue and scale saturation and value, each by a table of 256 levels."""
    strengths = np.array([settings.hue, settings.saturation, settings.value])
    hue, saturation, value = 1 + rng.uniform(-1, 1, 3) * strengths
    levels = np.arange(256)
    tables = np.stack(
        [
            (levels + (hue - 1) * _HUE_LEVELS) % _HUE_LEVELS,
            np.clip(levels * saturation, 0, 255),
            np.clip(levels * value, 0, 255),
        ],
        axis=-1,
    ).astype(np.uint8)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), tables[None])
    changed: UInt8 = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)
    return changed


def _add_noise(image: UInt8, sigma: float, rng: Generator) -> UInt8:
    """Grey sensor noise, the same for the three channels."""
    noise = rng.standard_normal(image.shape[:2], np.float32)[..., None] * np.float32(sigma)
    noisy: UInt8 = np.clip(image + noise, 0, 255).astype(np.uint8)
    return noisy


def _compress(image: UInt8, quality: int) -> UInt8:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    decoded: UInt8 = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return decoded
