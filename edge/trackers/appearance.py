"""Who is who by looks: embeddings of tracked objects, asked for only where boxes alone leave a doubt.

Shape letters: T tracks, N detections, P pairs of both that meet, K crops, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge.boxes import iou
from edge.types import Bool, Embedding, Float32, Float64, Frame, Int64, Prediction, UInt8

if TYPE_CHECKING:
    from edge.interfaces import EmbedBoxes

# crops per frame that settle doubts, and crops per frame that keep what tracks look like
MOST_DOUBTS = 16
MOST_LEARNT = 4
# a track's looks are taken again after this long
RELEARN_S = 1.0
# weight of a new look in the average, as in BoT-SORT (https://arxiv.org/abs/2206.14651)
NEW_SHARE = 0.1
# a box that overlaps another more than this shows two objects, and teaches nothing
CLEAR_OVERLAP = 0.1
LEAST_SIDE_PX = 8


class CropEmbedder:
    """Looks at the objects of a frame with an embedding model."""

    def __init__(self, predict: Callable[[Sequence[UInt8]], list[Prediction]]) -> None:
        """Args: runs the model on (h, w, 3) uint8 BGR crops."""
        self._predict = predict

    def embedder_for(self, frame: Frame, xyxy: Float32) -> EmbedBoxes:
        """A function that gives the looks of the frame's (N, 4) boxes, by their numbers."""
        return lambda numbers: self._looks(frame, xyxy[numbers])

    def _looks(self, frame: Frame, xyxy: Float32) -> Float32:
        limit = np.array([frame.width, frame.height] * 2)
        corners = np.clip(np.nan_to_num(xyxy), 0, limit).astype(int)
        # a box outside of the frame shows its nearest pixel
        low = np.minimum(corners[:, :2], limit[:2] - 1)
        high = np.maximum(corners[:, 2:], low + 1)
        crops = [frame.image[y1:y2, x1:x2] for (x1, y1), (x2, y2) in zip(low.tolist(), high.tolist(), strict=True)]
        found = [answer.vector for answer in self._predict(crops) if isinstance(answer, Embedding)]
        return np.stack(found) if found else np.empty((0, 0), np.float32)


class Gallery:
    """What the tracks of one stream look like. Bounded: a vector per track that lives."""

    def __init__(self, weight: float) -> None:
        """Args: how much a difference of 1 in cosine similarity adds to the similarity of two boxes."""
        self._weight = weight
        self._known: dict[int, tuple[float, Float32]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def forget_but(self, track_ids: Int64) -> None:
        """Keep the vectors of these tracks only."""
        if self._known:
            alive = set(track_ids.tolist())
            self._known = {track_id: seen for track_id, seen in self._known.items() if track_id in alive}

    def advantage(self, look: EmbedBoxes, pairs: tuple[Int64, Int64], gain: Float64, numbers: Int64) -> Float64:
        """What looks add to the gain of each pair: most for the likeliest of rivals, 0 where nothing is in doubt.

        Only differences between rivals count, so no threshold depends on the embedding model.

        Args:
            look: looks at detections.
            pairs: (P,) ids of the tracks and (P,) rows of the detections.
            gain: (P,) by boxes alone; pairs at 0 or below are no candidates.
            numbers: the number of each detection for ``look``, by row.
        """
        added = np.zeros(len(gain))
        doubtful = np.flatnonzero(in_doubt(*pairs, gain))
        doubtful = doubtful[[int(track_id) in self._known for track_id in pairs[0][doubtful].tolist()]]
        rows = np.unique(pairs[1][doubtful])[:MOST_DOUBTS]
        doubtful = doubtful[np.isin(pairs[1][doubtful], rows)]
        if len(doubtful) < 2:
            return added
        track_ids, row = pairs[0][doubtful], pairs[1][doubtful]
        seen = look(numbers[rows])[np.searchsorted(rows, row)]
        known = np.stack([self._known[track_id][1] for track_id in track_ids.tolist()])
        cosine = (seen * known).sum(axis=1).astype(np.float64)
        own = cosine - 0.5 * (_mean_by(track_ids, cosine) + _mean_by(row, cosine))
        # a pair that boxes allow stays allowed: looks change the order, not the gate
        added[doubtful] = np.maximum(self._weight * own, 1e-6 - gain[doubtful])
        return added

    def learn(self, look: EmbedBoxes, track_ids: Int64, numbers: Int64, now_s: float) -> None:
        """Take the looks of some of these tracks: of new ones, then of those not looked at for longest.

        Args:
            look: looks at detections.
            track_ids: (K,) seen in this frame, clearly and with good scores.
            numbers: (K,) their detections, for ``look``.
            now_s: time of the frame.
        """
        looked_s = np.array([self._known[i][0] if i in self._known else -np.inf for i in track_ids.tolist()])
        chosen = np.flatnonzero(now_s - looked_s >= RELEARN_S)
        chosen = chosen[np.argsort(looked_s[chosen], kind="stable")][:MOST_LEARNT]
        if len(chosen) == 0:
            return
        for track_id, new in zip(track_ids[chosen].tolist(), look(numbers[chosen]), strict=True):
            if not np.isfinite(new).all():
                continue
            old = self._known.get(track_id, (0.0, new))[1]
            mixed = (1 - NEW_SHARE) * old + NEW_SHARE * new
            self._known[track_id] = (now_s, (mixed / max(float(np.linalg.norm(mixed)), 1e-9)).astype(np.float32))


def in_doubt(tracks: Int64, rows: Int64, gain: Float64) -> Bool:
    """(P,) the candidates whose track or detection has another candidate."""
    fit = gain > 0
    doubt = np.zeros(len(gain), np.bool_)
    if fit.any():
        _, by_track, num_of_track = np.unique(tracks[fit], return_inverse=True, return_counts=True)
        _, by_row, num_of_row = np.unique(rows[fit], return_inverse=True, return_counts=True)
        doubt[fit] = (num_of_track[by_track] > 1) | (num_of_row[by_row] > 1)
    return doubt


def is_clear(xyxy: Float64) -> Bool:
    """(N,) boxes that are large enough to show something and overlap no other of them by much."""
    overlap = iou(xyxy.astype(np.float32), xyxy.astype(np.float32))
    np.fill_diagonal(overlap, 0)
    alone = overlap.max(axis=1, initial=0) <= CLEAR_OVERLAP
    clear: Bool = alone & ((xyxy[:, 2:] - xyxy[:, :2]).min(axis=1, initial=np.inf) >= LEAST_SIDE_PX)
    return clear


def _mean_by(groups: Int64, values: Float64) -> Float64:
    """(P,) mean of the values that have the same group."""
    _, index, count = np.unique(groups, return_inverse=True, return_counts=True)
    mean: Float64 = (np.bincount(index, values) / count)[index]
    return mean
