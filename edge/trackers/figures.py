"""Carries key points and oriented boxes along with their tracks: smooth while seen, moved with the box while not.

Shape letters: N tracks, T remembered tracks, M points of an object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edge.types import Array, Detections, Float32, Float64, Tracks

# the One Euro filter (Casiez et al. 2012): a still point is smoothed below this frequency, a moving one less
LEAST_CUTOFF_HZ = 2.0
CUTOFF_PER_SPEED = 6.0
SPEED_CUTOFF_HZ = 1.0
# a point that the model is less sure of is a guess: it moves with its box
LEAST_POINT_SCORE = 0.3
# what was not seen for so long starts again
FORGET_S = 1.0


@dataclass(frozen=True, slots=True)
class _Memory:
    """What is known of the tracks, by id in rising order.

    Attributes:
        track_id: (T,). seen_ns: (T,), when last. box: (T, 4), then.
        points: (T, M, 2) frame pixels; speed: (T, M, 2) box heights per second next to the box's own motion.
        is_known: (T, M), whether a point was ever seen well.
    """

    track_id: Array
    seen_ns: Array
    box: Float64
    points: Float64
    speed: Float64
    is_known: Array


class Figures:
    """The key points and corners of one stream's tracks. Used by one thread, which gives it every frame in order."""

    def __init__(self) -> None:
        self._keypoints: _Memory | None = None
        self._corners: _Memory | None = None

    def update(self, tracks: Tracks, detections: Detections, time_ns: int) -> Tracks:
        """The tracks with what their detections have next to the box; as they are where that is nothing."""
        if len(detections):
            self._forget_other_kinds(detections)
        if detections.keypoints is not None or self._keypoints is not None:
            values = detections.keypoints
            count = self._keypoints.points.shape[1] if values is None and self._keypoints else 0
            given, _ = _of_tracks(values, tracks, count, 3)
            score = given[..., 2]
            self._keypoints, placed = _followed(self._keypoints, tracks, given[..., :2], score, time_ns, is_smooth=True)
            tracks = replace(tracks, keypoints=np.concatenate([placed, score[..., None]], axis=2))
        if detections.corners is not None or self._corners is not None:
            place, score = _of_tracks(detections.corners, tracks, 4, 2)
            self._corners, placed = _followed(self._corners, tracks, place, score, time_ns, is_smooth=False)
            tracks = replace(tracks, corners=placed)
        return tracks

    def _forget_other_kinds(self, detections: Detections) -> None:
        """Another model may have taken over, with other points or none."""
        known, found = self._keypoints, detections.keypoints
        if known is not None and (found is None or found.shape[1] != known.points.shape[1]):
            self._keypoints = None
        if detections.corners is None:
            self._corners = None


def _of_tracks(values: Float32 | None, tracks: Tracks, count: int, depth: int) -> tuple[Float32, Float32]:
    """(N, M, D) numbers of each track's detection, 0 where it has none, and (N, M) 1 where it has one."""
    is_seen = tracks.detection >= 0
    count = count if values is None else values.shape[1]
    own = np.zeros((len(tracks), count, depth), np.float32)
    if values is not None and is_seen.any():
        own[is_seen] = values[tracks.detection[is_seen]]
    return own, np.repeat(is_seen[:, None], count, axis=1).astype(np.float32)


def _followed(
    past: _Memory | None, tracks: Tracks, place: Float32, score: Float32, time_ns: int, *, is_smooth: bool
) -> tuple[_Memory, Float32]:
    """What is known after this frame, and the (N, M, 2) points as they are now."""
    order = np.argsort(tracks.track_id, kind="stable")
    ids, box = tracks.track_id[order], tracks.xyxy[order].astype(np.float64)
    seen = place[order].astype(np.float64)
    now, speed = seen.copy(), np.zeros_like(seen)
    # what is no number would stay so for ever
    is_sure = (score[order] >= LEAST_POINT_SCORE) & np.isfinite(seen).all(axis=2)
    is_known = is_sure.copy()
    has_place = (tracks.detection[order] >= 0)[:, None]
    if past is not None and len(past.track_id) and len(ids):
        row = np.minimum(np.searchsorted(past.track_id, ids), len(past.track_id) - 1)
        old = np.flatnonzero((past.track_id[row] == ids) & (time_ns - past.seen_ns[row] <= FORGET_S * 1e9))
        row = row[old]
        moved = _moved(past.points[row], past.box[row], box[old])
        dt_s = (time_ns - past.seen_ns[row])[:, None, None] / 1e9
        smooth, changed = seen[old], speed[old]
        if is_smooth:
            smooth, changed = _smoothed(moved, past.speed[row], seen[old], dt_s, box[old])
        was_known, is_good = past.is_known[row], is_sure[old][..., None]
        speed[old] = np.where(is_good, changed, past.speed[row])
        # a guess is taken only of a point that was never seen well
        now[old] = np.where(is_good & was_known[..., None], smooth, now[old])
        now[old] = np.where(~is_good & (was_known | ~has_place[old])[..., None], moved, now[old])
        is_known[old] |= was_known
    seen_ns = np.full(len(ids), time_ns, np.int64)
    memory = _Memory(ids, seen_ns, box, now, speed, is_known)
    back = np.empty_like(now)
    back[order] = now
    return _with_absent(memory, past, time_ns), back.astype(np.float32)


def _with_absent(now: _Memory, past: _Memory | None, time_ns: int) -> _Memory:
    """What is known now, and of tracks that are not in this frame what is not too old."""
    if past is None:
        return now
    stays = ~np.isin(past.track_id, now.track_id) & (time_ns - past.seen_ns <= FORGET_S * 1e9)
    if not stays.any():
        return now
    ids = np.concatenate([now.track_id, past.track_id[stays]])
    order = np.argsort(ids, kind="stable")
    names = ("seen_ns", "box", "points", "speed", "is_known")
    both = [np.concatenate([getattr(now, name), getattr(past, name)[stays]])[order] for name in names]
    return _Memory(ids[order], *both)


def _moved(points: Float64, was: Float64, box: Float64) -> Float64:
    """(N, M, 2) points that keep their places while the boxes (N, 4) become others."""
    size = np.maximum(was[:, None, 2:] - was[:, None, :2], 1e-6)
    share = (points - was[:, None, :2]) / size
    placed: Float64 = box[:, None, :2] + share * (box[:, None, 2:] - box[:, None, :2])
    return placed


def _smoothed(moved: Float64, speed: Float64, seen: Float64, dt_s: Float64, box: Float64) -> tuple[Float64, Float64]:
    """The points between where their box carried them and where they are seen, and their speed next to it."""
    height = np.maximum(box[:, 3] - box[:, 1], 1.0)[:, None, None]
    dt_s = np.maximum(dt_s, 1e-3)
    step = (seen - moved) / height / dt_s
    speed = speed + _share(SPEED_CUTOFF_HZ, dt_s) * (step - speed)
    cutoff = LEAST_CUTOFF_HZ + CUTOFF_PER_SPEED * np.hypot(speed[..., :1], speed[..., 1:])
    return moved + _share(cutoff, dt_s) * (seen - moved), speed


def _share(cutoff_hz: Float64 | float, dt_s: Float64) -> Float64:
    """How much of a new value a low-pass filter takes."""
    share: Float64 = 1 / (1 + 1 / (2 * np.pi * cutoff_hz * dt_s))
    return share
