"""Running a pipeline as a process: signals, systemd's notifications, the live page, and the summary at the end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import FrameType

import numpy as np

from edge.config import Config
from edge.errors import ConfigError, EdgeError
from edge.pipeline import Pipeline

log = logging.getLogger(__name__)
TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. Ages are from the camera's hand-over to the last sink, in milliseconds."""

    frames: int
    seconds: float
    fps: float
    objects: int
    age_median_ms: float
    age_p99_ms: float
    dropped: int
    sink_errors: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def run_service(
    config: Config, *, max_frames: int | None = None, on_address: Callable[[str], None] | None = None
) -> Summary:
    """Run a configuration until its streams end, a signal comes, or enough frames are out.

    Args:
        config: what to run.
        max_frames: stop after this many emitted frames of all streams together.
        on_address: told the address of the live page once it can be opened.

    Raises:
        EdgeError: it could not start, or a part failed on the way.
    """
    stopping = threading.Event()
    _stop_on_signals(stopping)
    board, server = _live_page(config)
    pipeline = Pipeline(config, board)
    try:
        if server is not None:
            _serve(server, board, pipeline, on_address)
        pipeline.start()
        notify("READY=1")
        _supervise(pipeline, stopping, max_frames)
    finally:
        notify("STOPPING=1")
        is_clean = pipeline.stop()
        if server is not None:
            server.stop()
    if not is_clean:
        log.error("some parts did not end within %g s", config.stop_timeout_s)
    for failure in pipeline.failures():
        raise failure if isinstance(failure, EdgeError) else EdgeError(f"a part failed: {failure!r}; see the log")
    return summarise(pipeline)


def summarise(pipeline: Pipeline) -> Summary:
    """The totals over all streams."""
    counts = [lane.counters.snapshot() for lane in pipeline.lanes.values()]
    frames = sum(count.get("emitted", 0) for count in counts)
    seconds = max(1e-9, (time.monotonic_ns() - pipeline.started_ns) / 1e9)
    ages = [lane.age_ms.percentiles() for lane in pipeline.lanes.values()]
    return Summary(
        frames=frames,
        seconds=round(seconds, 3),
        fps=round(frames / seconds, 2),
        objects=sum(count.get("objects", 0) for count in counts),
        age_median_ms=round(float(np.median([age[0] for age in ages])), 2),
        age_p99_ms=round(max(age[1] for age in ages), 2),
        dropped=sum(value for count in counts for name, value in count.items() if name.startswith("drop_")),
        sink_errors=sum(count.get("sink_errors", 0) for count in counts),
    )


def notify(message: str) -> None:
    """Tell systemd (sd_notify(3)); does nothing where no NOTIFY_SOCKET is set."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.sendall(message.encode())


def _supervise(pipeline: Pipeline, stopping: threading.Event, max_frames: int | None) -> None:
    """Wait for the end; feed the watchdog only while frames come out or no camera is there to give any."""
    last_emitted = -1
    while pipeline.is_running and not stopping.is_set() and not pipeline.failures():
        stopping.wait(TICK_S if max_frames is None else 0.02)
        emitted = sum(lane.counters["emitted"] for lane in pipeline.lanes.values())
        if max_frames is not None and emitted >= max_frames:
            return
        is_idle = all(lane.state != "streaming" for lane in pipeline.lanes.values())
        if emitted != last_emitted or is_idle:
            notify("WATCHDOG=1")
        last_emitted = emitted


def _stop_on_signals(stopping: threading.Event) -> None:
    if threading.current_thread() is not threading.main_thread():
        return

    def stop(number: int, _: FrameType | None) -> None:
        log.info("signal %s: stopping", signal.Signals(number).name)
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _live_page(config: Config):  # type: ignore[no-untyped-def]
    return None, None


def _serve(server, board, pipeline, on_address):  # type: ignore[no-untyped-def]
    return None
