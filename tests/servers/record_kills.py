"""Kills a process that records numbered pictures, again and again, and checks the files: ROUNDS SEED FOLDER MODE."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from edge.config.recording import RecordSettings
from edge.metrics.clock import WallClock
from edge.recording.recording import RecordingFolder
from edge.recording.retention import Keep
from edge.sinks.record import RecordSink
from edge.types import Detections, Event, Frame, Result, UInt8

FPS = 25
FRAGMENT_S = 2.0
NUM_BITS = 20
BLOCK_PX = 16
WIDTH, HEIGHT = NUM_BITS // 2 * BLOCK_PX, 6 * BLOCK_PX


def numbered(number: int) -> UInt8:
    """A picture whose first two rows of blocks are the bits of its number."""
    image = np.full((HEIGHT, WIDTH, 3), (number * 7) % 200, np.uint8)
    for bit in range(NUM_BITS):
        row, column = divmod(bit, NUM_BITS // 2)
        place = np.s_[row * BLOCK_PX : (row + 1) * BLOCK_PX, column * BLOCK_PX : (column + 1) * BLOCK_PX]
        image[place] = 235 if number >> bit & 1 else 16
    return image


def number_in(frame: av.VideoFrame) -> int:
    grey = frame.to_ndarray(format="gray8")
    half = BLOCK_PX // 2
    bits = [
        int(grey[row * BLOCK_PX + half, column * BLOCK_PX + half] > 128)
        for row, column in (divmod(bit, NUM_BITS // 2) for bit in range(NUM_BITS))
    ]
    return sum(value << bit for bit, value in enumerate(bits))


def numbers_in(path: Path) -> list[int]:
    """What a file shows, frame by frame; fails if it does not open or decode to its end."""
    with av.open(str(path)) as container:
        return [number_in(frame) for frame in container.decode(video=0)]


def settings(folder: Path, mode: str) -> RecordSettings:
    return RecordSettings.model_validate(
        {"folder": folder, "mode": mode, "segment_s": 8, "fragment_s": FRAGMENT_S, "pre_roll_s": 1, "reserve_mb": 0}
    )


def result(number: int, *, has_event: bool = False) -> Result:
    events = (Event("tick", "door", number, 1),) if has_event else ()
    time_ns = number * 1_000_000_000 // FPS
    return Result(Frame("door", 0, number, time_ns, None, numbered(number)), Detections.empty(), events=events)


def work(folder: Path, mode: str, first: int, told: int) -> None:
    """Until killed: record in fast time, and say which picture was handed over."""
    clock = WallClock(1_795_000_000_000_000_000, time.monotonic_ns)
    sink = RecordSink(settings(folder, mode), "door", fps=FPS, is_lossless=True, clock=clock)
    number = first
    while True:
        picture = result(number, has_event=True)
        sink.write(picture, lambda picture=picture: picture.frame.image)  # type: ignore[misc]
        os.write(told, f"{number}\n".encode())
        number += 1


def one_kill(
    folder: Path, mode: str, first: int, num_pictures: int, wait_s: float, work: Callable[[Path, str, int, int], None]
) -> int:
    """Kill after so many pictures and a moment; gives the last picture that had been handed over."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        work(folder, mode, first, writer)
    os.close(writer)
    last = first
    with os.fdopen(reader) as said:
        while last < first + num_pictures:
            last = int(said.readline())
        time.sleep(wait_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return max([last, *(int(line) for line in said.read().split())])


def main() -> None:
    rounds, seed, folder, mode = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    chance = random.Random(seed)
    first, num_files, worst = 0, 0, 0
    seen: set[Path] = set()
    for _ in range(rounds):
        last = one_kill(folder, mode, first, chance.randrange(1, 300), chance.uniform(0.0, 0.02), work)
        recovered = RecordingFolder(folder / "door", Keep())
        recovered.close()
        assert not list((folder / "door").glob(".*.part")), "something unfinished is left"
        files = set((folder / "door").glob("*.mp4")) - seen
        assert {entry.file for entry in recovered.index.entries} == {path.name for path in seen | files}
        found = [number for path in files for number in check(path)]
        # clips that follow each other overlap by the pre-roll, segments never do
        shown = sorted(set(found) if mode == "events" else found)
        # the first fragment is written with the second key picture
        if shown:
            assert shown == list(range(first, shown[-1] + 1)), "a picture is missing inside"
        worst = max(worst, last - (shown[-1] if shown else first - 1))
        seen |= files
        num_files += len(files)
        first = last + 1
    assert worst <= FRAGMENT_S * FPS, f"{worst / FPS:.2f} s were lost, at most {FRAGMENT_S} s are promised"
    print(f"{rounds} kills, {num_files} files, {first} pictures, at most {worst / FPS:.2f} s lost")


def check(path: Path) -> list[int]:
    numbers = numbers_in(path)
    assert numbers, f"{path.name} is empty"
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), f"{path.name} has a gap"
    return numbers


if __name__ == "__main__":
    main()
