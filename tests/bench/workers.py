"""Several workers against one process: frames per second, and per second of processor time, in turns within one run.

    python tests/bench/workers.py [--turns 4] [--seconds 8]

Two comparisons: 16 streams and the null engine, and 8 streams with the shipped INT8 street detector, one worker with
two engine threads against two workers with one each. Streams are small clips, every frame of each, lines to /dev/null.
Needs two cores; what else runs there takes its share of the clock, so look at the frames per processor second too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from edge.config.load import parse_config
from edge.config.schema import Config
from edge.daemon.run import Run
from edge.daemon.workers.pool import WorkerPool
from edge.pipeline import Pipeline
from edge.scene.street import Street

MODEL = Path(__file__).parents[2] / "edge" / "models" / "street-nano-int8.onnx"
SIZE, NUM_FRAMES = (320, 180), 6000
HERTZ = os.sysconf("SC_CLK_TCK")


def make_clip(folder: Path) -> Path:
    """A clip that lasts longer than any turn."""
    street = Street(7, *SIZE, 30, 6)
    pictures = [street.render(index)[0] for index in range(60)]
    clip = folder / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 30, SIZE)
    for index in range(NUM_FRAMES):
        writer.write(pictures[index % len(pictures)])
    writer.release()
    return clip


def configuration(clip: Path, num_streams: int, model: dict[str, Any], workers: int) -> Config:
    streams = [
        {"name": f"s{number}", "source": str(clip), "frames": "every", "sinks": ["jsonl:/dev/null"]}
        for number in range(num_streams)
    ]
    tables = {"model": {"path": str(MODEL), **model}, "streams": streams, "workers": {"count": workers}}
    return parse_config(tables, where="bench")


def cpu_s(pids: list[int]) -> float:
    """Processor time of these processes so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / HERTZ


def measure(config: Config, seconds: float) -> dict[str, float]:
    """Frames per second, and per second of processor time, and how many cores that took."""
    run: Run = WorkerPool(config) if config.workers.count != 1 else Pipeline(config)
    pids = [os.getpid(), *(worker["pid"] for worker in run.facts())] if isinstance(run, WorkerPool) else [os.getpid()]
    run.start()
    while min(stream.num_emitted for stream in run.streams.values()) < 5:
        time.sleep(0.05)
    moments = []
    for pause_s in (0.3, seconds):
        time.sleep(pause_s)
        frames = sum(stream.num_emitted for stream in run.streams.values())
        moments.append((time.monotonic(), frames, cpu_s(pids)))
    run.stop()
    (at_s, frames, spent_s), (end_s, end_frames, end_spent_s) = moments
    wall_s, count, used_s = end_s - at_s, end_frames - frames, end_spent_s - spent_s
    return {"fps": count / wall_s, "frames_per_cpu_s": count / used_s, "cores": used_s / wall_s}


def compare(name: str, clip: Path, num_streams: int, models: list[dict[str, Any]], turns: int, seconds: float) -> None:
    """One process and two workers in turns, and the medians of the ratios of neighbours."""
    found: list[list[dict[str, float]]] = [[], []]
    for _ in range(turns):
        for index, (workers, model) in enumerate(zip((1, 2), models, strict=True)):
            found[index].append(measure(configuration(clip, num_streams, model, workers), seconds))
    for label, rows in zip(("one process", "two workers"), found, strict=True):
        medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        print(f"{name}, {label}: " + ", ".join(f"{key} {value:.2f}" for key, value in medians.items()), flush=True)
    for key in ("fps", "frames_per_cpu_s"):
        ratios = [two[key] / one[key] for one, two in zip(*found, strict=True)]
        print(f"{name}, {key} ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--only", choices=["null", "detector"])
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        clip = make_clip(Path(name))
        if chosen.only != "detector":
            null = {"engine": "null", "max_batch": 16}
            compare("null engine, 16 streams", clip, 16, [null, null], chosen.turns, chosen.seconds)
        if chosen.only != "null":
            detector = {"engine": "ort", "max_batch": 4}
            models = [{**detector, "threads": 2}, {**detector, "threads": 1}]
            compare("detector, 8 streams", clip, 8, models, chosen.turns, chosen.seconds)


if __name__ == "__main__":
    main()
