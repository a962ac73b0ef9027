"""A second stage: a classifier that looks at the best views of tracked objects, now and then. It does not run itself.

The pipeline asks each stream's ``CropStage`` which crops to look at, gathers those of all streams in a ``CropQueue``,
runs the classifier on batches of them and hands the results back. N tracks, C labels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.analytics.classes import ClassFilters
from edge.analytics.state import usable
from edge.boxes import area
from edge.types import Classification, Float32, Frame, Label, Tracks, UInt8

if TYPE_CHECKING:
    from edge.config.analytics import CropStageSettings

SWEEP_NS = 1_000_000_000
# a box this close to the border is cut off by it
BORDER_PX = 2
CUT_OFF_QUALITY = 0.3
SHARPNESS_PX = 64
# variance of the Laplacian at which a 64-pixel crop counts as half sharp; portraits in focus have 200 to 2,000
HALF_SHARP = 100.0


@dataclass(frozen=True, slots=True)
class CropRequest:
    """A crop that the classifier should look at.

    Attributes:
        stream: name of the stream, which with ``track_id`` says whose crop it is.
        time_ns: time of its frame.
        image: (h, w, 3) uint8 BGR, a copy, no larger than the stage was told.
        quality: in [0, 1]: large, sharp, whole views have more.
    """

    stream: str
    track_id: int
    time_ns: int
    image: UInt8
    quality: float


@dataclass(slots=True)
class _Subject:
    """What is known of one track; only the stage that made it changes it."""

    seen_ns: int
    asked_ns: int | None = None
    # when a crop of it was cut out last, to see how sharp it is
    cut_ns: int | None = None
    best: float = 0.0
    probabilities: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    labels: tuple[Label, ...] = ()


class CropStage:
    """Chooses crops of one stream and remembers what the classifier said. Used by one thread."""

    def __init__(
        self,
        settings: CropStageSettings,
        *,
        stream: str,
        classes: Sequence[str],
        labels: Sequence[str],
        max_side_px: int | None = None,
    ) -> None:
        """Start empty.

        Args:
            settings: what to look at and how often.
            stream: name of the stream.
            classes: class names of the detector.
            labels: class names of the classifier.
            max_side_px: larger crops are made smaller, so that what waits is bounded; None keeps them.
        """
        self._settings, self._stream, self._labels = settings, stream, tuple(labels)
        self._max_side_px = max_side_px
        self._filter = ClassFilters([settings.classes], classes)
        self._subjects: dict[int, _Subject] = {}
        self._next_sweep_ns: int | None = None

    def __len__(self) -> int:
        """How many tracks are remembered."""
        return len(self._subjects)

    def choose(self, frame: Frame, tracks: Tracks) -> list[CropRequest]:
        """Which crops of this frame are worth a look.

        A track is looked at first as soon as it is large enough; again after ``interval_s`` if the view is better by
        ``better_share``, or after ``refresh_s`` in any case. Tracks without a result go first, then better views.
        """
        now_ns = frame.time_ns
        self._sweep(now_ns)
        tracks = usable(tracks)
        quality = view_quality(tracks.xyxy, frame.width, frame.height, self._settings.min_box_px)
        quality[~self._filter.passes(tracks.class_id)[:, 0]] = 0
        candidates = []
        for row in np.flatnonzero(quality > 0).tolist():
            subject = self._subjects.setdefault(int(tracks.track_id[row]), _Subject(now_ns))
            subject.seen_ns = now_ns
            if self._may_cut(subject, now_ns) and self._is_due(subject, float(quality[row]), now_ns):
                candidates.append((subject.asked_ns is not None, -float(quality[row]), row))
        most = self._settings.max_per_frame
        # sharpness costs a crop, so it is measured only for the views that would win if they were sharp
        requests = [self._request(frame, tracks, row, -worse) for _, worse, row in sorted(candidates)[: 2 * most]]
        still_due = [request for request in requests if self._is_still_due(request)]
        return [self._ask(request) for request in still_due[:most]]

    def accept(self, requests: Sequence[CropRequest], classifications: Sequence[Classification]) -> None:
        """Take the classifier's answers. Those for other streams and for forgotten tracks are passed over."""
        for request, classification in zip(requests, classifications, strict=True):
            subject = self._subjects.get(request.track_id)
            new = classification.score
            if subject is None or request.stream != self._stream or not np.isfinite(new).all():
                continue
            if subject.probabilities.shape == new.shape:
                # a look at a poorer view than the best one says less
                share = self._settings.new_share * min(1.0, request.quality / max(subject.best, 1e-9))
                new = subject.probabilities + np.float32(share) * (new - subject.probabilities)
            subject.probabilities = new.astype(np.float32)
            subject.labels = self._labels_of(subject.probabilities)

    def labels(self, track_id: int) -> tuple[Label, ...]:
        """What is known of a track, most likely first; empty where nothing is."""
        subject = self._subjects.get(track_id)
        return () if subject is None else subject.labels

    def _labels_of(self, scores: Float32) -> tuple[Label, ...]:
        order = [int(k) for k in np.argsort(-scores, kind="stable") if scores[k] >= self._settings.min_score]
        return tuple(Label(self._labels[k], float(scores[k])) for k in order if k < len(self._labels))

    def _may_cut(self, subject: _Subject, now_ns: int) -> bool:
        """Whether a crop may be cut out just to see how sharp it is; those that were never asked about always may."""
        if subject.asked_ns is None or subject.cut_ns is None:
            return True
        return now_ns - subject.cut_ns >= self._settings.interval_s * 1e9

    def _is_due(self, subject: _Subject, quality: float, now_ns: int) -> bool:
        if subject.asked_ns is None:
            return True
        waited_s = (now_ns - subject.asked_ns) / 1e9
        if waited_s >= self._settings.refresh_s:
            return True
        is_better = quality > subject.best * (1 + self._settings.better_share)
        return waited_s >= self._settings.interval_s and is_better

    def _is_still_due(self, request: CropRequest) -> bool:
        return self._is_due(self._subjects[request.track_id], request.quality, request.time_ns)

    def _ask(self, request: CropRequest) -> CropRequest:
        """Note that this request goes out. A refresh lowers the mark, so that views are judged by recent ones."""
        subject = self._subjects[request.track_id]
        subject.asked_ns, subject.best = request.time_ns, request.quality
        return replace(request, image=shrunk(request.image, self._max_side_px))

    def _request(self, frame: Frame, tracks: Tracks, row: int, quality: float) -> CropRequest:
        image = crop(frame.image, tracks.xyxy[row], self._settings.margin_share)
        self._subjects[int(tracks.track_id[row])].cut_ns = frame.time_ns
        return CropRequest(self._stream, int(tracks.track_id[row]), frame.time_ns, image, quality * sharpness(image))

    def _sweep(self, now_ns: int) -> None:
        """Forget tracks that were not seen for long, or are from a clock that has started again."""
        if self._next_sweep_ns is not None and self._next_sweep_ns - SWEEP_NS <= now_ns < self._next_sweep_ns:
            return
        self._next_sweep_ns = now_ns + SWEEP_NS
        limit_ns = self._settings.forget_s * 1e9
        self._subjects = {
            track_id: subject
            for track_id, subject in self._subjects.items()
            if 0 <= now_ns - subject.seen_ns <= limit_ns
        }


