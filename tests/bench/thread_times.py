"""Where the processor time of a frame goes: by thread of the running pipeline, from the kernel's own account.

    python tests/bench/thread_times.py MODEL.onnx CLIP.mp4 [--threads 1] [--jsonl]

Every frame of the clip; with pictures (overlay and JPEG for one viewer), or JSONL alone.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

from loop_peers import STREAM, our_line

from edge.daemon.service import summarise

TASKS = Path("/proc/self/task")


def account() -> dict[int, tuple[float, float]]:
    """Thread id → milliseconds on a processor, and waiting for one."""
    found = {}
    for task in TASKS.iterdir():
        try:
            ran, waited, _ = (task / "schedstat").read_text().split()
        except OSError:
            continue
        found[int(task.name)] = (int(ran) / 1e6, int(waited) / 1e6)
    return found


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("clip")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jsonl", action="store_true")
    chosen = parser.parse_args()
    pipeline, board = our_line(str(chosen.model), chosen.clip, chosen.threads, not chosen.jsonl)
    before, names, seen = account(), {threading.get_native_id(): "this script"}, dict[int, tuple[float, float]]()
    started = time.perf_counter()
    pipeline.start()
    if board is not None:
        board.watch(STREAM, has_pictures=True)
    while not pipeline.wait(0.1):
        names = {thread.native_id or 0: thread.name for thread in threading.enumerate()} | names
        seen.update(account())
    seconds, frames = time.perf_counter() - started, summarise(pipeline).frames
    pipeline.stop()
    print(f"{frames} frames, {frames / seconds:.1f} frames/s\n")
    print("| thread | ms a frame | waiting for a core |\n|---|---|---|")
    totals: dict[str, tuple[float, float]] = {}
    for task, (ran, waited) in seen.items():
        name = names.get(task, "threads of libraries (decoding)")
        old, was = totals.get(name, (0.0, 0.0)), before.get(task, (0.0, 0.0))
        totals[name] = old[0] + ran - was[0], old[1] + waited - was[1]
    for name, (ran, waited) in sorted(totals.items(), key=lambda row: -row[1][0]):
        print(f"| {name} | {ran / frames:.2f} | {waited / frames:.2f} |")


if __name__ == "__main__":
    main()
