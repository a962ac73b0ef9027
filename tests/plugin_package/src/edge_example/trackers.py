"""Trackers: one that numbers detections by their place in the list, and one that raises or hangs."""

from __future__ import annotations

import time

import numpy as np

from edge.interfaces import EmbedBoxes
from edge.types import Detections, Tracks


class NearestTracker:
    def __init__(self) -> None:
        self._first_ns: int | None = None

    def update(
        self, detections: Detections, time_ns: int, motion: np.ndarray | None = None, look: EmbedBoxes | None = None
    ) -> Tracks:
        self._first_ns = self._first_ns or time_ns
        count = len(detections)
        return Tracks(
            track_id=np.arange(100, 100 + count),
            xyxy=detections.xyxy,
            score=detections.score,
            class_id=detections.class_id,
            age=np.full(count, (time_ns - self._first_ns) / 1e9, np.float32),
            velocity=np.zeros((count, 2), np.float32),
            detection=np.arange(count, dtype=np.int32),
        )


class MoodyTracker(NearestTracker):
    """Hangs at the third frame."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def update(
        self, detections: Detections, time_ns: int, motion: np.ndarray | None = None, look: EmbedBoxes | None = None
    ) -> Tracks:
        self._count += 1
        if self._count == 3:
            time.sleep(3600)
        return super().update(detections, time_ns, motion, look)
