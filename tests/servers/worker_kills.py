"""Kills the workers of a daemon, again and again, and checks what is left.

ROUNDS SEED FOLDER [STREAMS FPS [sticky|lost [PAUSE_S]]]: each round one of two workers gets SIGKILL or SIGSTOP at a
random moment, or, with ``sticky``, its engine fails as a GPU does whose context is lost. Between two rounds there are
at most PAUSE_S seconds, 3 if not given; a spare is at hand where it has the time to load. Cameras with a zone tell
events to the outbox, a webhook takes them, all are recorded. The daemon itself is never killed: that is the part of
``daemon_kills``.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from tiny_models import tiny_model

COMMAND = [sys.executable, "-c", "from edge.cli import main; main()"]
NUM_STREAMS, FPS = (int(text) for text in (sys.argv[4:6] or ("4", "10")))
IS_STICKY = sys.argv[6:7] == ["sticky"]
PAUSE_S = float(sys.argv[7]) if len(sys.argv) > 7 else 3.0
NAMES = tuple(f"s{number}" for number in range(NUM_STREAMS))
BACK_S = 120.0
ZONE = "[[streams.analytics.zones]]\nname = 'all'\npoints_share = [[0, 0], [1, 0], [1, 1], [0, 1]]\n"


class Hook(ThreadingHTTPServer):
    """Takes events and counts how often each came."""

    daemon_threads = True

    def __init__(self) -> None:
        self.ids: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.ids[body["id"]] += 1
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@dataclass
class Found:
    """Of each round: seconds until all streams of the lost worker gave lines again, the others' share of their rate."""

    back_s: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)


def configuration(folder: Path, port: int, hook: int) -> str:
    model = tiny_model(folder / "tiny.onnx")
    source = f"synthetic://street?seed=1&size=160x96&fps={FPS}&objects=2&live=1"
    record = f'[streams.record]\nfolder = "{folder}/recordings"\nsegment_s = 60\nreserve_mb = 0\n'
    sink = f"jsonl:{folder}/{{stream}}.jsonl"
    streams = "".join(
        f'[[streams]]\nname = "{name}"\nsource = "{source}"\nsinks = ["{sink}"]\n{ZONE}{record}' for name in NAMES
    )
    engine = "null" if IS_STICKY else "ort"
    return (
        f'state_dir = "{folder}/state"\n[workers]\ncount = 2\n'
        f'[model]\npath = "{model}"\nthreads = 1\nengine = "{engine}"\n'
        f'{streams}[events]\n[[webhooks]]\nurl = "http://127.0.0.1:{hook}/"\n'
        f"[server]\nenabled = true\nport = {port}\n"
    )


def environment(folder: Path) -> dict[str, str]:
    if not IS_STICKY:
        return dict(os.environ)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(STICKY)
    return {**os.environ, "PYTHONPATH": str(folder / "site"), "EDGE_TEST_STICKY": str(folder / "break")}


def num_lines(folder: Path, name: str) -> int:
    path = folder / f"{name}.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stats(port: int) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/stats", timeout=30) as answer:
        return json.load(answer)


# the null engine of the worker that is named in the file fails as CUDA does when a kernel has overrun its memory
STICKY = """
import os
from edge.engines.cuda.errors import gpu_error
from edge.engines.null import NullEngine
plain = NullEngine.infer
def infer(self, tensor):
    try:
        with open(os.environ["EDGE_TEST_STICKY"]) as file:
            self.is_broken = file.read() == str(os.getpid())
    except FileNotFoundError:
        pass
    if getattr(self, "is_broken", False):
        raise gpu_error("infer", "CUDA error 700: an illegal memory access was encountered")
    return plain(self, tensor)
NullEngine.infer = infer
"""


def longest_gaps_s(folder: Path) -> list[float]:
    """What is missing between the files of a recording, in seconds."""
    from edge.recording.index import RecordingIndex

    index = RecordingIndex(folder)
    index.load()
    entries = sorted(index.entries, key=lambda entry: entry.start_ns)
    return [(later.start_ns - entry.end_ns) / 1e9 for entry, later in itertools.pairwise(entries)]


