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
        stored = self._rested(tracks.track_id, exact) * self._step
        px, points = self._steps.px, tracks.keypoints
        return Tracks(
            tracks.track_id,
            stored[:, :4],
            tracks.score,
            tracks.class_id,
            tracks.age,
            stored[:, 4:],
            tracks.detection,
            None if points is None else np.concatenate([near(points[..., :2], px), points[..., 2:]], 2),
            tracks.corners,
            None if tracks.feet is None else near(tracks.feet, px),
        )

    def _begin(self, size: tuple[int, int]) -> None:
        self._size, self._steps = size, Steps.of(*size)
        # of box and speed
        self._step = np.array([self._steps.px] * 4 + [self._steps.px_s] * 2, np.float32)
        self._per_step = 1 / self._step
        # of the frame before: (N,) ids; (N, 6) box and speed in steps
        self._ids: Int64 = np.zeros(0, np.int64)
        self._ids_bytes = b""
        self._last: Array = np.zeros((0, 6), np.float32)

    def _rested(self, ids: Int64, exact: Array) -> Array:
        """(N, 6) of ``exact``, which is written to: rounded, or as in the frame before where it differs little."""
        stored: Array = np.rint(exact)
        ids_bytes = ids.tobytes()
        last = self._last if ids_bytes == self._ids_bytes else self._last_of(ids)
        exact -= last
        np.abs(exact, exact)
        # what was not there is infinitely far away
        np.copyto(stored, last, where=np.maximum.reduce(exact, 1, keepdims=True) <= REST)
        self._ids, self._ids_bytes, self._last = ids, ids_bytes, stored
        return stored

    def _last_of(self, ids: Int64) -> Array:
        """(N, 6) what was stored of these tracks in the frame before; infinite where nothing was."""
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
