"""Follows the stored candidates again, where a threshold or the tracker itself is another: a frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from edge.trackers.tracker import MotionTracker
from edge.trackstore.block import Block, Sightings
from edge.trackstore.rounding import near
from edge.types import Detections

if TYPE_CHECKING:
    from edge.trackers.settings import TrackerSettings
    from edge.trackstore.parts import Head

Stored = tuple["Head", Block]


def retracked(blocks: Iterable[Stored], settings: TrackerSettings) -> Iterator[Stored]:
    """The same blocks with the tracks that a tracker with these settings would have made of their candidates.

    What was below the floor then was never stored, and boxes that no track took are rounded to eight steps. Anchors of
    the model's own are where the middle of the lower edge is.
    """
    tracker, last = MotionTracker(settings), None
    for head, block in blocks:
        if len(block.time_ns) == 0:
            continue
        if last is not None and (head.run, head.width, head.height) != (last.run, last.width, last.height):
            tracker = MotionTracker(settings)
        last = head
        yield head, replace(block, sightings=_followed(tracker, head, block))


def detections_of(block: Block) -> Iterator[Detections]:
    """What the model found in each frame: what tracks took, then the rest."""
    seen, others = block.sightings, block.candidates
    frame = np.concatenate([seen.frame, others.frame])
    order = np.argsort(frame, kind="stable")
    box, score, class_id = (
        np.concatenate([getattr(seen, name), getattr(others, name)])[order] for name in ("xyxy", "score", "class_id")
    )
    ends = np.searchsorted(frame[order], np.arange(len(block.time_ns) + 1)).tolist()
    for start, end in pairwise(ends):
        yield Detections(box[start:end], score[start:end], class_id[start:end])


def _followed(tracker: MotionTracker, head: Head, block: Block) -> Sightings:
    steps, parts = head.steps, []
    for number, found in enumerate(detections_of(block)):
        tracks = tracker.update(found, int(block.time_ns[number]))
        tracks = tracks[tracks.detection >= 0]
        parts.append((np.full(len(tracks), number), tracks))
    frame = np.concatenate([numbers for numbers, _ in parts]).astype(np.int64)
    track_id, class_id, score, box, speed = (
        np.concatenate([getattr(tracks, name) for _, tracks in parts])
        for name in ("track_id", "class_id", "score", "xyxy", "velocity")
    )
    box = near(box, steps.px)
    feet = np.stack([(box[:, 0] + box[:, 2]) / 2, box[:, 3]], 1)
    points = np.repeat(feet[:, None], len(head.anchors), 1).astype(np.float32)
    rows = Sightings(frame, track_id, class_id, score, box, near(speed, steps.px_s), points)
    return rows[np.lexsort((rows.frame, rows.track_id))]
