"""Kills a process that keeps tracks, again and again, and checks what is left: ROUNDS SEED FOLDER BLOCK_S."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from edge.config.recording import TrackStoreSettings
from edge.trackstore.parts import Head, Part, parts_in
from edge.trackstore.read import Reader
from edge.trackstore.store import POLL_S, Stand, StreamFacts, TrackStore, head_of
from edge.types import Detections, Frame, Tracks

FPS = 100
# what the disk and a busy machine may take on top
SLACK_S = 1.0


def head(width: int, height: int) -> Head:
    names = ("person",)
    more = {"model_anchors": (), "anchors": (), "thresholds": {"low": 0.1, "high": 0.5, "new": 0.6}}
    return head_of("door", str(os.getpid()), {}, {}, classes=names, width=width, height=height, **more)


def work(folder: Path, told: int, block_s: float) -> None:
    """Until killed: hand over frames, and say how many."""
    store = TrackStore(TrackStoreSettings(block_s=block_s), folder)
    log = store.log_of("door", StreamFacts(head, lambda: Stand({}, "streaming", "", ())))
    threading.Thread(target=store.run, args=(threading.Event(),), daemon=True).start()
    image = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (360, 640, 3))
    chance, number = np.random.default_rng(os.getpid()), 0
    while True:
        low = chance.uniform(0, 300, (5, 2)).astype(np.float32)
        found = Detections(np.concatenate([low, low + 40], 1), np.full(5, 0.9, np.float32), np.zeros(5, np.int32))
        speed = np.zeros((5, 2), np.float32)
        ids, order = np.arange(1, 6), np.arange(5, dtype=np.int32)
        tracks = Tracks(ids, found.xyxy, found.score, found.class_id, found.score, speed, order)
        frame = Frame("door", 0, number, time.monotonic_ns(), None, image)
        log.add(frame, found, log.rounded(tracks, frame))
        number += 1
        os.write(told, number.to_bytes(8, "little"))
        time.sleep(1 / FPS)


def one_kill(folder: Path, wait_s: float, block_s: float) -> tuple[str, int]:
    """The run's name, and how many frames it had handed over."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        work(folder, writer, block_s)
    os.close(writer)
    time.sleep(wait_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as rest:
        said = rest.read()
    return str(child), int.from_bytes(said[-8:], "little")


def main() -> None:
    rounds, seed, folder, block_s = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    chance, worst_s, total, num_cut = random.Random(seed), 0.0, 0, 0
    for _ in range(rounds):
        run, handed_over = one_kill(folder, chance.uniform(0.1, 0.6 + 4 * block_s), block_s)
        reader = Reader(folder)
        kept = [block.seq for found, block in reader.blocks("door") if found.run == run] if reader.streams() else []
        numbers = np.concatenate(kept).tolist() if kept else []
        assert numbers == list(range(len(numbers))), "a frame in the middle is missing"
        worst_s = max(worst_s, (handed_over - len(numbers)) / FPS)
        total += len(numbers)
    for path in parts_in(folder / "door"):
        part = Part(path)
        list(part.blocks())
        num_cut += part.is_cut
    assert worst_s <= block_s + POLL_S + SLACK_S, f"{worst_s:.2f} s are missing"
    print(f"{rounds} kills, {total} frames kept, {num_cut} parts cut, at most {worst_s:.2f} s missing")


if __name__ == "__main__":
    main()
