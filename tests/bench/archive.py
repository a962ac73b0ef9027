"""How much faster two workers of one thread look through an archive than one, and whether their memory stays flat.

    python tests/bench/archive.py [--ray] [--clips 8] [--frames 300]

Prints a JSON object: seconds of the whole command and of its work (from the moment that its folder is there), for
one worker and for two, their ratio, the processor time of the workers, and the memory of all processes of the run
over its course. Where other programs take the processor too, ``ratio`` says what they left; ``free_ratio`` is what two
free cores would give: twice the processor time of one worker by that of two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "servers")]

from ray_nodes import nodes
from street_clips import write_clip

from edge.models.shipped import FOLDER

MODEL = FOLDER / "street-nano-int8.onnx"
RUN = "import sys; from edge.cli import main; main(sys.argv[1:])"


def measured(videos: Path, folder: Path, *more: str) -> dict[str, Any]:
    """One run. Returns: seconds, frames, and MB of its own processes every half second."""
    arguments = ["analyze", f"{videos}/*.mp4", "--out", str(folder), "--model", str(MODEL), "--json", *more]
    began_s = time.monotonic()
    running = subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=subprocess.PIPE, text=True)
    memory, used_s = [], 0.0
    while running.poll() is None:
        memory.append(round(memory_mb(running.pid)))
        used_s = max(used_s, processor_s(running.pid))
        time.sleep(0.2)
    assert running.stdout is not None
    facts = json.loads(running.stdout.read())
    work_s = max(path.stat().st_mtime for path in folder.rglob("done/*")) - (folder / "job.json").stat().st_mtime
    return {
        "seconds": round(time.monotonic() - began_s, 2),
        "work_s": round(work_s, 2),
        "cpu_s": round(used_s, 2),
        "frames": facts["frames"],
        "mb": memory[::10],
    }


def memory_mb(pid: int) -> float:
    """Of a process and its children, shared pages once for each."""
    try:
        process = psutil.Process(pid)
        sizes: list[int] = [one.memory_info().rss for one in (process, *process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(sizes) / 1e6


def processor_s(pid: int) -> float:
    """Of a process and its children; on Ray the workers are the children of others, of whom this says nothing."""
    try:
        process = psutil.Process(pid)
        return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0.0


def main() -> None:
    """Measure and print."""
    reader = argparse.ArgumentParser()
    reader.add_argument("--ray", action="store_true")
    reader.add_argument("--clips", type=int, default=8)
    reader.add_argument("--frames", type=int, default=300)
    wanted = reader.parse_args()
    with tempfile.TemporaryDirectory() as place:
        videos = Path(place) / "videos"
        for number in range(wanted.clips):
            write_clip(videos / f"{number}.mp4", seed=number, frames=wanted.frames)
        found: dict[str, Any] = {}
        for count in (1, 2):
            with ExitStack() as closing:
                more = ["--workers", str(count)]
                if wanted.ray:
                    more = ["--ray", closing.enter_context(nodes(count))[1]]
                found[str(count)] = measured(videos, Path(place) / f"results-{count}", *more)
        found["ratio"] = round(found["1"]["work_s"] / found["2"]["work_s"], 2)
        found["free_ratio"] = round(2 * found["1"]["cpu_s"] / found["2"]["cpu_s"], 2)
        json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
