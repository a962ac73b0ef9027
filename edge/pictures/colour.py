"""What the numbers in planes of luma and chroma mean: ITU-R BT.601, BT.709 and BT.2020, in limited or full range."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge.pictures.planes import NEUTRAL, Colour, Matrix

# the weights of red and blue in luma: BT.601-7 2.5.1, BT.709-6 3.2, BT.2020-2 table 4 (non-constant luminance)
WEIGHTS: dict[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
# FFmpeg's scaler rounds each product down, so its BGR is darker by so much on average: limited range, full range
ROUNDED_DOWN = ((1.0, 1.5, 1.0), (0.5, 1.0, 0.5))


@lru_cache(maxsize=8)
def to_bgr(colour: Colour) -> NDArray[np.float32]:
    """(3, 4) float32 from Y, U, V and 1 to B, G, R, as FFmpeg rounds it; for ``cv2.transform``, which clips."""
    red, blue = WEIGHTS[colour.matrix]
    green = 1 - red - blue
    luma, chroma = (1.0, 1.0) if colour.is_full else (255 / 219, 255 / 224)
    turn = np.array(
        [
            [luma, 2 * (1 - blue) * chroma, 0],
            [luma, -2 * blue * (1 - blue) / green * chroma, -2 * red * (1 - red) / green * chroma],
            [luma, 0, 2 * (1 - red) * chroma],
        ]
    )
    zero = turn @ np.array([colour.black, NEUTRAL, NEUTRAL]) + ROUNDED_DOWN[colour.is_full]
    return np.column_stack([turn, -zero]).astype(np.float32)
