"""Tracks as they are stored. Lines and zones of a stream that is stored read these, so a rule reads the same later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge.trackstore.block import Steps
from edge.types import Tracks

if TYPE_CHECKING:
    from edge.types import Float32, Frame


class Rounding:
    """Rounds the tracks of one stream to the steps of its frames. Used by one thread."""

    def __init__(self) -> None:
        self._size: tuple[int, ...] = ()
        self._steps = Steps.of(1, 1)

    def rounded(self, tracks: Tracks, frame: Frame) -> Tracks:
        """The tracks with boxes, speeds and points as they will be stored."""
        if len(tracks) == 0:
            return tracks
        size = (frame.width, frame.height)
        if size != self._size:
            self._size, self._steps = size, Steps.of(*size)
        px, px_s = self._steps.px, self._steps.px_s
        points = tracks.keypoints
        return Tracks(
            tracks.track_id,
            near(tracks.xyxy, px),
            tracks.score,
            tracks.class_id,
            tracks.age,
            near(tracks.velocity, px_s),
            tracks.detection,
            None if points is None else np.concatenate([near(points[..., :2], px), points[..., 2:]], 2),
            tracks.corners,
            None if tracks.feet is None else near(tracks.feet, px),
        )


def near(values: Float32, step: float) -> Float32:
    """The nearest multiples of a power of two; what is no number stays none, for it is no evidence."""
    found: Float32 = values * np.float32(1 / step)
    np.rint(found, found)
    found *= np.float32(step)
    return found
