"""How far two models say the same about a picture, and whether what a model says can be true at all.

Shape letters: N M objects, h w cells of a class map, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from edge.boxes import best_pairs, iou, oriented_iou
from edge.masks import mask_iou
from edge.types import Classification, Detections, Embedding, Float32, Prediction, Segmentation

MATCH_IOU = 0.5
# of a pair, the key points that lie as near as people who set them would differ count as the same
POINT_SHARE = 0.1
LEAST_POINT_SCORE = 0.3
# masks that overlap so far show the same object as well as two people would draw it
MASK_ENOUGH = 0.8


@dataclass(frozen=True, slots=True)
class Agreement:
    """The same frames seen by two models.

    Attributes:
        num_frames: compared.
        num_old, num_new: objects that each found, from the score of the manifest on.
        share: of the objects (or cells, or frames that were classified) on which both agree; 1 where neither saw any.
        score_delta: mean of new minus old score over matched objects.
    """

    num_frames: int
    num_old: int
    num_new: int
    share: float
    score_delta: float


class Comparison:
    """Adds up frames; ``share`` and ``result`` at any time."""

    def __init__(self, score: float) -> None:
        """Args: detections below this score do not count."""
        self._score = score
        self._num_frames = 0
        self._num_old = self._num_new = 0
        self._agreed = self._total = 0.0
        self._delta = 0.0
        self._num_matched = 0

    @property
    def share(self) -> float:
        """See ``Agreement``; not rounded."""
        return _share(self._agreed, self._total)

    def add(self, old: Prediction, new: Prediction) -> float:
        """Take what both say of one frame, predictions of the same kind; gives the frame's own share back."""
        agreed, total = self._agreed, self._total
        self._num_frames += 1
        match old, new:
            case Detections(), Detections():
                self._add_objects(old[old.score >= self._score], new[new.score >= self._score])
            case Segmentation(), Segmentation():
                self._add_share(_equal_cells(old, new))
            case Classification(), Classification():
                self._add_share(float(np.argmax(old.score) == np.argmax(new.score)))
            case Embedding(), Embedding():
                self._add_share(max(0.0, float(old.vector @ new.vector)))
            case _:
                self._add_share(0.0)
        return _share(self._agreed - agreed, self._total - total)

    def result(self) -> Agreement:
        delta = self._delta / self._num_matched if self._num_matched else 0.0
        return Agreement(self._num_frames, self._num_old, self._num_new, round(self.share, 4), round(delta, 4))

    def _add_share(self, share: float) -> None:
        self._agreed += share
        self._total += 1

    def _add_objects(self, old: Detections, new: Detections) -> None:
        self._num_old += len(old)
        self._num_new += len(new)
        self._total += len(old) + len(new)
        pairs = matched(old, new)
        self._agreed += 2 * sum(_alike(old, new, *pair) for pair in pairs)
        self._num_matched += len(pairs)
        self._delta += float(sum(new.score[second] - old.score[first] for first, second in pairs))


def matched(old: Detections, new: Detections) -> list[tuple[int, int]]:
    """Pairs of objects of the same class that overlap by at least half, the best overlap first, each object once."""
    overlap = _overlap(old, new)
    overlap[old.class_id[:, None] != new.class_id[None, :]] = 0
    return best_pairs(overlap, MATCH_IOU)


def _overlap(old: Detections, new: Detections) -> Float32:
    """(N, M) of boxes, oriented ones as they lie."""
    if old.corners is None or new.corners is None:
        return iou(old.xyxy, new.xyxy)
    return oriented_iou(old.corners, new.corners)


def _alike(old: Detections, new: Detections, first: int, second: int) -> float:
    """How far a pair agrees besides its boxes, in [0, 1]: overlap of the masks, the share of key points together."""
    shares = []
    if old.masks is not None and new.masks is not None:
        # the masks may agree no better than this for the pair to count fully
        shares.append(min(1.0, mask_iou(old.masks, first, new.masks, second) / MASK_ENOUGH))
    if old.keypoints is not None and new.keypoints is not None and old.keypoints.shape == new.keypoints.shape:
        shares.append(_same_points(old.keypoints[first], new.keypoints[second], old.xyxy[first]))
    return min(shares, default=1.0)


def _same_points(one: Float32, other: Float32, box: Float32) -> float:
    """Share of the (K, 3) key points, among those that either sees, that lie together."""
    seen = np.maximum(one[:, 2], other[:, 2]) >= LEAST_POINT_SCORE
    if not seen.any():
        return 1.0
    reach = POINT_SHARE * float(np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 1.0)))
    return float((np.hypot(*(one[seen, :2] - other[seen, :2]).T) <= reach).mean())


def same_outputs(first: Iterable[Prediction], second: Iterable[Prediction]) -> bool:
    """Whether two runs over the same frames said the same, except for rounding."""
    return all(_is_same(one, other) for one, other in zip(first, second, strict=True))


def _is_same(one: Prediction, other: Prediction) -> bool:
    match one, other:
        case Detections(), Detections():
            return len(one) == len(other) and _is_same_objects(one, other)
        case Segmentation(), Segmentation():
            return _equal_cells(one, other) > 0.99
        case Classification(), Classification():
            return bool(np.allclose(one.score, other.score, atol=1e-2))
        case Embedding(), Embedding():
            return bool(np.allclose(one.vector, other.vector, atol=1e-2))
    return False


def _is_same_objects(one: Detections, other: Detections) -> bool:
    """Whether equally many objects lie at the same places, their key points and corners too."""
    pairs = [(one.xyxy, other.xyxy), (one.corners, other.corners)]
    if one.keypoints is not None and other.keypoints is not None:
        pairs.append((one.keypoints[..., :2], other.keypoints[..., :2]))
    if one.masks is not None and other.masks is not None:
        alike = [mask_iou(one.masks, row, other.masks, row) for row in range(len(one))]
        if min(alike, default=1.0) < 0.95:
            return False
    return all(np.allclose(a, b, atol=0.5) for a, b in pairs if a is not None and b is not None)


def _share(agreed: float, total: float) -> float:
    return agreed / total if total else 1.0


def _equal_cells(old: Segmentation, new: Segmentation) -> float:
    """Share of the cells with the same class; the new map is brought to the old one's (h, w)."""
    height, width = old.class_map.shape
    other = new.class_map
    if other.shape != old.class_map.shape:
        other = cv2.resize(other, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    return float((other == old.class_map).mean())
