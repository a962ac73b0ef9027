"""``edge analyze``: the same bytes from one process, several, or a Ray cluster; whatever dies on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from here import run_here
from ray_nodes import nodes
from street_clips import write_clip

from edge.archive.local import _Pool
from edge.archive.work import KILLED
from edge.cli import run_command
from edge.models.shipped import FOLDER

MODEL = FOLDER / "street-nano-int8.onnx"
RUN = "import sys; from edge.cli import main; main(sys.argv[1:])"
FRAMES = 75 + 45
COMMON = ("--model", str(MODEL), "--part-frames", "12", "--line", "gate=0.5,0,0.5,1")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_clip(folder / "north" / "a.mp4", seed=1, frames=75, g="12")
    write_clip(folder / "b.mkv", seed=2, frames=45, g="12", bf="3")
    return folder


@pytest.fixture(scope="module")
def alone(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a single process."""
    folder = tmp_path_factory.mktemp("alone") / "results"
    assert analyze(videos, folder, "--workers", "1")["videos"] == 2
    return folder


def analyze(videos: Path, folder: Path, *more: str) -> dict[str, Any]:
    done = subprocess.run(command(videos, folder, *more), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def command(videos: Path, folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-c", RUN, "analyze", f"{videos}/**/*.m*", "--out", str(folder), "--json", *COMMON, *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_tables_and_lines_say_the_same(alone: Path) -> None:
    found = lines(alone / "jsonl" / "north" / "a.mp4.jsonl")
    tracks = pq.read_table(alone / "tracks" / "north" / "a.mp4.parquet").to_pylist()
    events = pq.read_table(alone / "events" / "north" / "a.mp4.parquet").to_pylist()
    assert len(found) == 75
    written = [(one["seq"], thing["track_id"]) for one in found for thing in one["objects"] if thing["track_id"]]
    assert written == [(row["seq"], row["track_id"]) for row in tracks]
    told = [(one["seq"], event["kind"], event["track_id"]) for one in found for event in one["events"]]
    assert told == [(row["seq"], row["kind"], row["track_id"]) for row in events]
    assert tracks and events
    account = json.loads((alone / "done" / "north" / "a.mp4.json").read_text())
    counts = account["counts"]["lines"]["gate"]
    assert counts["in"] + counts["out"] == sum(row["kind"] == "line_crossed" for row in events) > 0


def test_all_tables_of_an_archive_are_one_dataset(alone: Path) -> None:
    table = pyarrow.dataset.dataset(alone / "detections").to_table()
    assert set(table["file"].to_pylist()) == {"b.mkv", "north/a.mp4"}
    assert set(table["class"].to_pylist()) <= {"person", "bicycle", "car"}


def test_the_lines_are_those_of_the_loop(videos: Path, alone: Path, tmp_path: Path) -> None:
    """Each picture with the objects and events that ``edge run`` finds, one by one."""
    config = tmp_path / "edge.toml"
    config.write_text(
        f"""
[model]
path = "{MODEL}"
engine = "ort"
threads = 1
max_batch = 1
[[streams]]
name = "a"
source = "{videos}/north/a.mp4"
decoder = "av"
sinks = ["jsonl:{tmp_path}/loop.jsonl"]
[[streams.analytics.lines]]
name = "gate"
points_share = [[0.5, 0], [0.5, 1]]
"""
    )
    assert run_here(["--quiet", "run", str(config)]) == 0
    different = {"stream": "", "captured": "", "age_ms": 0}
    loop = [{**line, **different} for line in lines(tmp_path / "loop.jsonl")]
    archive = [{**line, **different} for line in lines(alone / "jsonl" / "north" / "a.mp4.jsonl")]
    assert archive == loop


def test_a_run_that_was_killed_goes_on_where_it_stopped(videos: Path, alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    running = subprocess.Popen(command(videos, folder, "--workers", "1"), stdout=subprocess.DEVNULL)
    wait_for_parts(folder, 2)
    children = psutil.Process(running.pid).children(recursive=True)
    for process in (psutil.Process(running.pid), *children):
        process.kill()
    running.wait()
    kept = {path: path.stat().st_ino for path in folder.rglob("parts/*/*.npz")}
    assert len(kept) >= 2
    going_on = subprocess.Popen(command(videos, folder, "--workers", "1"), stdout=subprocess.DEVNULL)
    wait_for_parts(folder, len(kept) + 1)
    # those of the first run are not made again
    assert all(path.stat().st_ino == inode for path, inode in kept.items() if path.is_file())
    assert going_on.wait(100) == 0
    assert contents(folder) == contents(alone)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert analyze(videos, folder)["before"] == 2
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def wait_for_parts(folder: Path, count: int) -> None:
    """Until so many parts, or finished videos, are there."""
    until = time.monotonic() + 60
    while len(list(folder.rglob("parts/*/*.npz"))) < count and not list(folder.rglob("done/*")):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_two_processes_write_what_one_does_and_a_broken_video_costs_no_other(
    videos: Path, alone: Path, tmp_path: Path
) -> None:
    shutil.copytree(videos, tmp_path / "videos")
    whole = (videos / "north" / "a.mp4").read_bytes()
    (tmp_path / "videos" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "videos" / "text.mp4").write_text("no video")
    facts = analyze(tmp_path / "videos", tmp_path / "results", "--workers", "2")
    assert facts["videos"] == 2
    assert set(facts["broken"]) == {"cut.mp4", "text.mp4"}
    assert contents(tmp_path / "results") == contents(alone)


def test_a_folder_of_other_settings_is_refused(videos: Path, alone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = command(videos, alone, "--score", "0.9")[3:]
    assert run_command(arguments) == 2
    assert "made with another stream" in capfd.readouterr().err


def test_what_ends_its_process_is_found_and_alone_to_blame() -> None:
    given = ["1", "2", "__import__('os').kill(__import__('os').getpid(), 9)", "3", "4", "5"]
    answers = dict(_Pool(2, eval, None).run(given))
    assert [answers[one] for one in given] == [1, 2, KILLED, 3, 4, 5]


def test_a_ray_cluster_writes_what_one_process_does_though_a_node_is_killed(
    videos: Path, alone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    with nodes() as (cluster, address):
        given = command(videos, folder, "--ray", address)
        running = subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for_parts(folder, 2)
        assert cluster.stdin is not None
        cluster.stdin.write("kill\n")
        cluster.stdin.flush()
        told, errors = running.communicate(timeout=100)
    assert running.returncode == 0, errors
    assert json.loads(told)["frames"] == FRAMES
    assert contents(folder) == contents(alone)


def test_no_cluster_is_a_sentence(videos: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(videos, tmp_path, "--ray", "127.0.0.1:1"), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --ray 127.0.0.1:1: no cluster")


def test_ctrl_c_ends_all_processes(videos: Path, tmp_path: Path) -> None:
    running = subprocess.Popen(
        command(videos, tmp_path / "results", "--workers", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # a shell that runs the tests in the background has it ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    wait_for_parts(tmp_path / "results", 1)
    children = psutil.Process(running.pid).children(recursive=True)
    os.kill(running.pid, signal.SIGINT)
    assert running.wait(30) == 130
    assert psutil.wait_procs(children, timeout=10)[1] == []
