"""The arithmetic of a frame in C, where it was built: one call where NumPy needs forty, the same results bit for bit.

Shape letters: T tracks, N detections, P pairs of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge.compiled import built, flat
from edge.trackers.detections import Pairs, Seen
from edge.types import Tracks

if TYPE_CHECKING:
    from edge.trackers.settings import TrackerSettings
    from edge.types import Array, Bool, Detections, Float64, Int64

_compiled = built("_tracks")
# pairs that meet, per track and detection: in a heap of boxes there are more, and NumPy finds them
MOST_MEETING = 16
MOST_STEPS = 1000
# of the height overlap: what roots make of it, exactly
ROOTS = (0, 0.5, 0.75, 1)


def steps_for(settings: TrackerSettings) -> Steps | None:
    """The steps of a frame, None where they were not built or are asked for what only NumPy does."""
    s = settings
    is_known = s.match_last >= 1 and s.direction_weight == 0 and s.height_power in ROOTS
    return Steps(settings) if _compiled is not None and is_known and s.replay_steps <= MOST_STEPS else None


class Steps:
    """What a tracker does with a frame, on its own arrays: rows (T,) of ``tracks.ROW`` and states (5, T, 4)."""

    def __init__(self, settings: TrackerSettings) -> None:
        """Args: those of the tracker."""
        s = self._settings = settings
        self._noises = s.position_noise**2, s.speed_noise**2
        weights = s.height_power, s.score_weight, s.fuse_score, s.lost_price
        self._matching = s.score_high, s.match_high, s.match_low, s.match_new, *weights
        replay = s.replay_s, s.replay_steps
        life = s.confirm_hits, s.lost_s, s.score_new
        self._updating = *self._noises, s.measurement_noise, s.weak_noise, *replay, s.per_class, *life

    def usable(self, detections: Detections) -> Seen | None:
        """As ``detections.usable``; None where there are too many."""
        count = len(detections)
        if count > self._settings.max_objects:
            return None
        box, centre, score = np.empty((count, 4)), np.empty((count, 4)), np.empty(count)
        class_id, index = np.empty(count, np.int32), np.empty(count, np.int64)
        given = (
            flat(detections.xyxy, np.float32),
            flat(detections.score, np.float32),
            flat(detections.class_id, np.int32),
        )
        num = _compiled.usable(*given, self._settings.score_low, box, centre, score, class_id, index)
        return Seen(box[:num], centre[:num], score[:num], class_id[:num], index[:num])

    def advance(self, rows: Array, state: Float64, before_s: float, dt_s: float) -> None:
        """Predict all tracks, in place: none is seen yet, and the sizes of the lost are held."""
        _compiled.advance(rows, state, (before_s, dt_s, *self._noises))

    def meet(self, rows: Array, state: Float64, seen: Seen, growth: float) -> Pairs | None:
        """The pairs that meet when all are grown; None where they are very many."""
        count = min(len(rows) * len(seen.score), MOST_MEETING * (len(rows) + len(seen.score)))
        row, col, overlap = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)
        per_class = self._settings.per_class
        num = _compiled.meet(rows, state, seen.centre, seen.class_id, growth, per_class, row, col, overlap)
        return None if num < 0 else Pairs(row[:num], col[:num], overlap[:num])

    def agree(self, rows: Array, pairs: Pairs, num_boxes: int) -> tuple[Bool, float]:
        """(P,) the pairs of confirmed tracks that are the best of both, and the sum of their overlaps."""
        best = np.empty(len(pairs.row), np.bool_)
        return best, _compiled.agree(rows, pairs.row, pairs.col, pairs.overlap, num_boxes, best)

    def shift(self, state: Float64, seen: Seen, pairs: Pairs, best: Bool) -> tuple[float, float]:
        """As ``camera_motion.shift_of_pairs`` of the best pairs."""
        moved: tuple[float, float] = _compiled.shift(state, state.shape[1], seen.centre, pairs.row, pairs.col, best)
        return moved

    def match(self, rows: Array, state: Float64, seen: Seen, pairs: Pairs, before_s: float) -> Int64:
        """(N,) row of the track that each detection continues, -1 where none: all rounds."""
        track_of = np.empty(len(seen.score), np.int64)
        numbers = (before_s, *self._matching)
        _compiled.match(rows, state, seen.box, seen.score, pairs.row, pairs.col, pairs.overlap, numbers, track_of)
        return track_of

    def update(
        self, rows: Array, states: tuple[Float64, Float64], seen: Seen, track_of: Int64, times: tuple[float, float]
    ) -> tuple[Bool | None, Int64]:
        """Take the matched detections into their tracks.

        Args:
            rows, states: of the tracks: now, and as each was seen last.
            seen, track_of: the detections, and the (N,) rows that they continue.
            times: now and at the frame before, in seconds.

        Returns:
            (T,) the tracks that live on, None for all of them, and the detections that start one.
        """
        kept, new = np.empty(len(rows), np.bool_), np.empty(len(track_of), np.int64)
        found = seen.centre, seen.score, seen.class_id, seen.index, track_of
        num_dead, num_new = _compiled.update(rows, *states, *found, (*times, *self._updating), kept, new)
        return kept if num_dead else None, new[:num_new]

    def doubles(self, rows: Array, state: Float64) -> Bool | None:
        """(T,) the tracks that are not the younger of two at one place; None for all of them."""
        s, kept = self._settings, np.empty(len(rows), np.bool_)
        is_any = _compiled.doubles(rows, state, s.duplicate_overlap, s.duplicate_s, s.per_class, kept)
        return kept if is_any else None

    def visible(self, rows: Array, state: Float64, detections: Detections, now_s: float) -> Tracks:
        """What is reported of the frame."""
        count = len(rows)
        out = (
            np.empty(count, np.int64),
            np.empty((count, 4), np.float32),
            np.empty(count, np.float32),
            np.empty(count, np.int32),
            np.empty(count, np.float32),
            np.empty((count, 2), np.float32),
            np.empty(count, np.int32),
        )
        box = flat(detections.xyxy, np.float32)
        num = _compiled.visible(rows, state, box, now_s, self._settings.coast_s, *out)
        track_id, xyxy, score, class_id, age, velocity, detection = out
        return Tracks(
            track_id[:num], xyxy[:num], score[:num], class_id[:num], age[:num], velocity[:num], detection[:num]
        )
