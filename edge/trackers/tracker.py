"""Follows the boxes of one stream: one batched Kalman filter, rounds of matching, no object per track.

Shape letters: T tracks, N detections, P pairs of both. Times inside are seconds since the first frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge.trackers import association, camera_motion, in_c
from edge.trackers import motion as kalman
from edge.trackers import tracks as table
from edge.trackers.appearance import Gallery, is_clear
from edge.trackers.detections import Pairs, Seen, usable
from edge.trackers.settings import TrackerSettings
from edge.types import Array, Bool, Detections, Float64, Int64, Tracks

if TYPE_CHECKING:
    from edge.interfaces import EmbedBoxes

MOST_GROWTH = 0.5
# share of the overlap of all expected boxes with found ones from which a camera is taken to have moved as expected
LEAST_FIT = 0.65


class MotionTracker:
    """Implements ``edge.interfaces.Tracker``. Ids start at 1 and belong to this object; none is used twice.

    The rounds are those of ByteTrack and BoT-SORT: good detections to confirmed tracks, weak detections to tracks seen
    in the frame before, good detections to tracks that are not confirmed yet. What is left and good starts a track.
    """

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self._tracks: Array = table.empty()
        self._state: Float64 = np.empty((5, 0, 4))
        # the state right after each track was seen last: where a replay starts
        self._seen_state: Float64 = np.empty((5, 0, 4))
        self._next_id = 1
        self._now_s = self._before_s = 0.0
        self._dt_s = 0.0
        self._last_ns: int | None = None
        self._gallery = Gallery(self.settings.appearance_weight)
        self._steps = in_c.steps_for(self.settings)

    def update(
        self, detections: Detections, time_ns: int, motion: Float64 | None = None, look: EmbedBoxes | None = None
    ) -> Tracks:
        """As ``Tracker.update``.

        Boxes that are not finite, empty or inverted, and scores that are not numbers, are ignored. When time stands
        still or goes back, the tracks stay where they are and time goes on from there. ``motion`` that is not finite
        is ignored. ``look`` is asked about detections by their places in ``detections``.

        Raises:
            ValueError: ``motion`` is not (2, 3).
        """
        is_first = self._last_ns is None
        self._advance(time_ns, _checked(motion))
        if len(detections) == 0 and len(self._tracks) == 0:
            return Tracks.empty()
        seen = self._usable(detections)
        track_of = self._match(seen, look)
        living, new = self._take(seen, track_of)
        if look is not None:
            self._update_embeddings(look, seen, track_of)
        if living is not None:
            self._keep(living)
        self._start_tracks(seen, new, is_first)
        if self.settings.duplicate_overlap < 1:
            self._drop_duplicates()
        return self._visible(detections)

    def _advance(self, time_ns: int, affine: Float64 | None) -> None:
        """Move time and all tracks on to this frame."""
        last_ns = time_ns if self._last_ns is None else self._last_ns
        self._last_ns = time_ns
        self._dt_s = max(0, time_ns - last_ns) / 1e9
        # compared with itself, not with now less dt: a sum of floats does not come out even
        self._before_s = self._now_s
        self._now_s += self._dt_s
        if self._dt_s > self.settings.lost_s:
            self._keep(self._now_s - self._tracks["seen_s"] <= self.settings.lost_s)
        if len(self._tracks) == 0:
            return
        if affine is not None:
            self._warp(affine)
        if self._steps is not None:
            self._steps.advance(self._tracks, self._state, self._before_s, self._dt_s)
            return
        self._tracks["detection"] = -1
        kalman.hold_size(self._state, self._tracks["seen_s"] < self._before_s)
        kalman.predict(self._state, self._dt_s, self.settings.position_noise, self.settings.speed_noise)

    def _usable(self, detections: Detections) -> Seen:
        seen = None if self._steps is None else self._steps.usable(detections)
        return usable(detections, self.settings.score_low, self.settings.max_objects) if seen is None else seen

    def _warp(self, affine: Float64) -> None:
        kalman.warp(self._state, affine)
        kalman.warp(self._seen_state, affine)
        table.warp(self._tracks, affine)

    def _match(self, seen: Seen, look: EmbedBoxes | None) -> Int64:
        """(N,) row of the track that each detection continues, -1 where none."""
        s = self.settings
        track_of = np.full(len(seen.box), -1)
        if len(self._tracks) == 0 or len(track_of) == 0:
            return track_of
        pairs = self._pairs(seen)
        if self._steps is not None and look is None:
            return self._steps.match(self._tracks, self._state, seen, pairs, self._before_s)
        good, confirmed = seen.score >= s.score_high, self._tracks["is_confirmed"]
        recent = self._tracks["seen_s"] >= self._before_s
        similarity = self._similarity(seen, pairs)
        gain = similarity - s.match_high
        if s.lost_price:
            gain = np.where(recent[pairs.row], gain, association.priced(gain, s.lost_price))
        if look is not None:
            gain = gain + self._appearance_gain(
                look, seen, pairs, np.where(confirmed[pairs.row] & good[pairs.col], gain, 0)
            )
        self._round(track_of, pairs, gain, confirmed, good)
        if s.match_last < 1:
            last = self._last_pairs(seen)
            self._round(track_of, last, last.overlap - s.match_last, confirmed, good)
        if not good.all():
            self._round(track_of, pairs, pairs.overlap - s.match_low, confirmed & recent, ~good)
        if not confirmed.all():
            self._round(track_of, pairs, similarity - s.match_new, ~confirmed, good)
        return track_of

    def _round(self, track_of: Int64, pairs: Pairs, gain: Float64, tracks: Bool, boxes: Bool) -> None:
        """One round of matching among these tracks and boxes that are still free; writes to ``track_of``."""
        tracks = tracks.copy()
        tracks[track_of[track_of >= 0]] = False
        boxes = boxes & (track_of < 0)
        fit = tracks[pairs.row] & boxes[pairs.col]
        rows, cols = association.assign(pairs.row, pairs.col, gain * fit, (len(tracks), len(boxes)))
        track_of[cols] = rows

    def _pairs(self, seen: Seen) -> Pairs:
        """Tracks and detections that meet when both are grown by what can happen between two frames."""
        pairs = self._meeting(seen)
        if not self.settings.own_motion or self._dt_s == 0:
            return pairs
        best, fit = self._best(pairs, len(seen.box))
        if self._is_astray(seen, fit):
            shift = self._voted_shift(seen)
            if shift.any():
                pairs = self._carry(shift, seen)
                best, _ = self._best(pairs, len(seen.box))
        if self._steps is not None:
            x, y = self._steps.shift(self._state, seen, pairs, best)
            return self._carry(np.array((x, y)), seen) if x or y else pairs
        rows, cols = pairs.row[best], pairs.col[best]
        shift = camera_motion.shift_of_pairs(seen.centre[cols, :2] - self._state[kalman.VALUE, rows, :2])
        return self._carry(shift, seen) if shift.any() else pairs

    def _best(self, pairs: Pairs, num_boxes: int) -> tuple[Bool, float]:
        """(P,) the pairs of confirmed tracks that are the best of both, and the sum of their overlaps."""
        if self._steps is not None:
            return self._steps.agree(self._tracks, pairs, num_boxes)
        best = association.mutual_best(pairs.row, pairs.col, pairs.overlap, (len(self._tracks), num_boxes))
        best &= self._tracks["is_confirmed"][pairs.row]
        # one after the other, as C adds them: ``sum`` does it in blocks
        return best, float(np.append(0.0, pairs.overlap[best]).cumsum()[-1])

    def _is_astray(self, seen: Seen, fit: float) -> bool:
        """Whether the overlap of boxes with what was expected adds up to little."""
        if fit >= LEAST_FIT * min(len(self._tracks), len(seen.box)):
            return False
        recent, good = self._recent_and_good(seen)
        return bool(fit < LEAST_FIT * min(np.count_nonzero(recent), np.count_nonzero(good)))

    def _recent_and_good(self, seen: Seen) -> tuple[Bool, Bool]:
        recent = self._tracks["is_confirmed"] & (self._tracks["seen_s"] >= self._before_s)
        return recent, seen.score >= self.settings.score_high

    def _voted_shift(self, seen: Seen) -> Float64:
        """(2,) what the camera did."""
        recent, good = self._recent_and_good(seen)
        return camera_motion.shift_by_vote(self._state[kalman.VALUE, recent], seen.centre[good])

    def _carry(self, shift: Float64, seen: Seen) -> Pairs:
        """Carry all tracks, and what was seen of them, along with the camera; gives what meets now."""
        self._state[kalman.VALUE, :, :2] += shift
        self._seen_state[kalman.VALUE, :, :2] += shift
        self._tracks["box"][:, :2] += shift
        self._tracks["past"] += shift
        return self._meeting(seen)

    def _meeting(self, seen: Seen) -> Pairs:
        growth = self._growth()
        pairs = None if self._steps is None else self._steps.meet(self._tracks, self._state, seen, growth)
        if pairs is not None:
            return pairs
        tracks = kalman.to_corners(self._state[kalman.VALUE], growth)
        return self._meet(seen, tracks, kalman.to_corners(seen.centre, growth))

    def _growth(self) -> float:
        return min(MOST_GROWTH, self.settings.growth_per_s * self._dt_s)

    def _meet(self, seen: Seen, tracks: Float64, boxes: Float64) -> Pairs:
        row, col = association.meeting_pairs(tracks, boxes)
        if self.settings.per_class:
            same = self._tracks["class_id"][row] == seen.class_id[col]
            row, col = row[same], col[same]
        return Pairs(row, col, association.overlap(tracks[row], boxes[col]))

    def _last_pairs(self, seen: Seen) -> Pairs:
        return self._meet(seen, kalman.to_corners(self._tracks["box"]), seen.box)

    def _similarity(self, seen: Seen, pairs: Pairs) -> Float64:
        """(P,) how well a good detection fits a track, about 0 to 1."""
        s, row, col = self.settings, pairs.row, pairs.col
        similarity = pairs.overlap
        score = seen.score[col]
        if s.height_power:
            predicted = kalman.to_corners(self._state[kalman.VALUE])
            similarity = similarity * association.power_of(
                association.height_overlap(predicted[row], seen.box[col]), s.height_power
            )
        if s.score_weight:
            similarity = similarity * (1 - s.score_weight * np.abs(self._tracks["score"][row] - score))
        if s.fuse_score:
            similarity = similarity * score
        if s.direction_weight:
            similarity = similarity + s.direction_weight * score * self._direction(seen, pairs) * (
                similarity > s.match_high
            )
        return similarity

    def _appearance_gain(self, look: EmbedBoxes, seen: Seen, pairs: Pairs, gain: Float64) -> Float64:
        track_id = self._tracks["track_id"][pairs.row]
        return self._gallery.advantage(look, (track_id, pairs.col), gain, seen.index)

    def _update_embeddings(self, look: EmbedBoxes, seen: Seen, track_of: Int64) -> None:
        """Remember what tracks look like where they are seen well, and forget those that have ended."""
        self._gallery.forget_but(self._tracks["track_id"])
        cols = ((track_of >= 0) & (seen.score >= self.settings.score_high) & is_clear(seen.box)).nonzero()[0]
        self._gallery.learn(look, self._tracks["track_id"][track_of[cols]], seen.index[cols], self._now_s)

    def _direction(self, seen: Seen, pairs: Pairs) -> Float64:
        past = self._tracks["past"][pairs.row]
        return association.direction_agreement(past[:, 0], past[:, -1], seen.centre[pairs.col, :2])

    def _take(self, seen: Seen, track_of: Int64) -> tuple[Bool | None, Int64]:
        """Take the matched detections into their tracks.

        Returns:
            (T,) the tracks that live on, None for all of them, and the detections that start one.
        """
        if self._steps is not None:
            states = self._state, self._seen_state
            return self._steps.update(self._tracks, states, seen, track_of, (self._now_s, self._before_s))
        self._update_matched(seen, track_of)
        is_new = (track_of < 0) & (seen.score >= self.settings.score_new)
        return self._living(), is_new.nonzero()[0]

    def _update_matched(self, seen: Seen, track_of: Int64) -> None:
        s = self.settings
        cols = (track_of >= 0).nonzero()[0]
        if len(cols) == 0:
            return
        rows, box = track_of[cols], seen.centre[cols]
        gap_s = self._now_s - self._tracks["seen_s"][rows]
        hidden = (self._tracks["seen_s"][rows] < self._before_s) | (gap_s > s.replay_s)
        if s.replay_steps and hidden.any():
            r = rows[hidden]
            past = self._seen_state[:, r], self._tracks["box"][r]
            noises = (s.position_noise, s.speed_noise, s.measurement_noise)
            self._state[:, r] = kalman.replay(*past, box[hidden], gap_s[hidden], s.replay_steps, noises)
        noise = s.measurement_noise * (1 + s.weak_noise * (1 - seen.score[cols, None]))
        state = kalman.update(self._state[:, rows], box, noise)
        self._state[:, rows] = state
        self._seen_state[:, rows] = state
        table.note_matches(self._tracks, rows, box, seen.score[cols], seen.index[cols], self._now_s)
        if s.direction_weight:
            table.remember_centres(self._tracks, rows, box)
        if not s.per_class:
            self._tracks["class_id"][rows] = seen.class_id[cols]
        self._tracks["is_confirmed"] |= self._tracks["hits"] >= s.confirm_hits

    def _living(self) -> Bool | None:
        """(T,) all tracks but those unseen for too long, and those never confirmed that are unseen now."""
        unseen = self._tracks["detection"] < 0
        dead = unseen & (~self._tracks["is_confirmed"] | (self._now_s - self._tracks["seen_s"] > self.settings.lost_s))
        return ~dead if dead.any() else None

    def _start_tracks(self, seen: Seen, new: Int64, is_first: bool) -> None:
        """Start tracks from these detections, the best first where there is not room for all."""
        room = self.settings.max_objects - len(self._tracks)
        if len(new) > room:
            new = np.sort(new[np.argsort(-seen.score[new], kind="stable")[:room]])
        if len(new) == 0:
            return
        box = seen.centre[new]
        born = table.birth(self._next_id, box, seen.score[new], seen.class_id[new], seen.index[new], self._now_s)
        born["is_confirmed"] = is_first or self.settings.confirm_hits == 1
        self._next_id += len(new)
        state = kalman.start(box, self.settings.start_speed, self.settings.measurement_noise)
        self._tracks = np.concatenate((self._tracks, born))
        self._state = np.concatenate((self._state, state), axis=1)
        self._seen_state = np.concatenate((self._seen_state, state), axis=1)

    def _drop_duplicates(self) -> None:
        """Of a seen and a lost track at the same place, end the younger, unless it was long an object of its own."""
        if self._steps is not None:
            kept = self._steps.doubles(self._tracks, self._state)
            if kept is not None:
                self._keep(kept)
            return
        lost = (self._tracks["detection"] < 0).nonzero()[0]
        if len(lost) == 0:
            return
        here = (self._tracks["detection"] >= 0).nonzero()[0]
        corners = kalman.to_corners(self._state[kalman.VALUE])
        row, col = association.meeting_pairs(corners[lost], corners[here])
        if len(row) == 0:
            return
        a, b = lost[row], here[col]
        same = association.overlap(corners[a], corners[b]) > self.settings.duplicate_overlap
        if self.settings.per_class:
            same &= self._tracks["class_id"][a] == self._tracks["class_id"][b]
        a, b = a[same], b[same]
        if len(a):
            watched_s = self._tracks["seen_s"] - self._tracks["born_s"]
            keep = np.ones(len(self._tracks), np.bool_)
            younger = np.where(watched_s[a] < watched_s[b], a, b)
            keep[younger[watched_s[younger] <= self.settings.duplicate_s]] = False
            self._keep(keep)

    def _keep(self, mask: Bool) -> None:
        self._tracks = self._tracks[mask]
        # in one piece, as C takes it
        self._state = self._state.compress(mask, axis=1)
        self._seen_state = self._seen_state.compress(mask, axis=1)

    def _visible(self, detections: Detections) -> Tracks:
        tracks = self._tracks
        if self._steps is not None:
            return self._steps.visible(tracks, self._state, detections, self._now_s)
        shown = tracks["detection"] >= 0
        if self.settings.coast_s:
            shown |= self._now_s - tracks["seen_s"] <= self.settings.coast_s
        rows = (shown & tracks["is_confirmed"]).nonzero()[0]
        detection = tracks["detection"][rows]
        unseen = detection < 0
        box = detections.xyxy[detection] if len(detections) else np.empty((len(rows), 4), np.float32)
        if unseen.any():
            box[unseen] = kalman.to_corners(self._state[kalman.VALUE, rows[unseen]])
        return Tracks(
            track_id=tracks["track_id"][rows],
            xyxy=box,
            score=tracks["score"][rows].astype(np.float32),
            class_id=tracks["class_id"][rows],
            age=(self._now_s - tracks["born_s"][rows]).astype(np.float32),
            velocity=self._state[kalman.SPEED, rows, :2].astype(np.float32),
            detection=detection,
        )


def _checked(affine: Float64 | None) -> Float64 | None:
    if affine is None:
        return None
    if affine.shape != (2, 3):
        raise ValueError(f"motion must be a (2, 3) affine, found {affine.shape}")
    return affine.astype(np.float64) if np.isfinite(affine).all() else None
