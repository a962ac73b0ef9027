"""A board with a server and a camera of painted pictures, for the tests of the live server and its page."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from waiting import wait_until as wait_until  # noqa: PLC0414 - the tests of the page have it from here

from edge.overlay import Overlay, StreamState
from edge.server import LiveServer
from edge.server.board import LiveBoard
from edge.sinks.live import LiveSink
from edge.types import Detections, Event, Frame, Result, Tracks, UInt8

CLASSES = ("person", "car")
SIZE = (640, 360)
# the frame number is painted as black and white squares along the lower edge, most significant bit first
NUMBER_BITS = 16
SQUARE_PX = 24
# blue green red and opacity; of the first camera, the others have none
HEAT = np.zeros((36, 64, 4), np.uint8)
HEAT[20:30, 10:30] = (20, 40, 220, 160)
# so many wait for each core that a thread gets it once in several pictures
SWAMPED_LOAD_PER_CORE = 8.0


@dataclass
class Camera:
    """Publishes pictures of two moving objects; ``state`` is told to the page."""

    board: LiveBoard
    name: str
    size: tuple[int, int] = SIZE
    state: str = "streaming"
    seq: int = 0
    num_drawn: int = 0
    is_textured: bool = False
    has_heat: bool = False

    def __post_init__(self) -> None:
        self.sink = LiveSink(self.board, self.name, CLASSES)
        self.overlay = Overlay(CLASSES)
        width, height = self.size
        noise = np.random.default_rng(1).integers(40, 120, (height // 4, width // 4, 3), np.uint8)
        self.background = (
            cv2.resize(noise, self.size) if self.is_textured else np.full((height, width, 3), 70, np.uint8)
        )
        info = {"source": "rtsp://***@10.0.0.2/live", "width": width, "height": height, "fps": 25}
        model = {"name": "street", "task": "detect", "precision": "int8", "classes": list(CLASSES)}
        self.board.add_stream(self.name, {**info, "model": model, "heatmap": self.has_heat})

    def boxes(self, seq: int) -> np.ndarray:
        width = self.size[0]
        x = 40 + (seq * 4) % (width // 2)
        return np.array([[x, 60, x + 60, 200], [width - x - 90, 120, width - x, 190]], np.float32)

    def result(self, *events: Event) -> Result:
        image = self.background.copy()
        paint_number(image, self.seq)
        found = Detections(self.boxes(self.seq), np.array([0.9, 0.8], np.float32), np.array([0, 1], np.int32))
        tracks = Tracks(
            np.array([3, 4], np.int64),
            found.xyxy,
            found.score,
            found.class_id,
            np.ones(2, np.float32),
            np.zeros((2, 2), np.float32),
            np.arange(2, dtype=np.int32),
        )
        now_ns = time.monotonic_ns()
        return Result(Frame(self.name, 0, self.seq, now_ns, self.seq * 40_000_000, image), found, tracks, events)

    def publish(self, *events: Event) -> None:
        result = self.result(*events)
        self.seq += 1

        def picture() -> UInt8:
            self.num_drawn += 1
            return self.overlay.draw(result, StreamState("live", 25.0, 20.0))

        self.sink.write(result, picture)

    def stats(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "reason": "",
            "fps_in": 25.0,
            "fps_out": 25.0,
            "age_median_ms": 20.0,
            "age_p99_ms": 31.0,
            "counts": {"captured": self.seq, "emitted": self.seq},
            "stages": {"infer": {"median_ms": 9.0, "p99_ms": 12.0}, "track": {"median_ms": 0.4, "p99_ms": 0.6}},
        }


def paint_number(image: UInt8, number: int) -> None:
    for bit in range(NUMBER_BITS):
        level = 255 if number >> (NUMBER_BITS - 1 - bit) & 1 else 0
        image[-SQUARE_PX:, bit * SQUARE_PX : (bit + 1) * SQUARE_PX] = level


def read_number(jpeg: bytes) -> int:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    middle = SQUARE_PX // 2
    return sum(
        1 << (NUMBER_BITS - 1 - bit) for bit in range(NUMBER_BITS) if image[-middle, bit * SQUARE_PX + middle] > 127
    )


def mjpeg_pictures(response: httpx.Response) -> Iterator[bytes]:
    buffer = b""
    for chunk in response.iter_raw():
        buffer += chunk
        while True:
            head, found, rest = buffer.partition(b"\r\n\r\n")
            length = next(
                (int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")), None
            )
            if not found or length is None or len(rest) < length + 2:
                break
            yield rest[:length]
            buffer = rest[length + 2 :]


def feed_messages(response: httpx.Response) -> Iterator[tuple[Any, bytes]]:
    buffer = b""
    for chunk in response.iter_raw():
        buffer += chunk
        while len(buffer) >= 8:
            text, jpeg = struct.unpack(">II", buffer[:8])
            if len(buffer) < 8 + text + jpeg:
                break
            yield json.loads(buffer[8 : 8 + text]), buffer[8 + text : 8 + text + jpeg]
            buffer = buffer[8 + text + jpeg :]


def sse_events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    identity = ""
    for line in response.iter_lines():
        if line.startswith("id: "):
            identity = line[4:]
        if line.startswith("data: "):
            yield identity, json.loads(line[6:])


@dataclass
class Show:
    """What runs: the server's port and the cameras. ``play`` publishes in the background."""

    board: LiveBoard
    server: LiveServer
    port: int
    cameras: list[Camera]
    playing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def play(self, fps: float = 25.0) -> Iterator[None]:
        stop = threading.Event()

        def run() -> None:
            due_s = time.monotonic()
            while not stop.is_set():
                for camera in self.cameras:
                    if camera.state == "streaming":
                        camera.publish()
                due_s += 1 / fps
                stop.wait(max(due_s - time.monotonic(), 0))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextmanager
def show(
    *names: str,
    token: str | None = None,
    port: int = 0,
    size: tuple[int, int] = SIZE,
    not_ready: str | None = None,
    is_textured: bool = False,
    max_peers: int = 16,
) -> Iterator[Show]:
    """A running server for cameras of these names."""
    board = LiveBoard()
    cameras = [Camera(board, name, size, is_textured=is_textured, has_heat=name == names[0]) for name in names]
    server = LiveServer(
        board,
        port=port,
        token=token,
        max_peers=max_peers,
        stats=lambda: {"streams": {camera.name: camera.stats() for camera in cameras}},
        not_ready=lambda: not_ready,
        heat=lambda name: HEAT if name == names[0] else None,
    )
    _, used = server.start()
    try:
        yield Show(board, server, used, cameras)
    finally:
        server.stop()


def check_ages(what: str, ages_ms: list[float], limit_ms: float) -> None:
    """Pictures that queue somewhere are all late; on a busy machine most are; on a swamped one it cannot be told."""
    low_ms, median_ms, high_ms = np.quantile(ages_ms, (0.1, 0.5, 0.95))
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    words = f"{what}: median {median_ms:.0f} ms, p95 {high_ms:.0f} ms, load average {load:.1f} per core"
    print(words)
    if low_ms >= limit_ms and load > SWAMPED_LOAD_PER_CORE:
        pytest.skip(words)
    assert low_ms < limit_ms, words
