"""The inference worker: takes frames of all streams, runs the models in batches, tracks, and passes results on.

One thread owns the engines, the batch buffers and the trackers. What remembers sits here, before frames may be dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from edge.handoff import LatestFrames
from edge.lane import Lane
from edge.model import Model
from edge.types import Batch, Frame, Prediction

IDLE_S = 0.2


class InferenceWorker:
    """Runs in its own thread until stopped, or until every stream has ended."""

    def __init__(
        self,
        models: Mapping[str, Model],
        lanes: Mapping[str, Lane],
        latest: LatestFrames,
        linger_s: Mapping[str, float],
    ) -> None:
        self._models = models
        self._lanes = lanes
        self._latest = latest
        self._linger_s = linger_s
        self._max_batch = {name: model.engine.max_batch for name, model in models.items()}
        self.num_batches = 0

    def run(self, stopping: threading.Event) -> None:
        """Work until asked to stop.

        Raises:
            EngineError: an engine failed; its streams cannot go on.
        """
        try:
            while not stopping.is_set():
                frames = self._latest.take(self._max_batch, self._linger_s, IDLE_S)
                fresh = [frame for frame in frames if self._is_fresh(frame)]
                if fresh:
                    self._infer(fresh)
                self._close_ended()
                if not frames and all(lane.results.is_closed for lane in self._lanes.values()):
                    return
        finally:
            for lane in self._lanes.values():
                lane.results.close()

    def _is_fresh(self, frame: Frame) -> bool:
        lane = self._lanes[frame.stream]
        if not lane.is_too_old(frame, time.monotonic_ns()):
            return True
        lane.counters.add("drop_too_old")
        return False

    def _infer(self, frames: list[Frame]) -> None:
        model = self._models[self._lanes[frames[0].stream].model]
        started_ns = time.monotonic_ns()
        batch = model.preprocessor.batch(frames, pad_to=model.batch_size)
        letterboxed_ns = time.monotonic_ns()
        outputs = model.engine.infer(batch.tensor)
        inferred_ns = time.monotonic_ns()
        predictions = model.head.decode(outputs, batch.letterboxes)
        share = len(frames)
        spent = {
            "letterbox": (letterboxed_ns - started_ns) // share,
            "infer": (inferred_ns - letterboxed_ns) // share,
            "head": (time.monotonic_ns() - inferred_ns) // share,
        }
        self.num_batches += 1
        self._pass_on(batch, predictions, spent)

    def _pass_on(self, batch: Batch, predictions: list[Prediction], spent: Mapping[str, int]) -> None:
        for frame, prediction in zip(batch.frames, predictions, strict=True):
            lane = self._lanes[frame.stream]
            lane.counters.add("inferred")
            lane.results.put(lane.follower.follow(frame, prediction, spent))

    def _close_ended(self) -> None:
        for name in self._latest.ended():
            self._lanes[name].results.close()
