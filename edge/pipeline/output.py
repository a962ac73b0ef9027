"""The output worker of one stream: draws once if somebody looks, writes to every sink, delays nobody else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge.errors import PartError, SinkError
from edge.overlay import Overlay, StreamState
from edge.types import Classification, Detections, Result, UInt8

if TYPE_CHECKING:
    from edge.interfaces import Sink
    from edge.metrics.stages import Stage
    from edge.pipeline.guarded import GuardedStage
    from edge.pipeline.stream import CaptureState, Stream

log = logging.getLogger(__name__)
IDLE_S = 0.2
REPORT_EVERY_S = 1.0
_SHOWN: dict[CaptureState, str] = {
    "connecting": "connecting",
    "streaming": "live",
    "frozen": "frozen",
    "backing_off": "offline",
    "ended": "live",
    "failed": "offline",
}


class OutputWorker:
    """Runs in its own thread until its stream has ended and everything is written."""

    def __init__(
        self,
        stream: Stream,
        sinks: Sequence[Sink],
        overlay: Overlay,
        on_room: Callable[[], None],
        stages: Sequence[GuardedStage] = (),
    ) -> None:
        """Args: stream, sinks (closed here), what draws, who waits for room, what adds to results (closed here)."""
        self._stream = stream
        self._sinks = sinks
        self._overlay = overlay
        self._on_room = on_room
        self._stages = stages
        self._last_report_s = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Write until the stream's results are closed and empty; ``stopping`` gives up what still waits."""
        try:
            while not stopping.is_set() and not self._stream.results.is_finished:
                result = self._stream.results.get(IDLE_S)
                if result is not None:
                    if self._stream.config.is_lossless:
                        self._on_room()
                    self._emit(result)
        finally:
            # whoever still has a result for it must not wait for room
            self._stream.results.close()
            while (result := self._stream.results.get(0.0)) is not None:
                self._stream.report_lost(result)
            self._close()

    def _emit(self, result: Result) -> None:
        stream = self._stream
        now_ns = time.monotonic_ns()
        if stream.is_too_old(result.frame, now_ns):
            stream.metrics.counters.add("drop_too_old")
            self._stream.report_lost(result)
            return
        if not result.is_analysed:
            self._show_unseen(result)
            return
        if stream.budget is not None and not stream.budget.take():
            stream.metrics.counters.add("drop_stopped")
            stream.report_lost(result)
            return
        events = stream.take_events(result.frame)
        result = result.with_events(events) if events else result
        for stage in self._stages:
            result = stage.add_to(result)
        staged_ns = time.monotonic_ns() if self._stages else now_ns
        self._overlay.shapes = stream.analysis.shapes
        picture = _Picture(self._overlay, result, lambda: self._state(result, now_ns))
        for sink in self._sinks:
            self._write(sink, result, picture)
        done_ns = time.monotonic_ns()
        stream.metrics.counters.add("emitted")
        stream.metrics.counters.add("objects", _num_objects(result))
        stream.tally.add(result)
        stream.metrics.emitted_rate.tick(done_ns)
        stream.metrics.age_ms.add((done_ns - result.frame.captured_ns) / 1e6)
        added: dict[Stage, int] = {"added": staged_ns - now_ns} if self._stages else {}
        stream.metrics.stages.add(
            {**result.stage_ns, **added, "overlay": picture.spent_ns, "output": done_ns - staged_ns - picture.spent_ns}
        )

    def _show_unseen(self, result: Result) -> None:
        """Show and record a frame that no model has seen; events and lines say nothing of it."""
        is_off = not self._stream.is_analysed
        note = "analysis off" if is_off else "no engine"
        picture = _Picture(self._overlay, result, lambda: StreamState("live", note=note))
        for sink in self._sinks:
            if getattr(sink, "takes_unseen", False):
                self._write(sink, result, picture)
        if is_off:
            # who watches is told how well pictures come
            done_ns = time.monotonic_ns()
            self._stream.metrics.emitted_rate.tick(done_ns)
            self._stream.metrics.age_ms.add((done_ns - result.frame.captured_ns) / 1e6)

    def _write(self, sink: Sink, result: Result, picture: Callable[[], UInt8]) -> None:
        try:
            sink.write(result, picture)
        except SinkError as error:
            self._stream.metrics.counters.add("sink_errors")
            if time.monotonic() - self._last_report_s >= REPORT_EVERY_S:
                self._last_report_s = time.monotonic()
                count = self._stream.metrics.counters["sink_errors"]
                log.error("%s: %s (%d results lost so far)", self._stream.name, error, count)

    def _state(self, result: Result, now_ns: int) -> StreamState:
        stream = self._stream
        if stream.config.is_lossless:
            # neither live nor at a rate of its own
            return StreamState("file")
        age_ms = (now_ns - result.frame.captured_ns) / 1e6
        return StreamState(_SHOWN[stream.status.state], stream.metrics.emitted_rate.per_second(now_ns) or None, age_ms)

    def _close(self) -> None:
        for close in (*(sink.close for sink in self._sinks), *(stage.close for stage in self._stages)):
            try:
                close()
            except (SinkError, PartError) as error:
                self._stream.metrics.counters.add("sink_errors")
                log.error("%s: %s", self._stream.name, error)


class _Picture:
    """The annotated picture of one result, drawn when it is first asked for."""

    def __init__(self, overlay: Overlay, result: Result, state: Callable[[], StreamState]) -> None:
        self._overlay = overlay
        self._result = result
        self._state = state
        self._drawn: UInt8 | None = None
        self.spent_ns = 0

    def __call__(self) -> UInt8:
        if self._drawn is None:
            started_ns = time.monotonic_ns()
            self._drawn = self._overlay.draw(self._result, self._state())
            self.spent_ns = time.monotonic_ns() - started_ns
        return self._drawn


def _num_objects(result: Result) -> int:
    if result.tracks is not None:
        return len(result.tracks)
    if isinstance(result.prediction, Detections):
        return len(result.prediction)
    return 1 if isinstance(result.prediction, Classification) else 0
