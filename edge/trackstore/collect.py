"""From the frames as the inference thread gave them to a block. F frames, N sightings, M candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.analytics.anchors import MASK_FOOT
from edge.trackstore.block import Block, Candidates, Sightings, Steps
from edge.trackstore.steady import TRACK_REACH, KnownBoxes, steady_candidates, steady_scores

if TYPE_CHECKING:
    from edge.types import Array, Detections, Event, Float32, Label, Tracks


# wider than any picture, and kept exactly
FARTHEST_PX = 1 << 18
# ages are kept so finely
AGE_MS = 8


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """One frame on its way into the store; the arrays belong to the pipeline, ``shape`` is the picture's."""

    time_ns: int
    captured_ns: int
    epoch: int
    seq: int
    now_ns: int
    shape: tuple[int, ...]
    found: Detections | None
    tracks: Tracks | None
    events: tuple[Event, ...]
    labels: Mapping[int, tuple[Label, ...]]
    is_away: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.shape[1], self.shape[0]

    def compact(self) -> FrameFacts:
        """The same with arrays of its own: none keeps a model's whole output, or masks, in memory."""
        found = self.found
        if found is not None:
            found = replace(
                found,
                xyxy=found.xyxy.copy(),
                score=found.score.copy(),
                class_id=found.class_id.copy(),
                masks=None,
                keypoints=None,
                corners=None,
            )
        return replace(self, found=found)


def block_of(
    frames: Sequence[FrameFacts],
    moments: Sequence[Mapping[str, Any]],
    labels: dict[int, Any],
    anchors: Sequence[str],
    how: tuple[Sequence[str], Steps, int],
    known: KnownBoxes | None = None,
) -> Block:
    """Make a block.

    Args:
        frames: of one size, in order. moments: of the stream, by second.
        labels: track → what was known of it before; brought up to date.
        anchors: of the model's own, those that are kept.
        how: the model's anchors, the steps, the wall clock's offset.
        known: boxes of the blocks before; brought up to date.
    """
    model_anchors, steps, offset_ns = how
    columns = [(f.time_ns, f.captured_ns, f.epoch, f.seq, (f.now_ns - f.captured_ns) // 1_000_000) for f in frames]
    time_ns, captured_ns, epoch, seq, age_ms = np.array(columns, np.int64).reshape(-1, 5).T
    events = [[number, *_told(event)] for number, frame in enumerate(frames) for event in frame.events]
    notes = {"wall_offset_ns": offset_ns, "moments": list(moments), "events": events}
    notes["labels"] = _new_labels(frames, labels)
    if away := _runs([frame.is_away for frame in frames]):
        notes["away"] = away
    known = known or KnownBoxes()
    sightings, others = _sightings(frames, anchors, model_anchors)
    candidates = steady_candidates(others, steps, known)
    known.end_block(len(frames))
    return Block(time_ns, captured_ns, epoch, seq, age_ms // AGE_MS * AGE_MS, sightings, candidates, notes)


def _runs(flags: Sequence[bool]) -> list[list[int]]:
    """The first frame and the length of each run of flags that are set."""
    edges = np.flatnonzero(np.diff(np.array([False, *flags, False]).astype(np.int8)))
    return [[start, end - start] for start, end in edges.reshape(-1, 2).tolist()]


def _told(event: Event) -> tuple[str, int | None, dict[str, Any]]:
    return event.kind, event.track_id, dict(event.data)


def _new_labels(frames: Sequence[FrameFacts], known: dict[int, Any]) -> list[list[Any]]:
    """Frame, track and labels wherever a track's labels became others; without labels where it has none any more."""
    found: list[list[Any]] = []
    for number, frame in enumerate(frames):
        if frame.labels == known:
            continue
        for track_id in [*frame.labels, *(known.keys() - frame.labels.keys())]:
            labels = frame.labels.get(track_id, ())
            if known.get(track_id, ()) != labels:
                found.append([number, track_id, [[label.name, label.score] for label in labels]])
        known.clear()
        known.update(frame.labels)
    return found


def _sightings(
    frames: Sequence[FrameFacts], anchors: Sequence[str], model_anchors: Sequence[str]
) -> tuple[Sightings, Candidates]:
    found = [(number, frame.found, frame.tracks) for number, frame in enumerate(frames) if frame.found is not None]
    counts = np.array([len(detections) for _, detections, _ in found], np.int64)
    offsets = np.cumsum(counts) - counts
    all_tracks = [
        (number, offset, tracks) for (number, _, tracks), offset in zip(found, offsets, strict=True) if tracks
    ]
    is_taken = np.zeros(int(counts.sum()), np.bool_)
    for _, offset, tracks in all_tracks:
        is_taken[offset + tracks.detection[tracks.detection >= 0]] = True
    points = [_points(tracks, anchors, model_anchors) for _, _, tracks in all_tracks]
    numbers = np.repeat([number for number, _, _ in all_tracks], [len(tracks) for _, _, tracks in all_tracks])
    rows = Sightings(
        numbers.astype(np.int64),
        _joined([tracks.track_id for *_, tracks in all_tracks], np.int64),
        _joined([tracks.class_id for *_, tracks in all_tracks], np.int32),
        np.nan_to_num(_joined([tracks.score for *_, tracks in all_tracks], np.float32)),
        _joined([tracks.xyxy for *_, tracks in all_tracks], np.float32, (4,)),
        np.nan_to_num(_joined([tracks.velocity for *_, tracks in all_tracks], np.float32, (2,))),
        _joined(points, np.float32, (len(anchors), 2)),
    )
    is_seen = _joined([tracks.detection for *_, tracks in all_tracks], np.int32) >= 0
    # what analytics would take: not predicted, and finite
    rows = rows[is_seen & (rows.track_id >= 0) & (np.abs(rows.xyxy) < FARTHEST_PX).all(1)]
    rows = rows[np.lexsort((rows.frame, rows.track_id))]
    rows = replace(rows, score=steady_scores(rows.score, rows.track_id, TRACK_REACH))
    others = Candidates(
        np.repeat([number for number, *_ in found], counts).astype(np.int64),
        _joined([detections.class_id for _, detections, _ in found], np.int32),
        _joined([detections.score for _, detections, _ in found], np.float32),
        _joined([detections.xyxy for _, detections, _ in found], np.float32, (4,)),
    )
    others = others[~is_taken & (np.abs(others.xyxy) < FARTHEST_PX).all(1) & np.isfinite(others.score)]
    return rows, others


def _points(tracks: Tracks, anchors: Sequence[str], model_anchors: Sequence[str]) -> Float32:
    """(N, A, 2) where the model's own anchors are; of those that this frame lacks, the middle of the lower edge."""
    feet = np.stack([(tracks.xyxy[:, 0] + tracks.xyxy[:, 2]) / 2, tracks.xyxy[:, 3]], axis=1)
    found = np.repeat(feet[:, None], len(anchors), axis=1)
    for column, name in enumerate(anchors):
        if name == MASK_FOOT and tracks.feet is not None:
            found[:, column] = tracks.feet
        elif name != MASK_FOOT and tracks.keypoints is not None:
            found[:, column] = tracks.keypoints[:, model_anchors.index(name), :2]
    points: Float32 = np.nan_to_num(found).astype(np.float32)
    return points


def _joined(parts: Sequence[Array], kind: type, shape: tuple[int, ...] = ()) -> Array:
    if not parts:
        return np.zeros((0, *shape), kind)
    joined: Array = np.concatenate(parts).astype(kind, copy=False)
    return joined
