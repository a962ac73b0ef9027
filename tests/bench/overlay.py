"""Time of the overlay per picture: 20 tracks, a zone and a line. Arguments: [WIDTH HEIGHT [OBJECTS]] [PROFILE]."""

from __future__ import annotations

import cProfile
import pstats
import sys
import time
from dataclasses import dataclass

import cv2
import numpy as np

from edge.overlay import Overlay, StreamState
from edge.types import Detections, Float32, Frame, Result, Tracks

WARM_UP, NUM_FRAMES, FPS = 80, 400, 30


@dataclass(frozen=True)
class Drawn:
    kind: str
    name: str
    points: Float32
    text: str


def result(number: int, width: int, height: int, num_objects: int) -> Result:
    """People of 40 to 110 pixels at 720p who walk in circles, and cars."""
    image = np.full((height, width, 3), 90, np.uint8)
    unit = height / 720
    index = np.arange(num_objects)
    angle = number / 40 + index
    x = (0.08 + 0.84 * (index % 5) / 4) * width + 60 * unit * np.cos(angle)
    y = (0.2 + 0.6 * (index // 5) / max(1, (num_objects - 1) // 5)) * height + 40 * unit * np.sin(angle)
    half = np.stack([(20 + 3 * index) * unit, (45 + 3 * index) * unit], axis=1) / 1.6
    centre = np.stack([x, y], axis=1)
    xyxy = np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
    score = (0.5 + 0.02 * ((index + number) % 20)).astype(np.float32)
    class_id = (index % 3).astype(np.int32)
    zeros = np.zeros(num_objects, np.float32)
    rows = np.arange(num_objects, dtype=np.int32)
    tracks = Tracks(index.astype(np.int64), xyxy, score, class_id, zeros, np.zeros((num_objects, 2), np.float32), rows)
    frame = Frame("door", 0, number, 0, number * 1_000_000_000 // FPS, image)
    return Result(frame, Detections(xyxy, score, class_id), tracks)


def main() -> None:
    """Print the times; with PROFILE as last argument also where they go."""
    numbers = [int(value) for value in sys.argv[1:] if value.isdigit()]
    width, height, num_objects = (*numbers, *(1280, 720, 20)[len(numbers) :])
    cv2.setNumThreads(1)
    zone = np.array([[0.1, 0.5], [0.4, 0.45], [0.5, 0.9], [0.12, 0.95]], np.float32) * (width, height)
    line = np.array([[0.6, 0.3], [0.9, 0.8]], np.float32) * (width, height)
    shapes = [
        Drawn("zone", "yard", zone.astype(np.float32), "3"),
        Drawn("line", "gate", line.astype(np.float32), "in 4"),
    ]
    overlay = Overlay(("person", "bicycle", "car"), shapes=shapes)  # type: ignore[arg-type]
    profile = cProfile.Profile() if "PROFILE" in sys.argv else None
    wall, cpu = [], []
    for number in range(WARM_UP + NUM_FRAMES):
        one = result(number, width, height, num_objects)
        if number == WARM_UP and profile is not None:
            profile.enable()
        started, started_cpu = time.perf_counter(), time.thread_time()
        overlay.draw(one, StreamState("live", 25.0 + number % 7 / 10, 40.0 + number % 13))
        cpu.append(time.thread_time() - started_cpu)
        wall.append(time.perf_counter() - started)
    if profile is not None:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(18)
    for name, times in (("wall", wall), ("CPU", cpu)):
        low, median, high = np.percentile(np.array(times[WARM_UP:]) * 1e3, (1, 50, 99))
        words = f"median {median:.2f} ms, p99 {high:.2f} ms, p1 {low:.2f} ms"
        print(f"{width}x{height}, {num_objects} objects, {name}: {words}")


if __name__ == "__main__":
    main()
