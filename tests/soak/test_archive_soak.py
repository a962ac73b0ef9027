"""An hour of clips through one process and through a Ray cluster that loses a node: the same bytes, and flat memory.

Sixty clips of a minute at two pictures per second. Shorter: EDGE_SOAK_SHARE=0.1 takes six.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ray_nodes import nodes
from street_clips import write_clip

from edge.models.shipped import FOLDER

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]
CLIPS = max(4, round(60 * float(os.environ.get("EDGE_SOAK_SHARE", "1"))))
FRAMES = 120
FILMS = 6
RUN = "import sys; from edge.cli import main; main(sys.argv[1:])"


def command(videos: Path, folder: Path, *more: str) -> list[str]:
    model = str(FOLDER / "street-nano-int8.onnx")
    wanted = ["analyze", f"{videos}/*.mp4", "--out", str(folder), "--model", model, "--part-frames", "30", "--json"]
    return [sys.executable, "-c", RUN, *wanted, "--line", "gate=0.5,0,0.5,1", *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def memory_mb(pid: int) -> float:
    """Private memory of the processes of a run; what Ray keeps is Ray's."""
    own = psutil.Process(pid)
    found = 0.0
    for one in (own, *own.children(recursive=True)):
        try:
            found += one.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            continue
    return found


def watched_run(arguments: list[str], folder: Path, kill_after: int | None, kill: object) -> list[float]:
    """Run it; MB every second, from the second finished video on: then everything is loaded.

    Args:
        kill_after: finished videos after which ``kill`` is called.
    """
    running = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    memory = []
    while running.poll() is None:
        time.sleep(1)
        num_done = len(list(folder.rglob("done/*")))
        if num_done > 1 and running.poll() is None:
            memory.append(memory_mb(running.pid))
        if kill_after is not None and num_done >= kill_after:
            assert callable(kill)
            kill()
            kill_after = None
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.returncode == 0, running.stderr.read()[-3000:]
    assert json.loads(running.stdout.read())["frames"] == CLIPS * FRAMES
    return memory


def test_an_hour_of_clips_with_a_node_that_dies(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    films = [
        write_clip(tmp_path / f"film-{seed}.mp4", seed=seed, frames=FRAMES, fps=2, g="30") for seed in range(FILMS)
    ]
    videos.mkdir()
    for number in range(CLIPS):
        (videos / f"clip-{number:02d}.mp4").write_bytes(films[number % FILMS].read_bytes())
    memory = watched_run(command(videos, tmp_path / "alone", "--workers", "1"), tmp_path / "alone", None, None)
    with nodes() as (cluster, address):
        assert cluster.stdin is not None

        def kill() -> None:
            assert cluster.stdin is not None
            cluster.stdin.write("kill\n")
            cluster.stdin.flush()

        on_ray = tmp_path / "ray"
        watched_run(command(videos, on_ray, "--ray", address), on_ray, CLIPS // 3, kill)
    assert contents(on_ray) == contents(tmp_path / "alone")
    # at its end one process after the other is gone
    third = len(memory) // 3
    early, late = statistics.median(memory[:third]), statistics.median(memory[-third:-2])
    print(json.dumps({"clips": CLIPS, "mb_early": round(early), "mb_late": round(late)}))
    assert late < 1.1 * early