def wait_for_lines(folder: Path, names: tuple[str, ...] | list[str], process: subprocess.Popen[bytes]) -> float:
    """Until each of these streams has given a line more; how long that took."""
    before = {name: num_lines(folder, name) for name in names}
    start = time.monotonic()
    while any(num_lines(folder, name) <= before[name] for name in names):
        assert process.poll() is None, "the daemon ended"
        assert time.monotonic() - start < BACK_S, f"no lines of {names} for {BACK_S} s"
        time.sleep(0.02)
    return time.monotonic() - start


def both_workers(port: int) -> list[dict[str, Any]]:
    """When both are there: one that is lost has no process until another takes its place."""
    deadline_s = time.monotonic() + BACK_S
    while True:
        workers: list[dict[str, Any]] = stats(port)["workers"]
        if all(worker["pid"] is not None for worker in workers):
            return workers
        assert time.monotonic() < deadline_s, f"a worker is not back after {BACK_S} s"
        time.sleep(0.05)


def kill_one(folder: Path, port: int, process: subprocess.Popen[bytes], chance: random.Random, found: Found) -> None:
    hit, other = chance.sample(both_workers(port), 2)
    before = {name: num_lines(folder, name) for name in other["streams"]}
    start = time.monotonic()
    if IS_STICKY:
        (folder / "break").write_text(str(hit["pid"]))
    else:
        os.kill(hit["pid"], chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP]))
    # what it was writing when it was hit is no line of the next one
    time.sleep(0.2)
    wait_for_lines(folder, hit["streams"], process)
    found.back_s.append(time.monotonic() - start)
    for name in other["streams"]:
        found.others.append((num_lines(folder, name) - before[name]) / (FPS * (time.monotonic() - start)))


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    rounds, seed, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    chance, found, hook = random.Random(seed), Found(), Hook()
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
        port = free.server_address[1]
    (folder / "edge.toml").write_text(configuration(folder, port, hook.server_address[1]))
    with (folder / "log").open("wb") as log:
        command = [*COMMAND, "run", str(folder / "edge.toml")]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment(folder))
    memory: list[tuple[float, int]] = []
    try:
        wait_for_lines(folder, NAMES, process)
        for _ in range(rounds):
            time.sleep(chance.uniform(0.0 if PAUSE_S <= 3 else PAUSE_S - 3, PAUSE_S))
            kill_one(folder, port, process, chance, found)
            files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            memory.append((rss_mb(process.pid), files))
            print(f"{len(memory)}: back after {found.back_s[-1]:.1f} s, {memory[-1]}", file=sys.stderr, flush=True)
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (folder / "log").read_text()[-3000:]
    finally:
        process.kill()
    tell(folder, rounds, found, hook, memory)


def tell(folder: Path, rounds: int, found: Found, hook: Hook, memory: list[tuple[float, int]]) -> None:
    """Compare with what is promised, and say it in a line."""
    with sqlite3.connect(folder / "state" / "events.db") as outbox:
        rows = [(row[0], json.loads(row[1])) for row in outbox.execute("SELECT id, body FROM events")]
    lost = {row[0] for row in rows} - set(hook.ids)
    assert not lost, f"{len(lost)} events were acknowledged and never delivered"
    assert not set(hook.ids) - {row[0] for row in rows}
    facts = [
        (body["stream"], body["time"], body["kind"], body["track_id"], json.dumps(body["data"])) for _, body in rows
    ]
    assert len(set(facts)) == len(facts), "an event is there twice under two ids"
    told = sum(line.count(b'"kind":"zone') for name in NAMES for line in (folder / f"{name}.jsonl").open("rb"))
    half = len(memory) // 2
    assert memory[-1][1] <= memory[half][1] + 8, f"open files: {memory}"
    gaps = sorted(gap for name in NAMES for gap in longest_gaps_s(folder / "recordings" / name)) or [0.0]
    back, others = sorted(found.back_s), statistics.median(found.others)
    print(
        f"{rounds} kills, {len(rows)} events kept, {told} told in lines, 0 lost, 0 doubled, "
        f"delivered {sum(hook.ids.values())} times; back after {statistics.median(back):.1f} s "
        f"(p95 {back[int(len(back) * 0.95) - 1]:.1f}, most {back[-1]:.1f}), others at {others:.2f} of their rate; "
        f"recordings lack {statistics.median(gaps):.1f} s (most {gaps[-1]:.1f}); "
        f"daemon {memory[half][0]:.1f} to {memory[-1][0]:.1f} MB, {memory[half][1]} to {memory[-1][1]} files"
    )


if __name__ == "__main__":
    main()
