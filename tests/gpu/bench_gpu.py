"""Times an engine on this GPU and prints a row for docs/gpu.md: ``python tests/gpu/bench_gpu.py MODEL.engine``.

Speed is given as a ratio to the bare engine in the same run: replays of its graph on a batch that lies on the GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge.engines.trt import TrtEngine
from edge.manifest import read_sidecar
from edge.types import UInt8

WARM_UP = 50


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds."""
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - start)
    return float(np.median(times)) / 1e6, float(np.percentile(times, 99)) / 1e6


def overlapped_fps(engine: TrtEngine, batch: UInt8, repeats: int) -> float:
    """Frames per second with two batches in flight."""
    engine.submit(batch)
    start = time.perf_counter()
    for _ in range(repeats):
        engine.submit(batch)
        engine.collect()
    seconds = time.perf_counter() - start
    engine.collect()
    return repeats * len(batch) / seconds


def bare_ms(engine: TrtEngine, batch: UInt8, repeats: int) -> float:
    """Median of execution alone: shapes set, memory bound, no copies."""
    engine.infer(batch)
    slot = engine._slots[0]
    context, replay = slot._contexts[0], slot.replay

    def run() -> None:
        context.set_input_shape(engine.inputs[0].name, batch.shape)
        context.execute_async_v3(replay.handle)
        engine._driver.record(replay._done, replay.stream)
        replay.wait()

    return measure(run, repeats)[0]


def device_line() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return Path("/proc/device-tree/model").read_text().strip("\0\n") if sys.platform == "linux" else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--repeats", type=int, default=1000)
    options = parser.parse_args()
    manifest = read_sidecar(options.engine)
    assert manifest is not None, "the engine has no manifest"
    spec = manifest.input
    print(f"{device_line()}; {options.engine.name}, {manifest.precision}, {spec.width}x{spec.height}")
    print("| batch | graphs | bare ms | infer ms (p99) | frames/s, two in flight | ratio to bare |")
    print("|---|---|---|---|---|---|")
    for use_graphs in (True, False):
        engine = TrtEngine(options.engine, manifest, use_graphs=use_graphs)
        for count in [size for size in (1, 4, 8, 16) if size <= engine.max_batch]:
            batch = np.random.default_rng(0).integers(0, 256, (count, spec.height, spec.width, 3), np.uint8)
            bare = bare_ms(engine, batch, options.repeats)
            median, worst = measure(lambda engine=engine, batch=batch: engine.infer(batch), options.repeats)
            fps = overlapped_fps(engine, batch, options.repeats)
            ratio = fps / (count / bare * 1000)
            row = (count, "on" if use_graphs else "off", f"{bare:.3f}", f"{median:.3f} ({worst:.3f})")
            print("| " + " | ".join(map(str, (*row, f"{fps:.0f}", f"{ratio:.2f}"))) + " |")
        engine.close()


if __name__ == "__main__":
    main()
