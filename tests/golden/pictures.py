"""The picture that the golden files speak of: made by arithmetic, so that it need not be shipped."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def picture(width: int = 320, height: int = 240, seed: int = 3) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 BGR: coloured shapes on a gradient, with noise."""
    rng = np.random.default_rng(seed)
    across = np.linspace(30, 200, width, dtype=np.float32)[None, :, None]
    down = np.linspace(0, 60, height, dtype=np.float32)[:, None, None]
    image = np.broadcast_to(across + down, (height, width, 3)).copy()
    for _ in range(12):
        colour = tuple(float(level) for level in rng.integers(0, 256, 3))
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        size = int(rng.integers(8, 50))
        if rng.random() < 0.5:
            cv2.rectangle(image, (x - size, y - size // 2), (x + size, y + size // 2), colour, -1)
        else:
            cv2.circle(image, (x, y), size, colour, -1)
    image += rng.normal(0, 6, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)
