"""The whole loop next to the loops that people write, in one run on the same cores: rate, processor time, memory.

    python tests/bench/loop_peers.py MODEL.onnx CLIP.mp4 --peers PYTHON   # with supervision, trackers

Every contestant runs alone, in turn, several rounds; medians are printed with their ratios. All read every
frame of the clip in order, run the same ONNX file, track, draw boxes, labels and trails, and encode each picture as
JPEG (quality 80).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

if TYPE_CHECKING:
    from edge.pipeline import Pipeline
    from edge.server.board import LiveBoard

STREAM = "clip"
PLAIN = Path(__file__).with_name("plain_loop.py")


def our_line(model: str, video: str, threads: int, draws: bool) -> tuple[Pipeline, LiveBoard | None]:
    """Edgeloop's pipeline for every frame, not started; with ``draws`` and a board for a viewer, else with JSONL."""
    import edge.sources.av  # noqa: F401
    from edge.config.load import config_from_arguments
    from edge.pipeline import Pipeline
    from edge.server.board import LiveBoard
    from edge.trackers import association

    # as edge run does
    cv2.setNumThreads(1)
    board = LiveBoard() if draws else None
    options = {"threads": threads, "engine": "ort"}
    sinks = [] if draws else ["jsonl:/dev/null"]
    config = config_from_arguments(
        [video], Path(model), sinks, for_model=options, for_stream={"frames": "every", "name": STREAM}
    )
    if board is not None:
        board.add_stream(STREAM, {})
    pipeline = Pipeline(config, board)
    # the plain loops have imported all they need before they are timed
    association.solver()
    return pipeline, board


def run_ours(model: str, video: str, threads: int, draws: bool) -> dict[str, float]:
    """Edgeloop's pipeline in this process; with ``draws`` one viewer takes every picture as JPEG."""
    from edge.daemon.service import summarise

    pipeline, board = our_line(model, video, threads, draws)
    cpu_before, started = time.process_time(), time.perf_counter()
    pipeline.start()
    if board is not None:
        board.watch(STREAM, has_pictures=True)
    pipeline.wait(600)
    seconds = time.perf_counter() - started
    frames = summarise(pipeline).frames
    (stream,) = pipeline.streams.values()
    stages: Any = stream.stats()["stages"]
    pipeline.stop()
    for failure in pipeline.failures():
        raise failure
    if board is not None:
        (counts,) = board.counts().values()
        assert counts["encoded"] >= frames - 5, counts
    return {
        "frames": frames,
        "fps": frames / seconds,
        "cpu_ms": (time.process_time() - cpu_before) * 1e3 / frames,
        "engine_ms": stages["infer"]["median_ms"],
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_bare(model: str, video: str, threads: int, seconds: float = 6.0) -> dict[str, float]:
    """The engine alone, on one frame."""
    from edge.bench.loop import first_images, measure_engine
    from edge.model import open_model

    opened = open_model(Path(model), engine="ort", threads=threads, max_batch=1)
    images, _ = first_images(video, 1)
    bare = measure_engine(opened, images, seconds)
    opened.close()
    return {"fps": bare.fps, "cpu_ms": bare.cpu_ms_per_frame, "engine_ms": bare.median_ms}


def contestants(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Name → command whose last line of output is a JSON object."""
    files = [arguments.model, arguments.video]
    found = {}
    for threads in arguments.threads:
        own = [sys.executable, __file__, *files, "--threads", str(threads), "--one"]
        plain = [arguments.peers or sys.executable, str(PLAIN), *files, "--threads", str(threads)]
        found[f"bare engine, {threads} threads"] = [*own, "bare"]
        found[f"edgeloop, {threads} threads"] = [*own, "drawn"]
        found[f"edgeloop, JSONL only, {threads} threads"] = [*own, "jsonl"]
        found[f"plain loop, boxes only, {threads} threads"] = [*plain, "--draw", "boxes"]
        if arguments.peers:
            found[f"plain loop, supervision, {threads} threads"] = [*plain, "--draw", "supervision"]
    return found


def main() -> None:
    """Run all in turn and print a table, or one of them and its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("video")
    parser.add_argument("--peers", help="a Python that has supervision, trackers and onnxruntime")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=["bare", "drawn", "jsonl"], help="run only this, here")
    arguments = parser.parse_args()
    if arguments.one:
        threads = arguments.threads[0]
        runs: dict[str, Callable[..., dict[str, Any]]] = {
            "bare": run_bare,
            "drawn": partial(run_ours, draws=True),
            "jsonl": partial(run_ours, draws=False),
        }
        print(json.dumps(runs[arguments.one](arguments.model, arguments.video, threads)))
        return
    rows: dict[str, list[dict[str, Any]]] = {}
    for _ in range(arguments.rounds):
        for name, command in contestants(arguments).items():
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.setdefault(name, []).append(json.loads(done.stdout.strip().splitlines()[-1]))
    medians = {
        name: {key: statistics.median(row[key] for row in found) for key in found[0]} for name, found in rows.items()
    }
    best = max(row["fps"] for name, row in medians.items() if name.startswith("bare"))
    print("| contestant | fps | of the best bare engine | CPU ms a frame | without the engine | peak RSS MB |")
    print("|---|---|---|---|---|---|")
    bare_cpu = {name.split(", ")[-1]: row["cpu_ms"] for name, row in medians.items() if name.startswith("bare")}
    for name, row in medians.items():
        own_ms = row["cpu_ms"] - bare_cpu[name.split(", ")[-1]]
        memory = f"{row['rss_mb']:.0f}" if "rss_mb" in row else ""
        print(
            f"| {name} | {row['fps']:.1f} | {row['fps'] / best:.2f} | {row['cpu_ms']:.1f} | {own_ms:.1f} | {memory} |"
        )


if __name__ == "__main__":
    main()
