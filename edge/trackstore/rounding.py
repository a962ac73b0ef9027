"""Tracks as they are stored. Lines and zones of a stream that is stored read these, so a rule reads the same later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge.trackstore.block import Steps
from edge.types import Tracks

if TYPE_CHECKING:
    from edge.types import Array, Float32, Frame, Int64

# times are kept to a fifth of a millisecond, rounded down
TICK_NS = 200_000
# a track rests while its box and its speed are within a step of what was stored last
REST = 1.0


class Rounding:
    """Rounds the tracks of one stream to the steps of its frames. Used by one thread."""

    def __init__(self) -> None:
        self._size: tuple[int, ...] = ()
        self._begin((1, 1))

    def time_ns(self, frame: Frame) -> int:
        """The frame's time as it will be stored."""
        return frame.time_ns // TICK_NS * TICK_NS

    def rounded(self, tracks: Tracks, frame: Frame) -> Tracks:
        """The tracks with boxes, speeds and points as they will be stored; what rests does not tremble."""
        if len(tracks) == 0:
            return tracks
        size = (frame.width, frame.height)
        if size != self._size:
            self._begin(size)
        exact = np.concatenate((tracks.xyxy, tracks.velocity), 1)
        exact *= self._per_step
        stored = self._rested(tracks.track_id, exact)
        px, points = self._steps.px, tracks.keypoints
        return Tracks(
            tracks.track_id,
            stored[:, :4] * self._px,
            tracks.score,
            tracks.class_id,
            tracks.age,
            stored[:, 4:] * self._px_s,
            tracks.detection,
            None if points is None else np.concatenate([near(points[..., :2], px), points[..., 2:]], 2),
            tracks.corners,
            None if tracks.feet is None else near(tracks.feet, px),
        )

    def _begin(self, size: tuple[int, int]) -> None:
        self._size, self._steps = size, Steps.of(*size)
        self._px, self._px_s = np.float32(self._steps.px), np.float32(self._steps.px_s)
        self._per_step = 1 / np.array([self._px] * 4 + [self._px_s] * 2, np.float32)
        # of the frame before: (N,) ids; (N, 6) box and speed in steps
        self._ids: Int64 = np.zeros(0, np.int64)
        self._last: Array = np.zeros((0, 6), np.float32)

    def _rested(self, ids: Int64, exact: Array) -> Array:
        """(N, 6) rounded, or what it was in the frame before where it differs little; remembered."""
        stored: Array = np.rint(exact)
        last = self._last_of(ids)
        apart = exact - last
        np.abs(apart, apart)
        # what was not there is infinitely far away
        np.copyto(stored, last, where=apart.max(1, keepdims=True) <= REST)
        self._ids, self._last = ids, stored
        return stored

    def _last_of(self, ids: Int64) -> Array:
        """(N, 6) what was stored of these tracks in the frame before; infinite where nothing was."""
        if len(ids) == len(self._ids) and (ids == self._ids).all():
            return self._last
        last = np.full((len(ids), 6), np.inf, np.float32)
        same = ids[:, None] == self._ids
        new, old = same.nonzero()
        last[new] = self._last[old]
        return last


def near(values: Float32, step: float) -> Float32:
    """The nearest multiples of a step; what is no number stays none, for it is no evidence."""
    found: Float32 = values * np.float32(1 / step)
    np.rint(found, found)
    found *= np.float32(step)
    return found
