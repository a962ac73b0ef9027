"""The motion gate: while nothing moves, only a few pictures per second go on to the model.

Shape letters: H W frame pixels, R S rows and columns of samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge.pictures.planes import Planes
from edge.sources.health import sample
from edge.types import Float32, UInt8

# how fast the remembered background follows the picture
MEMORY_S = 5.0


@dataclass(frozen=True, slots=True)
class GateLimits:
    """When a picture goes on: ``[streams.motion_gate]`` for a capture child, which loads no pydantic.

    Attributes:
        enabled: without, every picture does.
        floor_fps: so many go on per second even if nothing moves.
        hold_s: how long every picture goes on after the last motion.
        min_levels: grey levels by which a place must differ from the background, its noise averaged.
        min_share: share of the picture that must differ.
    """

    enabled: bool = False
    floor_fps: float = 1.0
    hold_s: float = 2.0
    min_levels: float = 10.0
    min_share: float = 0.001


class MotionGate:
    """Decides for one camera. Used by one thread."""

    def __init__(self, settings: GateLimits) -> None:
        self._settings = settings
        self._background: Float32 | None = None
        self._last_ns = 0
        self._moved_ns: int | None = None
        self._passed_ns: int | None = None

    def passes(self, picture: UInt8 | Planes, time_ns: int) -> bool:
        """Whether the picture of this time, (H, W, 3) uint8 BGR or planes, goes on."""
        settings = self._settings
        if self._has_motion(Planes.of(picture), time_ns):
            self._moved_ns = time_ns
        is_moving = self._moved_ns is not None and 0 <= time_ns - self._moved_ns <= settings.hold_s * 1e9
        is_due = self._passed_ns is None or not 0 <= time_ns - self._passed_ns < 1e9 / settings.floor_fps
        if is_moving or is_due:
            self._passed_ns = time_ns
            return True
        return False

    def _has_motion(self, picture: Planes, time_ns: int) -> bool:
        samples = sample(picture)
        if samples is None:
            return True
        # the mean over 3 x 3 samples has a third of the noise
        smooth: Float32 = cv2.blur(samples.astype(np.float32), (3, 3))
        background = self._background
        if background is None or background.shape != smooth.shape:
            self._background, self._last_ns = smooth, time_ns
            return True
        # a whole picture that grows brighter is no motion
        shift = float(np.median(smooth[::4, ::4] - background[::4, ::4]))
        num_changed = np.count_nonzero(np.abs(smooth - background - shift) > self._settings.min_levels)
        weight = min(1.0, max(0.0, (time_ns - self._last_ns) / 1e9 / MEMORY_S))
        cv2.accumulateWeighted(smooth, background, weight)
        self._last_ns = time_ns
        return bool(num_changed >= max(2.0, self._settings.min_share * smooth.size))
