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
from typing import TYPE_CHECKING

import numpy as np

from edge.config import Config
from edge.errors import ConfigError, EdgeError
from edge.lane import Lane
from edge.pipeline import Pipeline
from edge.uris import masked

if TYPE_CHECKING:
    from edge.live import LiveBoard
    from edge.server import LiveServer

log = logging.getLogger(__name__)
TICK_S = 0.25
MIN_TOKEN_CHARS = 16


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
    board = _live_page(config)
    pipeline = Pipeline(config, board)
    server: LiveServer | None = None
    try:
        if board is not None:
            server, address = _serve(config, board, pipeline)
            if on_address is not None:
                on_address(address)
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


def _live_page(config: Config) -> LiveBoard | None:
    """The board, where the configuration wants a live page."""
    if not config.server.enabled:
        return None
    from edge.live import LiveBoard

    return LiveBoard()


def _serve(config: Config, board: LiveBoard, pipeline: Pipeline) -> tuple[LiveServer, str]:
    """Start the live page; the server and the address to open."""
    from edge.server import LiveServer

    for lane in pipeline.lanes.values():
        board.add_stream(lane.name, _card(lane))
    token = _token(config)
    server = LiveServer(
        board,
        host=config.server.host,
        port=config.server.port,
        token=token,
        stats=lambda: {"streams": {name: lane.stats() for name, lane in pipeline.lanes.items()}},
        not_ready=pipeline.not_ready,
    )
    host, port = server.start()
    shown = "localhost" if host in ("0.0.0.0", "::") else host
    return server, f"http://{shown}:{port}/"


def _card(lane: Lane) -> dict[str, object]:
    """What the page shows of a stream before its first frame."""
    spec = lane.manifest.input
    return {
        "source": masked(lane.config.source),
        "model": {
            "name": lane.manifest.name,
            "task": lane.manifest.task,
            "input": f"{spec.width}x{spec.height}",
            "precision": lane.manifest.precision,
            "classes": list(lane.manifest.classes[:100]),
            "accuracy": lane.manifest.accuracy,
        },
    }


def _token(config: Config) -> str | None:
    """The token of the API, from its file."""
    path = config.server.token_file
    if path is None:
        return None
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"server.token_file: {path} cannot be read ({error.strerror}); expected a file of one line"
        ) from None
    if len(token) < MIN_TOKEN_CHARS:
        raise ConfigError(
            f"server.token_file: {path} holds fewer than {MIN_TOKEN_CHARS} characters; run: openssl rand -hex 16"
        )
    return token
