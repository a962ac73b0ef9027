"""What keeping tracks costs inference thread, loop and disk: python tests/bench/track_store.py [VIDEO MODEL]

Without arguments the built-in street. Times are processor time of the thread; the loop's is that of the process.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from edge.config.load import parse_config
from edge.config.recording import TrackStoreSettings
from edge.models.shipped import demo_model
from edge.pipeline import Pipeline
from edge.trackstore.compact import compact
from edge.trackstore.parts import Part
from edge.trackstore.store import FrameLog, TrackStore
from edge.types import Frame, Prediction, Tracks

FPS, BLOCK_S, MOST = 10, 20, 1400
DAY_FRAMES = 86_400 * FPS


class Paced:
    """Takes the place of a stream's log: times what the inference thread does, and closes blocks as at 10 fps."""

    def __init__(self, folder: Path, log: FrameLog) -> None:
        self.store = TrackStore(TrackStoreSettings(block_s=300), folder)
        self.log = self.store.log_of(log.name, log.facts)
        self.hot_us: list[float] = []
        self.writer_s = 0.0
        self.num_tracks = 0
        self.captured_ns = time.monotonic_ns()
        self.chance = np.random.default_rng(1)

    def rounded(self, tracks: Tracks, frame: Frame) -> Tracks:
        started = time.thread_time_ns()
        found = self.log.rounded(tracks, frame)
        self.hot_us.append((time.thread_time_ns() - started) / 1e3)
        return found

    def time_ns(self, frame: Frame) -> int:
        return self.log.time_ns(frame)

    def add(self, frame: Frame, prediction: Prediction, tracks: Tracks, *rest: Any, **more: Any) -> None:
        # as of a live camera: its own clock trembles by 2 ms, and results come 60 ms later or more
        self.captured_ns += round(1e9 / FPS + self.chance.normal(0, 2e6))
        live = Frame(frame.stream, frame.epoch, frame.seq, self.captured_ns, None, planes=frame.planes)
        started = time.thread_time_ns()
        self.log.add(live, prediction, tracks, *rest, **more)
        self.hot_us[-1] += (time.thread_time_ns() - started) / 1e3
        facts = self.log._waiting[-1]
        age_ns = round(60e6 + self.chance.exponential(15e6))
        self.log._waiting[-1] = (*facts[:4], self.captured_ns + age_ns, *facts[5:])
        self.num_tracks += len(tracks)
        number = len(self.hot_us)
        if number % FPS == 0:
            started_s = time.thread_time()
            self.store._round(is_flush=number % (FPS * BLOCK_S) == 0)
            self.writer_s += time.thread_time() - started_s


def main() -> None:
    street = f"synthetic://street?seed=3&size=1280x720&fps=10&frames={MOST}"
    source, model = sys.argv[1:3] if len(sys.argv) > 2 else (street, str(demo_model(street)))
    line = {"name": "mid", "points_share": [[0.5, 0.05], [0.5, 0.95]]}
    with tempfile.TemporaryDirectory() as folder:
        store = {"folder": folder}
        stream = {"name": "clip", "source": source, "analytics": {"lines": [line]}}
        config = {"model": {"path": model, "threads": 1}, "streams": [stream], "track_store": store}
        pipeline = Pipeline(parse_config(config, where="bench"))
        analysis = pipeline.streams["clip"].analysis
        assert isinstance(analysis.log, FrameLog)
        paced = Paced(Path(folder) / "paced", analysis.log)
        analysis.log = analysis.rounding = paced  # type: ignore[assignment]
        started_s = time.process_time()
        pipeline.run()
        loop_s = time.process_time() - started_s
        paced.store.close()
        paced.store.run(threading.Event())
        parts = list((Path(folder) / "paced").rglob("*.tracks"))
        fresh = sum(path.stat().st_size for path in parts)
        started_s = time.thread_time()
        for path in parts:
            list(compact(path))
        paced.writer_s += time.thread_time() - started_s
        # a part of an hour has one head
        size = sum(path.stat().st_size - len(Part(path).start) for path in parts)
    hot, count = np.array(paced.hot_us), len(paced.hot_us)
    own_s = paced.writer_s + hot.sum() / 1e6
    print(f"{Path(source).name}: {count} frames, {paced.num_tracks / count:.1f} tracks a frame")
    print(f"  inference thread: median {np.median(hot):.1f} us, p99 {np.percentile(hot, 99):.1f} us a frame")
    print(
        f"  store's thread: {paced.writer_s / count * 1e6:.1f} us a frame; "
        f"both are {own_s / (loop_s - own_s):.2%} of the loop"
    )
    print(f"  as it comes: {fresh / count:.1f} bytes a frame, {fresh / count * DAY_FRAMES / 1e6:.1f} MB a day")
    print(f"  disk: {size / count:.1f} bytes a frame, {size / count * DAY_FRAMES / 1e6:.1f} MB a day at {FPS} fps")


if __name__ == "__main__":
    main()
