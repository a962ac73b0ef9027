"""What the camera tests share: servers to start and kill, pipelines without a model, what a process holds."""

from __future__ import annotations

import gc
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from needs import RTSP_SERVER as RTSP
from needs import need
from waiting import wait_until

from edge.config.load import parse_config
from edge.engines.null import NullEngine
from edge.pipeline import Pipeline
from edge.server.board import LiveBoard

RTSP_SERVER = Path(__file__).with_name("rtsp_server.py")
TWO_PROFILES = Path(__file__).with_name("two_profiles.py")
SYNTHETIC = "synthetic://street?size=128x96&objects=2&live=1&seed={seed}&fps={fps}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], limit_s: float, what: str) -> float:
    """Seconds until the condition held."""
    return wait_until(condition, limit_s, what)


class RtspServer:
    """The GStreamer server in a process that can be killed and started again on the same port."""

    def __init__(self, *size_and_rate_or_file: int | Path) -> None:
        self.port = free_port()
        self.url = f"rtsp://viewer:canarysecret@127.0.0.1:{self.port}/cam"
        self._arguments = [str(value) for value in size_and_rate_or_file]
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        command = [need(RTSP), str(RTSP_SERVER), str(self.port), *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()


class TwoProfiles:
    """A camera with a large and a small picture of one square; see ``two_profiles.py``."""

    def __init__(self, main: str, sub: str, sound: str = "plain", login: str = "") -> None:
        self.port = free_port()
        command = [need(RTSP), str(TWO_PROFILES), str(self.port), main, sub, sound, *([login] if login else [])]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self.main, self.sub = f"rtsp://127.0.0.1:{self.port}/main", f"rtsp://127.0.0.1:{self.port}/sub"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class SquareEngine(NullEngine):
    """Finds the brightest rectangle of each picture."""

    def infer(self, tensor: Any) -> Any:
        boxes = np.zeros((len(tensor), 1, 4), np.float32)
        for row, image in enumerate(tensor):
            is_bright = image[..., 1] > 160
            columns, rows = np.flatnonzero(is_bright.any(axis=0)), np.flatnonzero(is_bright.any(axis=1))
            if len(columns):
                boxes[row, 0] = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        score = (boxes[..., 2] > 0).astype(np.float32)
        return {"boxes": boxes, "scores": score, "labels": np.zeros(score.shape, np.int32)}


def find_squares(pipeline: Pipeline) -> None:
    """Have the only model of a pipeline that is not started find the square of ``two_profiles.py``."""
    (loaded,) = pipeline.models.values()
    loaded.engine = SquareEngine(loaded.manifest.input)


def null_pipeline(
    folder: Path,
    sources: list[str],
    *,
    engine_s: float = 0.0,
    max_batch: int = 8,
    top: Any = None,
    input_size: tuple[int, int] = (64, 64),
    board: LiveBoard | None = None,
    **stream: Any,
) -> Pipeline:
    """A pipeline whose engine finds nothing and takes ``engine_s`` per batch; streams are called cam0, cam1, …"""
    manifest = folder / "null.json"
    width, height = input_size
    spec = {"name": "frames", "width": width, "height": height, "layout": "nhwc", "dtype": "uint8", "colour": "bgr"}
    facts = {"schema": 1, "name": "null", "task": "detect", "head": "edgenet", "classes": ["x"], "input": spec}
    manifest.write_text(json.dumps(facts))
    (folder / "null.onnx").touch()
    streams = [
        {"name": f"cam{index}", "source": source, "retry_base_s": 0.2, "retry_cap_s": 0.5, **stream}
        for index, source in enumerate(sources)
    ]
    model = {"path": folder / "null.onnx", "engine": "null", "manifest": manifest, "max_batch": max_batch}
    config = parse_config({"model": model, "streams": streams, **(top or {})}, where="test")
    pipeline = Pipeline(config, board)
    if engine_s:
        (loaded,) = pipeline.models.values()
        loaded.engine = NullEngine(loaded.manifest.input, max_batch=max_batch, seconds=engine_s)
    return pipeline


@contextmanager
def started_pipelines() -> Iterator[Callable[[Pipeline], Pipeline]]:
    """Starts pipelines; at the end all are stopped, and no frame may have vanished uncounted."""
    started: list[Pipeline] = []

    def start(pipeline: Pipeline) -> Pipeline:
        started.append(pipeline)
        pipeline.start()
        return pipeline

    yield start
    for pipeline in started:
        assert pipeline.stop()
        assert not any(unaccounted(pipeline).values())


def emitted(pipeline: Pipeline) -> dict[str, int]:
    """Stream → frames that came out."""
    return {name: stream.metrics.counters["emitted"] for name, stream in pipeline.streams.items()}


def unaccounted(pipeline: Pipeline) -> dict[str, int]:
    """Stream → frames that vanished without being counted; all zero once the pipeline has stopped."""
    missing = {}
    for name, stream in pipeline.streams.items():
        counts = stream.metrics.counters.snapshot()
        drops = sum(count for cause, count in counts.items() if cause.startswith("drop_"))
        missing[name] = counts.get("captured", 0) - counts.get("emitted", 0) - drops
    return missing


def holdings() -> dict[str, int]:
    """What this process holds now: threads, open files, children, resident kilobytes."""
    gc.collect()
    me = psutil.Process()
    return {
        "threads": me.num_threads(),
        "fds": me.num_fds(),
        "children": len(me.children(recursive=True)),
        "rss_kb": me.memory_info().rss // 1024,
    }


def memory_growth(held: list[dict[str, int]]) -> float:
    """From the second tenth of the readings to the last one, as a share; medians, as single readings differ by 3 %.

    The first tenth fills caches, windows of figures and the allocator.
    """
    rss_kb = [one["rss_kb"] for one in held]
    tenth = max(1, len(held) // 10)
    return float(np.median(rss_kb[-tenth:]) / np.median(rss_kb[tenth : 2 * tenth])) - 1


def capture_children() -> list[psutil.Process]:
    """The capture children of this process, oldest first."""
    children = psutil.Process().children()
    found = [child for child in children if "edge.sources.isolation.child" in " ".join(child.cmdline())]
    return sorted(found, key=lambda child: child.create_time())
