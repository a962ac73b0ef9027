"""Fifty viewers of one camera, ten of them nearly dead, against one: the pipeline does not notice."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.live_show import wait_until

from edge.config.load import parse_config
from edge.pipeline import Pipeline
from edge.server import LiveServer
from edge.server.board import LiveBoard

MODEL = Path(__file__).parents[2] / "edge" / "models" / "street-nano-int8.onnx"
SCENE = "synthetic://street?seed=3&size=1280x720&fps=20&live=1&objects=4"
SECONDS = 5.0


class Viewers:
    """Sockets that read the stream: fast ones all there is, slow ones a byte a second."""

    def __init__(self, port: int, num_fast: int, num_slow: int) -> None:
        self.num_bytes = 0
        self._stopping = threading.Event()
        self._fast = [self._open(port, 1 << 18) for _ in range(num_fast)]
        self._slow = [self._open(port, 1 << 12) for _ in range(num_slow)]
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _open(self, port: int, room: int) -> socket.socket:
        channel = socket.socket()
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        channel.connect(("127.0.0.1", port))
        channel.sendall(b"GET /stream/door.mjpeg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        channel.setblocking(False)
        return channel

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            for channel in self._fast:
                selector.register(channel, selectors.EVENT_READ)
            due_s = time.monotonic()
            while not self._stopping.is_set():
                for key, _ in selector.select(0.05):
                    assert isinstance(key.fileobj, socket.socket)
                    self.num_bytes += len(key.fileobj.recv(1 << 16))
                if time.monotonic() >= due_s:
                    due_s += 1.0
                    for channel in self._slow:
                        try:
                            channel.recv(1)
                        except BlockingIOError:
                            continue

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        for channel in (*self._fast, *self._slow):
            channel.close()


@contextmanager
def camera(folder: Path) -> Iterator[tuple[Pipeline, LiveBoard, int]]:
    """A camera through the whole line, its board, and the port of its page."""
    stream = {"name": "door", "source": SCENE, "sinks": [f"jsonl:{folder}/out.jsonl"]}
    model = {"path": str(MODEL), "engine": "null"}
    config = parse_config({"model": model, "streams": [stream]}, where="x")
    board = LiveBoard()
    board.add_stream("door", {})
    pipeline = Pipeline(config, board)
    server = LiveServer(board, port=0, stats=dict, not_ready=lambda: None)
    _, port = server.start()
    pipeline.start()
    try:
        yield pipeline, board, port
    finally:
        pipeline.stop()
        server.stop()


def measured(pipeline: Pipeline, board: LiveBoard, port: int, num_fast: int, num_slow: int) -> tuple[float, float, int]:
    """Frames per second that come out, pictures encoded per frame, and bytes that the viewers read."""
    stream = pipeline.streams["door"]
    viewers = Viewers(port, num_fast, num_slow)
    try:
        wait_until(lambda: board.counts()["door"]["viewers"] == num_fast + num_slow)
        wait_until(lambda: viewers.num_bytes > 0)
        began_s, frames, encoded = (
            time.monotonic(),
            stream.metrics.counters["emitted"],
            board.counts()["door"]["encoded"],
        )
        time.sleep(SECONDS)
        frames, encoded = stream.metrics.counters["emitted"] - frames, board.counts()["door"]["encoded"] - encoded
        return frames / (time.monotonic() - began_s), encoded / frames, viewers.num_bytes
    finally:
        viewers.close()
        wait_until(lambda: board.counts()["door"]["viewers"] == 0)


@pytest.mark.real_server
def test_fifty_viewers_of_whom_ten_hardly_read_cost_the_pipeline_nothing(tmp_path: Path) -> None:
    with camera(tmp_path) as (pipeline, board, port):
        wait_until(lambda: pipeline.streams["door"].metrics.counters["emitted"] > 20)
        one_fps, one_share, one_bytes = measured(pipeline, board, port, 1, 0)
        many_fps, many_share, many_bytes = measured(pipeline, board, port, 40, 10)
    print(f"{one_fps:.2f} frames/s with one viewer, {many_fps:.2f} with 50: {many_fps / one_fps:.3f}")
    assert many_fps >= 0.97 * one_fps
    # one picture is encoded per frame, however many watch
    assert one_share <= 1.02 and many_share <= 1.02
    assert many_bytes > 5 * one_bytes
