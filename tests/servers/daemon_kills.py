"""Kills a daemon that counts, tells and records, again and again, and checks what is left: ROUNDS SEED FOLDER.

Each round is a power cut as far as one machine can play it: SIGKILL or SIGABRT at a random moment to the daemon and
all its decoders, the folder in memory gone, and a new start over what the disk has. The camera is a synthetic street
with a line across it; the street model of this repository finds its objects.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from edge.cli import main; main()"]
COUNTS_S, PICTURES_S, FRAGMENT_S = 5.0, 5.0, 2.0
# a thread that waits for a busy processor; it is said in the result
SLACK_S = 1.0


def config_of(folder: Path) -> str:
    return f"""
state_dir = "{folder}/state"
stop_timeout_s = 8
[model]
path = "{ROOT}/edge/models/street-nano-int8.onnx"
engine = "ort"
threads = 1
[[streams]]
name = "door"
source = "synthetic://street?seed=5&size=320x192&fps=10&objects=20&live=1"
sinks = ["jsonl:-"]
[streams.record]
folder = "{folder}/recordings"
segment_s = 8
fragment_s = {FRAGMENT_S}
reserve_mb = 0
max_gb = 0.02
[[streams.analytics.lines]]
name = "gate"
points_share = [[0.02, 0.6], [0.98, 0.6]]
[[streams.analytics.zones]]
name = "middle"
points_share = [[0.3, 0.2], [0.7, 0.2], [0.7, 0.98], [0.3, 0.98]]
[events]
"""


@dataclass
class Run:
    """What one life of the daemon said: crossings and other events, each with the time when the line came."""

    first_s: float | None = None
    crossings: list[float] = field(default_factory=list)
    last_s: float = 0.0
    errors: list[str] = field(default_factory=list)


def listen(process: subprocess.Popen[bytes], run: Run) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        now_s = time.monotonic()
        try:
            said = json.loads(line)
        except ValueError:
            # the last line of a killed process
            continue
        run.first_s = run.first_s or now_s
        run.last_s = now_s
        run.crossings += [now_s] * sum(event["kind"] == "line_crossed" for event in said["events"])


def complain(process: subprocess.Popen[bytes], run: Run) -> None:
    assert process.stderr is not None
    run.errors += [line.decode() for line in process.stderr]


@contextmanager
def daemon(folder: Path, runtime: Path) -> Iterator[tuple[subprocess.Popen[bytes], Run]]:
    run = Run()
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(runtime), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*COMMAND, "--quiet", "run", str(folder / "edge.toml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )
    readers = [threading.Thread(target=read, args=(process, run)) for read in (listen, complain)]
    for reader in readers:
        reader.start()
    try:
        yield process, run
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for reader in readers:
            reader.join()


def counted(folder: Path) -> int:
    path = folder / "state" / "door.analytics.json"
    if not path.exists():
        return 0
    gate = json.loads(path.read_text())["lines"]["gate"]
    return int(gate["in"]) + int(gate["out"])


def crossings_kept(folder: Path) -> int:
    from edge.events.outbox import Outbox

    outbox = Outbox(folder / "state" / "events.db", [])
    assert outbox.error == "", outbox.error
    found = sum(event.kind == "line_crossed" for event in outbox.recent(10**7))
    outbox.close()
    return found


def recorded_until_ns(folder: Path) -> tuple[int, int]:
    """How many files there are, all of them whole, and the wall time up to which the newest shows pictures."""
    from edge.recording.recording import RecordingFolder
    from edge.recording.retention import Keep

    recording = RecordingFolder(folder / "recordings" / "door", Keep())
    recording.close()
    for entry in recording.index.entries[-2:]:
        with av.open(str(folder / "recordings" / "door" / entry.file)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 0, entry.file
    return len(recording.index.entries), max((entry.end_ns for entry in recording.index.entries), default=0)


@dataclass
class Worst:
    """The worst of all rounds, in seconds; events that the daemon told of and that are gone."""

    counts_s: float = 0.0
    recording_s: float = 0.0
    num_lost_events: int = 0
    num_crossings: int = 0
    pictures_s: list[float] = field(default_factory=list)


def one_kill(folder: Path, runtime: Path, chance: random.Random, worst: Worst, before: tuple[int, int]) -> None:
    """Start, wait a random while, kill all of it at once, and compare what was told with what is there."""
    for path in runtime.iterdir():
        path.unlink()
    began_s = time.monotonic()
    with daemon(folder, runtime) as (process, run):
        wait_s = chance.uniform(0.2, 12.0)
        while run.first_s is None or time.monotonic() - run.first_s < wait_s:
            assert process.poll() is None, "".join(run.errors)[-2000:]
            assert time.monotonic() - began_s < 60, "".join(run.errors)[-2000:]
            time.sleep(0.01)
        if chance.random() < 0.3:
            process.send_signal(signal.SIGABRT)
        else:
            os.killpg(process.pid, signal.SIGKILL)
        killed_s, killed_ns = time.monotonic(), time.time_ns()
    assert not [line for line in run.errors if "damaged" in line or "Traceback" in line], run.errors
    worst.pictures_s.append(run.first_s - began_s)
    worst.num_crossings += len(run.crossings)
    # counts: the oldest crossing that the file lacks says how old it is
    num_kept = counted(folder) - before[0]
    missing = run.crossings[max(0, num_kept) :]
    worst.counts_s = max(worst.counts_s, killed_s - min(missing, default=killed_s))
    # events: what was told a second before the end must be on the disk
    told = sum(at_s < killed_s - SLACK_S for at_s in run.crossings)
    worst.num_lost_events += max(0, told - (crossings_kept(folder) - before[1]))
    _, until_ns = recorded_until_ns(folder)
    if run.last_s - run.first_s > 2 * FRAGMENT_S:
        worst.recording_s = max(worst.recording_s, (killed_ns - until_ns) / 1e9)


def main() -> None:
    rounds, seed, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    runtime = folder / "runtime"
    runtime.mkdir(parents=True)
    (folder / "edge.toml").write_text(config_of(folder))
    chance, worst = random.Random(seed), Worst()
    for number in range(rounds):
        before = (counted(folder), crossings_kept(folder)) if number else (0, 0)
        one_kill(folder, runtime, chance, worst, before)
        print(f"{number + 1}: {worst}"[:200], worst.pictures_s[-1], os.getloadavg()[0], file=sys.stderr, flush=True)
    num_files, _ = recorded_until_ns(folder)
    assert not list(folder.glob("state/*.broken")), "a kill left a damaged file"
    assert worst.counts_s <= COUNTS_S, worst
    assert worst.num_lost_events == 0, worst
    assert worst.recording_s <= FRAGMENT_S + SLACK_S, worst
    pictures_s = sorted(worst.pictures_s)
    print(
        f"{rounds} kills, {worst.num_crossings} crossings, counts at most {worst.counts_s:.2f} s old, "
        f"{worst.num_lost_events} events lost, {num_files} files, recordings at most {worst.recording_s:.2f} s short, "
        f"pictures {pictures_s[rounds // 2]:.2f} s (median) and at most {pictures_s[-1]:.2f} s after a start"
    )


if __name__ == "__main__":
    main()
