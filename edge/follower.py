"""What one stream remembers: its tracker, and what the tracks mean. Used by the inference thread alone."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.analytics.analytics import StreamAnalytics
from edge.analytics.settings import AnalyticsSettings
from edge.analytics.shapes import Shape
from edge.boxes import without_doubles
from edge.errors import DataError
from edge.files import write_atomic
from edge.interfaces import Tracker
from edge.types import Detections, Frame, Prediction, Result

log = logging.getLogger(__name__)
# a van that is car and truck at once is one object: it shall have one box, one id and one count
DOUBLE_IOU = 0.8


class Follower:
    """Gives objects their ids and says what happened.

    Attributes:
        shapes: lines and zones with their counts, for the overlay; replaced as a whole, so any thread may read it.
    """

    def __init__(
        self,
        stream: str,
        classes: Sequence[str],
        *,
        tracker: Tracker | None,
        settings: AnalyticsSettings,
        state_file: Path | None = None,
    ) -> None:
        """Args: the stream, its classes, what follows (None: nothing), what is watched, where counts are kept."""
        self._stream = stream
        self._classes = classes
        self._tracker = tracker
        self._settings = settings
        self._state_file = state_file
        self._analytics: StreamAnalytics | None = None
        self._size = (0, 0)
        self.shapes: tuple[Shape, ...] = ()

    @property
    def has_analytics(self) -> bool:
        return bool(self._settings.lines or self._settings.zones or self._settings.heatmap)

    def follow(self, frame: Frame, prediction: Prediction, spent_ns: Mapping[str, int]) -> Result:
        """The result of one frame; frames come in order."""
        if self._tracker is None or not isinstance(prediction, Detections):
            return Result(frame, prediction, stage_ns=spent_ns)
        started_ns = time.monotonic_ns()
        if len(prediction) > 1:
            prediction = prediction[without_doubles(prediction.xyxy, prediction.score, DOUBLE_IOU)]
        tracks = self._tracker.update(prediction, frame.time_ns)
        tracked_ns = time.monotonic_ns()
        spent = {**spent_ns, "track": tracked_ns - started_ns}
        if not self.has_analytics:
            return Result(frame, prediction, tracks, stage_ns=spent)
        analytics = self._analytics_for(frame)
        events = analytics.update(tracks, frame.time_ns)
        if events:
            self.shapes = analytics.shapes()
        spent["analytics"] = time.monotonic_ns() - tracked_ns
        return Result(frame, prediction, tracks, events, spent)

    def counts(self) -> dict[str, Any]:
        """Counts of lines and zones as JSON values."""
        return self._analytics.counts() if self._analytics else {}

    def save(self) -> None:
        """Keep the counts over a restart, where a file for them is set."""
        if self._analytics is not None and self._state_file is not None:
            write_atomic(self._state_file, json.dumps(self._analytics.state()))

    def _analytics_for(self, frame: Frame) -> StreamAnalytics:
        """The analytics for frames of this size; a camera that changes its size keeps its counts."""
        size = (frame.width, frame.height)
        if self._analytics is None or size != self._size:
            state = self._analytics.state() if self._analytics else self._stored()
            self._analytics = StreamAnalytics(
                self._settings, stream=self._stream, classes=self._classes, width=size[0], height=size[1], state=state
            )
            self._size = size
            self.shapes = self._analytics.shapes()
        return self._analytics

    def _stored(self) -> Mapping[str, Any] | None:
        if self._state_file is None or not self._state_file.is_file():
            return None
        try:
            state = json.loads(self._state_file.read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{self._state_file}: not readable ({error}); remove it to start from zero") from None
        return state if isinstance(state, dict) else None
