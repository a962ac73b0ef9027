"""Cameras on real sockets: an RTSP server that comes and goes, children that are stopped, killed and hung."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge.config import config_from_arguments
from edge.errors import SourceError
from edge.pipeline import Pipeline
from edge.sources.isolated import Deadlines, IsolatedSource

SERVER = Path(__file__).parents[1] / "servers" / "rtsp_server.py"
MODEL = Path("unused.onnx")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class RtspServer:
    """The GStreamer server in a process that can be killed and started again on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"rtsp://viewer:canarysecret@127.0.0.1:{self.port}/cam"
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        command = ["/usr/bin/python3", str(SERVER), str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def server() -> Iterator[RtspServer]:
    running = RtspServer()
    yield running
    running.kill()


def wait_for(condition: Callable[[], bool], limit_s: float, what: str) -> float:
    """Seconds until the condition held."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < limit_s, f"not within {limit_s} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - started


@pytest.fixture
def null_pipeline(tmp_path: Path) -> Iterator[Callable[..., Pipeline]]:
    """Makes started pipelines of cameras whose engine finds nothing, so that only the cameras are tested."""
    started: list[Pipeline] = []

    def make(sources: list[str], **stream: object) -> Pipeline:
        manifest = tmp_path / "null.json"
        manifest.write_text(
            '{"schema":1,"name":"null","task":"detect","head":"edgenet","classes":["x"],'
            '"input":{"name":"frames","width":64,"height":64,"layout":"nhwc","dtype":"uint8","colour":"bgr"}}'
        )
        (tmp_path / "null.onnx").touch()
        config = config_from_arguments(
            sources,
            tmp_path / "null.onnx",
            [],
            for_model={"engine": "null", "manifest": manifest},
            for_stream={"retry_base_s": 0.2, "retry_cap_s": 0.5, **stream},
        )
        pipeline = Pipeline(config)
        pipeline.start()
        started.append(pipeline)
        return pipeline

    yield make
    for pipeline in started:
        assert pipeline.stop()


def emitted(pipeline: Pipeline, index: int = 0) -> int:
    return list(pipeline.lanes.values())[index].counters["emitted"]


@pytest.mark.real_server
def test_a_camera_comes_back_after_its_server_was_killed(
    server: RtspServer, null_pipeline: Callable[..., Pipeline], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    pipeline = null_pipeline([server.url], stall_timeout_s=1.5)
    (lane,) = pipeline.lanes.values()
    wait_for(lambda: emitted(pipeline) >= 5, 20, "first pictures")
    server.kill()
    wait_for(lambda: lane.state == "backing_off", 10, "the loss is noticed")
    before = emitted(pipeline)
    server.start()
    wait_for(lambda: emitted(pipeline) >= before + 5, 15, "pictures after the restart")
    assert lane.state == "streaming"
    assert lane.counters["reconnects"] >= 1
    assert "canarysecret" not in caplog.text
    assert "canarysecret" not in str(lane.stats())


@pytest.mark.real_server
def test_a_dead_camera_does_not_keep_the_others_from_starting(
    server: RtspServer, null_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = null_pipeline([f"rtsp://127.0.0.1:{free_port()}/none", server.url])
    wait_for(lambda: emitted(pipeline, 1) >= 5, 20, "pictures of the living camera")
    assert emitted(pipeline, 0) == 0


def test_a_server_that_accepts_and_stays_silent_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(SourceError, match="no picture for 1 s"):
            IsolatedSource(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x", deadlines=Deadlines(open_s=1.0))
        assert time.monotonic() - started < 3.0


def endless(**options: object) -> IsolatedSource:
    query = "&".join(
        f"{key}={value}" for key, value in {"seed": 1, "size": "320x180", "fps": 30, "live": 1, **options}.items()
    )
    return IsolatedSource(f"synthetic://street?{query}", deadlines=Deadlines(open_s=20.0, stall_s=1.0))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGSTOP, "no picture for 1 s"),
        (signal.SIGKILL, "ended by SIGKILL"),
        (signal.SIGSEGV, "ended by SIGSEGV"),
    ],
)
def test_a_child_that_hangs_or_dies_is_noticed_and_reaped(number: signal.Signals, expected: str) -> None:
    source = endless()
    assert source.read() is not None
    os.kill(source.pid, number)
    with pytest.raises(SourceError, match=expected):
        while source.read() is not None:
            pass
    source.close()
    assert not psutil.pid_exists(source.pid)


def test_a_picture_stays_whole_while_somebody_holds_it() -> None:
    source = endless()
    first = source.read()
    assert first is not None
    held, copy = first[0], first[0].copy()
    for _ in range(30):
        source.read()
    assert (held == copy).all()
    source.close()
    assert (held == copy).all()


def test_held_pictures_cost_drops_and_never_more_memory() -> None:
    dropped: list[int] = []
    source = IsolatedSource(
        "synthetic://street?seed=1&size=320x180&fps=60&live=1",
        deadlines=Deadlines(open_s=20, stall_s=1),
        on_drop=dropped.append,
    )
    held = [source.read() for _ in range(7)]
    with pytest.raises(SourceError, match="no picture for 1 s"):
        source.read()
    del held
    source.close()


def test_stopping_ends_a_wait_at_once() -> None:
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x"
        threading.Timer(0.3, stopping.set).start()
        started = time.monotonic()
        with pytest.raises(SourceError, match="stopped while connecting"):
            IsolatedSource(url, deadlines=Deadlines(open_s=30), is_stopping=stopping.is_set)
        assert time.monotonic() - started < 2.0


def test_opening_and_closing_leaves_no_threads_files_or_children() -> None:
    process = psutil.Process()
    endless().close()
    gc.collect()
    before = (process.num_fds(), process.num_threads(), len(process.children(recursive=True)))
    for _ in range(5):
        source = endless()
        source.read()
        source.close()
    del source
    gc.collect()
    assert (process.num_fds(), process.num_threads(), len(process.children(recursive=True))) == before


def test_an_isolated_file_gives_every_frame_of_the_film(tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for index in range(40):
        writer.write(np.full((48, 64, 3), index * 6, np.uint8))
    writer.release()
    source = IsolatedSource(str(path))
    levels = []
    while (picture := source.read()) is not None:
        levels.append(int(picture[0].mean()))
        time.sleep(0.002)
    source.close()
    assert levels == pytest.approx([index * 6 for index in range(40)], abs=3)


def test_the_child_dies_with_its_parent() -> None:
    code = (
        "from edge.sources.isolated import *; s = IsolatedSource('synthetic://street?seed=1&size=320x180&live=1', "
        "deadlines=Deadlines(open_s=20)); print(s.pid, flush=True); import time; time.sleep(60)"
    )
    import sys

    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(child), 5, "the child ends")
