"""Kills a process that keeps a watch log, again and again, and checks what is left: ROUNDS SEED FOLDER FLUSH_S."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path

from edge.config.daemon import WatchLogSettings
from edge.config.schema import StreamSettings
from edge.daemon.watcher import Watcher
from edge.model import find_manifest
from edge.models.shipped import FOLDER
from edge.pipeline.analysis import StreamAnalysis
from edge.pipeline.stream import Stream
from edge.watchlog.certificate import checked_folder
from edge.watchlog.keys import DeviceKey
from edge.watchlog.seconds import Analysed

MAX_AGE_S = 0.1
# docs/watch-log.md: a second is written once no frame of it can come, and all is done in whole ones
SLACK_S = MAX_AGE_S + 3


def work(folder: Path, flush_s: float) -> None:
    """Until killed: a stream that gives 20 frames a second, and its log."""
    config = StreamSettings(name="door", source="rtsp://camera/1", max_age_ms=1000 * MAX_AGE_S)
    manifest = find_manifest(FOLDER / "street-nano-int8.onnx")
    analysis = StreamAnalysis("door", manifest.classes, tracker=None, settings=config.analytics)
    stream = Stream(config, "model", manifest, analysis)
    stream.analysed, stream.status.state = deque(), "streaming"
    watcher = Watcher(lambda: {"door": stream}, folder / "watch", WatchLogSettings(flush_s=flush_s))
    threading.Thread(target=watcher.run, args=(threading.Event(),), daemon=True).start()
    while True:
        stream.analysed.append(Analysed(time.monotonic_ns(), manifest.sha256, ()))
        time.sleep(0.05)


def one_kill(folder: Path, flush_s: float, wait_s: float) -> tuple[int, int]:
    """First and last second in which it lived."""
    started_s = time.monotonic_ns() // 1_000_000_000
    child = os.fork()
    if child == 0:
        work(folder, flush_s)
    time.sleep(wait_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return started_s, time.monotonic_ns() // 1_000_000_000


def main() -> None:
    rounds, seed, folder, flush_s = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    chance = random.Random(seed)
    lives = [one_kill(folder, flush_s, chance.uniform(0.5, 7 + 3 * flush_s)) for _ in range(rounds)]
    _, checked = checked_folder(folder / "watch" / "door", "door", DeviceKey.of_folder(folder).public)
    assert not checked.problems, checked.problems
    told = {line.value["s"] for line in checked.lines if "s" in line.value}
    # until the first row a process has not watched at all
    worst = max(last - 1 - max(told & set(range(first, last)), default=first) for first, last in lives)
    starts = [line.value["after"] for line in checked.lines if "file" in line.value]
    assert set(starts) <= {"first", "killed"}, starts
    assert worst <= flush_s + SLACK_S, f"{worst} s are missing, {flush_s + SLACK_S} s are promised"
    words = {line.value["is"] for line in checked.lines if "s" in line.value}
    print(f"{rounds} kills, {len(told)} seconds told as {', '.join(sorted(words))}, at most {worst} s missing")


if __name__ == "__main__":
    main()
