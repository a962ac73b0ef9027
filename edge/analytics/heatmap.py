"""Where objects spend their time: seconds per cell of a coarse grid. N tracks, H W pixels of the drawing."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edge.analytics.geometry import ANCHOR_SHARES, anchors

if TYPE_CHECKING:
    from edge.config.analytics import HeatmapSettings
    from edge.types import Bool, Float32, UInt8

# a longer gap between frames says nothing about where objects were meanwhile
MAX_STEP_S = 1.0
HEAT_OPACITY = 0.65
# wide enough for what is smooth; a drawing of the frame's own size would take 20 times as long
MAX_WIDTH_PX = 480


class Heatmap:
    """Seconds that objects spent in each cell, fading with the half-life if there is one."""

    def __init__(self, settings: HeatmapSettings, width: int, height: int) -> None:
        self._cell_px = settings.cell_px
        self._half_life_s = settings.half_life_s
        self._share = np.array([ANCHOR_SHARES[settings.anchor]])
        self._size = (width, height)
        self.seconds: Float32 = np.zeros((-(-height // self._cell_px), -(-width // self._cell_px)), np.float32)

    def update(self, xyxy: Float32, wanted: Bool, step_s: float) -> None:
        """Add the time since the last frame at the anchor of each wanted (N, 4) box."""
        if self._half_life_s is not None:
            self.seconds *= np.float32(0.5 ** (step_s / self._half_life_s))
        cells = (anchors(xyxy[wanted], self._share)[:, 0] / self._cell_px).astype(np.int64)
        rows, columns = self.seconds.shape
        x, y = np.clip(cells[:, 0], 0, columns - 1), np.clip(cells[:, 1], 0, rows - 1)
        np.add.at(self.seconds, (y, x), np.float32(min(step_s, MAX_STEP_S)))

    def draw(self) -> UInt8:
        """The heat as (H, W, 4) uint8 BGR and opacity, in the frame's shape and at most ``MAX_WIDTH_PX`` wide.

        Clear where nobody was, red where most time was spent.
        """
        width, height = self._size
        scale = min(1.0, MAX_WIDTH_PX / width)
        # the square root keeps paths visible next to the places where people stand for hours
        seconds = self.seconds.copy()
        level = np.sqrt(seconds / max(float(seconds.max()), 1e-9))
        rows, columns = (round(cells * self._cell_px * scale) for cells in level.shape)
        level = cv2.resize(level, (columns, rows), interpolation=cv2.INTER_CUBIC)
        level = np.clip(level[: round(height * scale), : round(width * scale)], 0, 1)
        colour = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
        opacity = np.minimum(level * 4, 1) * HEAT_OPACITY * 255
        drawn: UInt8 = np.dstack((colour, opacity.astype(np.uint8)))
        return drawn

    def state(self) -> dict[str, Any]:
        """JSON values; exact."""
        data = base64.b64encode(zlib.compress(self.seconds.tobytes())).decode()
        return {"shape": list(self.seconds.shape), "data": data}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what ``state`` gave; a grid of another shape starts empty."""
        if list(self.seconds.shape) != state["shape"]:
            return
        # never more than fits, whatever the file holds
        data = zlib.decompressobj().decompress(base64.b64decode(state["data"]), self.seconds.nbytes)
        values = np.frombuffer(data, np.float32).reshape(self.seconds.shape)
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError("a cell of the heat map is no time")
        self.seconds = values.copy()
