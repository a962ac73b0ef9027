"""Kills a process that counts at a line, again and again, and checks what is left: ROUNDS SEED FOLDER EVERY_S."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge.config.analytics import AnalyticsSettings
from edge.daemon.count_saver import CountSaver
from edge.pipeline.analysis import StreamAnalysis
from edge.types import Detections, Frame, Tracks

SIZE = (320, 240)
SETTINGS = AnalyticsSettings.model_validate({"lines": [{"name": "gate", "points_px": [(40, 180), (280, 180)]}]})
# feet above the line, then below it: one crossing every seven frames
WAY = (140, 150, 165, 210, 220, 225, 230)
FRAME_NS = 200_000_000
# what a thread may wait for a busy processor, next to the time between two saves
SLACK_S = 1.0


class Walker:
    """A tracker that sees one object go down the picture, as another object each time."""

    def __init__(self, first_id: int) -> None:
        self.track_id = first_id
        self.feet_y = 0

    def update(self, detections: Detections, time_ns: int, motion: Any = None, look: Any = None) -> Tracks:
        box = np.array([[90, self.feet_y - 60, 110, self.feet_y]], np.float32)
        one = np.ones(1, np.float32)
        still, first = np.zeros((1, 2), np.float32), np.zeros(1, np.int32)
        return Tracks(np.array([self.track_id], np.int64), box, one, first, one * 5, still, first)


class Counting:
    """A stream that counts into a file; ``walk`` is one crossing."""

    def __init__(self, state_file: Path, first: int) -> None:
        self.walker = Walker(first)
        self.analysis = StreamAnalysis(
            "door", ("person",), tracker=self.walker, settings=SETTINGS, state_file=state_file
        )
        self._num_frames = first * len(WAY)

    def see(self) -> None:
        self._num_frames += 1
        image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        frame = Frame("door", 0, self._num_frames, self._num_frames * FRAME_NS, None, image)
        self.analysis.update(frame, Detections.empty(), {})

    def walk(self) -> None:
        self.walker.track_id += 1
        for self.walker.feet_y in WAY:
            self.see()

    @property
    def total(self) -> int:
        gate = self.analysis.counts()["lines"]["gate"]
        return int(gate["in"] + gate["out"])


def work(state_file: Path, first: int, every_s: float, told: int) -> None:
    """Until killed: count, and say so with the time."""
    counting = Counting(state_file, first)
    saver = CountSaver(lambda: [counting.analysis], every_s)
    threading.Thread(target=saver.run, args=(threading.Event(),), daemon=True).start()
    while True:
        counting.walk()
        os.write(told, f"{time.monotonic()} {counting.total}\n".encode())
        time.sleep(0.002)


def one_kill(state_file: Path, first: int, every_s: float, wait_s: float) -> tuple[float, list[tuple[float, int]]]:
    """When it was killed, and what had been counted when."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        work(state_file, first, every_s, writer)
    os.close(writer)
    said: list[bytes] = []
    listener = threading.Thread(target=lambda: said.append(_all_of(reader)))
    listener.start()
    time.sleep(wait_s)
    os.kill(child, signal.SIGKILL)
    killed_s = time.monotonic()
    os.waitpid(child, 0)
    listener.join()
    lines = [line.split() for line in said[0].splitlines()]
    return killed_s, [(float(line[0]), int(line[1])) for line in lines if len(line) == 2]


def _all_of(reader: int) -> bytes:
    with os.fdopen(reader, "rb") as file:
        return file.read()


def main() -> None:
    rounds, seed, folder, every_s = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    chance = random.Random(seed)
    state_file = folder / "door.analytics.json"
    kept, worst_s, num_counted = 0, 0.0, 0
    for index in range(rounds):
        killed_s, counted = one_kill(state_file, (index + 1) * 10_000, every_s, chance.uniform(0.05, 3 * every_s))
        again = Counting(state_file, (index + 2) * 10_000)
        again.see()
        assert not list(folder.glob("*.broken")), "a kill left a damaged file"
        assert again.total >= kept, "counts went back behind what a start had found"
        kept = again.total
        num_counted += len(counted)
        # the oldest count that is missing says how old the file is
        missing = [at_s for at_s, total in counted if total > kept]
        worst_s = max(worst_s, killed_s - min(missing, default=killed_s))
    assert worst_s <= every_s + SLACK_S, f"counts {worst_s:.2f} s old, every {every_s} s is promised"
    print(f"{rounds} kills, {num_counted} counts, at most {worst_s:.2f} s old")


if __name__ == "__main__":
    main()