class CropQueue:
    """Gathers the requests of many streams into batches: bounded, one waiting per track, the oldest dropped first."""

    def __init__(self, max_waiting: int = 256) -> None:
        self._max_waiting = max_waiting
        self._waiting: dict[tuple[str, int], CropRequest] = {}
        self.num_dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, requests: Sequence[CropRequest]) -> None:
        """Queue requests; a newer one for the same track takes the place of the older."""
        for request in requests:
            key = (request.stream, request.track_id)
            self.num_dropped += self._waiting.pop(key, None) is not None
            self._waiting[key] = request
        while len(self._waiting) > self._max_waiting:
            self._waiting.pop(next(iter(self._waiting)))
            self.num_dropped += 1

    def take(self, max_batch: int) -> list[CropRequest]:
        """Up to ``max_batch`` requests, the oldest first."""
        keys = list(self._waiting)[:max_batch]
        return [self._waiting.pop(key) for key in keys]


def view_quality(xyxy: Float32, width: int, height: int, min_box_px: float) -> Float32:
    """How well objects can be seen, by their boxes alone.

    Args:
        xyxy: (N, 4) frame pixels.
        width, height: pixels of the frame.
        min_box_px: shorter sides below this give 0.

    Returns:
        (N,) in [0, 1]: grows with the shorter side, falls at the frame's edge and where nearer objects cover the box
        (nearer are those whose bottom is lower in the picture).
    """
    if len(xyxy) == 0:
        return np.empty(0, np.float32)
    shorter = (xyxy[:, 2:] - xyxy[:, :2]).min(1)
    # half quality at four times the least size: more pixels help less and less
    quality = np.where(shorter >= min_box_px, shorter / (shorter + 4 * min_box_px), 0)
    is_cut = (xyxy[:, :2] <= BORDER_PX).any(1) | (xyxy[:, 2:] >= np.array([width, height]) - BORDER_PX).any(1)
    quality = np.where(is_cut, quality * CUT_OFF_QUALITY, quality)
    return (quality * (1 - covered_share(xyxy))).astype(np.float32)


def covered_share(xyxy: Float32) -> Float32:
    """(N,) largest share of each box that lies under a single nearer one."""
    low = np.maximum(xyxy[:, None, :2], xyxy[None, :, :2])
    high = np.minimum(xyxy[:, None, 2:], xyxy[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    shared[xyxy[None, :, 3] <= xyxy[:, None, 3]] = 0
    covered: Float32 = shared.max(1) / np.maximum(area(xyxy), 1e-9)
    return covered


def crop(image: UInt8, xyxy: Float32, margin_share: float) -> UInt8:
    """A copy of the (h, w, 3) part of an image within a (4,) box and a margin, at least one pixel."""
    height, width = image.shape[:2]
    margin = (xyxy[2:] - xyxy[:2]) * margin_share
    left, top = np.clip(np.floor(xyxy[:2] - margin).astype(int), 0, (width - 1, height - 1))
    right, bottom = np.clip(np.ceil(xyxy[2:] + margin).astype(int), (left + 1, top + 1), (width, height))
    part: UInt8 = image[top:bottom, left:right].copy()
    return part


def shrunk(image: UInt8, max_side_px: int | None) -> UInt8:
    """The (h, w, 3) image, its longer side at most ``max_side_px``."""
    longer = max(image.shape[:2])
    if max_side_px is None or longer <= max_side_px:
        return image
    height, width = (max(1, round(side * max_side_px / longer)) for side in image.shape[:2])
    small: UInt8 = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return small


def sharpness(image: UInt8) -> float:
    """In (0, 1): variance of the Laplacian at a fixed size (Pech-Pacheco 2000), one half at ``HALF_SHARP``."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    grey = cv2.resize(grey, (SHARPNESS_PX, SHARPNESS_PX), interpolation=cv2.INTER_AREA)
    variance = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    # never 0, so that a flat crop is poor but still a view
    return max(variance / (variance + HALF_SHARP), 0.01)
