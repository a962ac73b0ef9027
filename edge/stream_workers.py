"""The two threads of one stream, capture and output: how they are begun, and given up when the stream cannot run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.assembly import deadlines_of, open_sinks, preparation_of, score_of
from edge.backoff import HostGate
from edge.capture.capture import CaptureWorker
from edge.config import Config
from edge.errors import EdgeError
from edge.handoff import LatestFrames, Slot
from edge.lane import Lane
from edge.outlets import Outlets, close_sink
from edge.output import OutputWorker
from edge.overlay.overlay import Overlay, Theme
from edge.uris import is_live
from edge.worker import Worker

if TYPE_CHECKING:
    from edge.server.live import LiveBoard

OPEN_TIMEOUT_S = 30.0
# for what only has to notice that it is to end
LATE_S = 1.0


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture thread, and the place where its frames wait for inference."""

    slot: Slot
    worker: Worker


def start_capture(
    lane: Lane, config: Config, latest: LatestFrames, gate: HostGate, is_alone: Callable[[], bool]
) -> Capture:
    """Begin to open the source of a stream, see ``edge.capture.capture.CaptureWorker``."""
    slot = latest.add(
        lane.name,
        group=lane.model,
        is_lossless=lane.config.is_lossless,
        on_drop=lambda _: lane.counters.add("drop_replaced"),
        has_room=lambda: lane.has_room,
        capacity=2 if lane.config.is_lossless else 1,
        weight=lane.config.priority,
    )
    how, deadlines = preparation_of(lane.config, config), deadlines_of(lane.config, config)
    worker = Worker(f"capture {lane.name}", CaptureWorker(lane, latest, slot, gate, how, deadlines, is_alone).run)
    worker.start()
    return Capture(slot, worker)


def wait_for_file(lane: Lane, capture: Capture) -> None:
    """Wait until a file is open; a camera is waited for while the others run.

    Raises:
        EdgeError: it cannot be opened.
    """
    if is_live(lane.config.source):
        return
    lane.opened.wait(OPEN_TIMEOUT_S)
    failure = capture.worker.failure
    if isinstance(failure, EdgeError) or lane.state == "failed":
        capture.worker.join(1.0)
        raise failure if isinstance(failure, EdgeError) else EdgeError(lane.state_reason)


def open_output(lane: Lane, board: LiveBoard | None, outlets: Outlets, on_room: Callable[[], None]) -> Worker:
    """The output thread of a stream with its open sinks; not started.

    Raises:
        EdgeError: a sink cannot be opened; none is open then.
    """
    overlay = Overlay(lane.manifest.classes, Theme(score=score_of(lane.config, lane.manifest)))
    with ExitStack() as undo:
        sinks = list(open_sinks(lane, board))
        for sink in sinks:
            undo.callback(close_sink, sink)
        sinks += outlets.sinks(lane)
        undo.pop_all()
    output = OutputWorker(lane, sinks, overlay, on_room, lambda result: outlets.lost(lane, result))
    return Worker(f"output {lane.name}", output.run)


def give_up(output: Worker) -> None:
    """Close the sinks of an output that was never started; it does so itself, and waits for no result."""
    output.stop()
    output.start()
    output.join(LATE_S)


def drain(
    latest: LatestFrames, captures: Sequence[Capture], outputs: Sequence[Worker], inference: Worker, deadline_s: float
) -> bool:
    """End capture and let what is under way come out.

    Args:
        latest: where frames wait.
        captures, outputs, inference: the threads of the line.
        deadline_s: by ``time.monotonic()``; what has not ended by then is told to, and has ``LATE_S`` for it.

    Returns:
        Whether every thread has ended.
    """
    for capture in captures:
        capture.worker.stop()
        latest.end(capture.slot)
    if not captures:
        inference.stop()
    workers = (*(capture.worker for capture in captures), inference, *outputs)
    _join(workers, deadline_s)
    latest.stop()
    inference.stop()
    _join([inference], time.monotonic() + LATE_S)
    for output in outputs:
        output.stop()
    _join(outputs, time.monotonic() + LATE_S)
    return not any(worker.is_alive for worker in workers)


def _join(workers: Sequence[Worker], deadline_s: float) -> None:
    for worker in workers:
        worker.join(max(0.0, deadline_s - time.monotonic()))
