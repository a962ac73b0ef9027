"""Makes what flickers steady before it is stored: boxes and scores stay what they were while they differ little.

Of the store's own thread; what lines and zones read is not touched (``edge.trackstore.rounding``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge.trackstore.block import COARSE, SCORES, Candidates, Steps

if TYPE_CHECKING:
    from edge.types import Array, Float32, Int64

# so long a box that is not seen is still known, in frames
KEPT_FRAMES = 20
# a candidate stays in a box whose edges are within so many coarse steps
NEAR = 1.0
# of scores; those of tracks decide nothing
TRACK_REACH, CANDIDATE_REACH = 1.5, 1.0


def steady_scores(score: Float32, group: Int64, reach: float) -> Float32:
    """Scores in whole ``SCORES``, rounded down, that stay while they are near.

    Args:
        score: (N,), of each group in order. group: (N,) what belongs together stands together.
        reach: how far from the middle of what it is rounded to, in whole ``SCORES``; 0.5 is rounding alone.
    """
    found, last, kept = [], -1, 0
    for value, number in zip((score * SCORES).tolist(), group.tolist(), strict=True):
        if number != last or not 0.5 - reach <= value - kept < 0.5 + reach:
            kept, last = int(value), number
        found.append(kept)
    steady: Float32 = np.array(found, np.float32) / np.float32(SCORES)
    return steady


def steady_candidates(found: Candidates, steps: Steps, known: KnownBoxes) -> Candidates:
    """Candidates of a block, sorted by frame, in coarse boxes; of a class, what is near a known box is given that."""
    step = COARSE * steps.px
    exact = found.xyxy / np.float32(step)
    box = np.rint(exact)
    numbers = np.zeros(len(found), np.int64)
    starts = np.flatnonzero(np.diff(found.frame, prepend=-1))
    for rows in np.split(np.arange(len(found)), starts[1:]) if len(starts) else ():
        frame = int(found.frame[rows[0]])
        numbers[rows], box[rows] = known.settle(frame, (exact[rows], box[rows]), found.class_id[rows])
    order = np.lexsort((found.frame, numbers))
    score = np.empty_like(found.score)
    score[order] = steady_scores(found.score[order], numbers[order], CANDIDATE_REACH)
    return Candidates(found.frame, found.class_id, score, (box * np.float32(step)).astype(np.float32))


class KnownBoxes:
    """The boxes of the last frames, of a stream in frames of one size."""

    def __init__(self) -> None:
        self._box = np.zeros((0, 4), np.float32)
        self._class_id = np.zeros(0, np.int64)
        self._frame = np.zeros(0, np.int64)
        self._number = np.zeros(0, np.int64)
        self._count = 0

    def settle(self, frame: int, boxes: tuple[Array, Array], class_id: Array) -> tuple[Int64, Array]:
        """Numbers and boxes of a frame's candidates: of those known before where one is near, else their own.

        Args:
            frame: its number. boxes: (M, 4) exact and rounded. class_id: (M,).
        """
        exact, box = boxes
        self._keep(self._frame >= frame - KEPT_FRAMES)
        number = np.arange(self._count, self._count + len(box))
        is_new = np.ones(len(box), np.bool_)
        if len(self._box):
            apart = np.abs(exact[:, None] - self._box).max(2)
            apart[class_id[:, None] != self._class_id] = np.inf
            nearest = apart.argmin(1)
            is_new = apart[np.arange(len(box)), nearest] > NEAR
            old = nearest[~is_new]
            box[~is_new], number[~is_new] = self._box[old], self._number[old]
            self._frame[old] = frame
        self._box = np.concatenate([self._box, box[is_new]])
        self._class_id = np.concatenate([self._class_id, class_id[is_new]])
        self._frame = np.concatenate([self._frame, np.full(np.count_nonzero(is_new), frame)])
        self._number = np.concatenate([self._number, number[is_new]])
        self._count += len(number)
        return number, box

    def end_block(self, num_frames: int) -> None:
        """Frames are numbered from 0 again in the next block."""
        self._frame = self._frame - num_frames

    def _keep(self, wanted: Array) -> None:
        if not wanted.all():
            self._box, self._class_id = self._box[wanted], self._class_id[wanted]
            self._frame, self._number = self._frame[wanted], self._number[wanted]
