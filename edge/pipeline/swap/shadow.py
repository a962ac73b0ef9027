"""What watches a new model: the tap that shows it live frames, and the judge of its first batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import EngineError
from edge.models.checks import check_sane

if TYPE_CHECKING:
    from edge.metrics.stages import StageNs
    from edge.types import Frame, Prediction

# batches whose median time is judged
NUM_TIMED = 30


class Judge:
    """Looks at every batch of a model on probation. Used by the inference thread."""

    def __init__(self, num_classes: int, limit_ms: float) -> None:
        self._num_classes = num_classes
        self._limit_ms = limit_ms
        self._times_ms: deque[float] = deque(maxlen=NUM_TIMED)

    def __call__(self, predictions: list[Prediction], spent_ns: StageNs) -> None:
        """Raises: EngineError: what came out makes no sense, or takes too long."""
        for prediction in predictions:
            check_sane(prediction, self._num_classes)
        self._times_ms.append(spent_ns["infer"] / 1e6)
        if len(self._times_ms) == NUM_TIMED and float(np.median(self._times_ms)) > self._limit_ms:
            raise EngineError(
                f"it takes {np.median(self._times_ms):.1f} ms per frame, expected at most {self._limit_ms:.1f}"
            )


@dataclass(frozen=True, slots=True)
class ShadowBatch:
    """Frames that the running model saw, what it said, and nanoseconds of its engine per frame."""

    frames: Sequence[Frame]
    predictions: Sequence[Prediction]
    infer_ns: int


class ShadowTap:
    """Passes batches to the shadow run; what comes while it is busy is not shown to it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._batch: ShadowBatch | None = None
        self._is_waiting = False

    def offer(self, frames: Sequence[Frame], predictions: Sequence[Prediction], infer_ns: int) -> None:
        """Called by the inference thread after every batch."""
        with self._changed:
            if not self._is_waiting:
                return
            self._is_waiting = False
        # copies: a held frame would hold a slot of its camera's ring
        copies = [replace(frame, planes=frame.planes.copy()) for frame in frames]
        with self._changed:
            self._batch = ShadowBatch(copies, list(predictions), infer_ns)
            self._changed.notify_all()

    def take(self, timeout_s: float) -> ShadowBatch | None:
        """The next batch that the inference thread has; None if there is none in time."""
        with self._changed:
            self._is_waiting = True
            self._changed.wait_for(lambda: self._batch is not None, timeout_s)
            batch, self._batch = self._batch, None
            return batch
