"""What a tracker costs: CPU time over the number of objects, and memory while objects come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edge.interfaces import Tracker
from edge.trackers.choose import open_tracker
from edge.types import Detections

SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000)
GROWTH_FROM = 200


def crowd(num_objects: int, num_frames: int) -> list[Detections]:
    """Walkers on a canvas that grows with their number; one detection in 20 is missing, one in 50 is false."""
    rng = np.random.default_rng(num_objects)
    side = 300 * num_objects**0.5
    place, speed = rng.uniform(0, side, (num_objects, 2)), rng.normal(0, 3, (num_objects, 2))
    size = np.column_stack((rng.uniform(40, 80, num_objects), rng.uniform(90, 150, num_objects)))
    frames = []
    for _ in range(num_frames):
        speed[(place < 0) | (place > side)] *= -1
        place = place + speed
        kept = rng.random(num_objects) > 0.05
        false = rng.uniform(0, side, (rng.poisson(0.02 * num_objects), 2))
        corners = np.concatenate((place - size / 2, place + size / 2), axis=1)[kept] + rng.normal(
            0, 1.5, (kept.sum(), 4)
        )
        box = np.concatenate((corners, np.concatenate((false, false + 60), axis=1)))
        scores = np.concatenate((rng.beta(8, 2, len(corners)), rng.uniform(0.1, 0.5, len(false))))
        frames.append(Detections(box.astype(np.float32), scores.astype(np.float32), np.zeros(len(box), np.int32)))
    return frames


def cost_ms(make: Callable[[], Tracker], num_objects: int) -> tuple[float, float]:
    """Median and 99th percentile of the CPU time per frame, after 20 frames of warm-up."""
    tracker, spent = make(), []
    for k, frame in enumerate(crowd(num_objects, 200 if num_objects <= 200 else 80)):
        started = time.process_time()
        tracker.update(frame, k * 33_333_333)
        spent.append(1e3 * (time.process_time() - started))
    return float(np.median(spent[20:])), float(np.percentile(spent[20:], 99))


def growth(sizes: Sequence[int], medians_ms: Sequence[float]) -> float:
    """The exponent k of cost = objects ^ k, fitted where the objects outweigh the calls."""
    kept = [k for k, size in enumerate(sizes) if size >= GROWTH_FROM]
    slope, _ = np.polyfit(np.log([sizes[k] for k in kept]), np.log([medians_ms[k] for k in kept]), 1)
    return float(slope)


def draw_growth(costs_ms: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Median cost over the number of objects, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, pairs in costs_ms.items():
        medians = [median for median, _ in pairs]
        label = f"{name} (grows as n^{growth(SIZES, medians):.2f} from {GROWTH_FROM})"
        axes.loglog(SIZES, medians, marker="o", markersize=3, label=label)
    axes.set_xlabel("objects")
    axes.set_ylabel("CPU ms per frame (median)")
    axes.grid(which="both", alpha=0.25, linewidth=0.5)
    axes.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def run_soak(num_frames: int, num_objects: int) -> None:
    """Random births and deaths; prints resident memory as it goes."""
    import psutil

    rng = np.random.default_rng(0)
    tracker, last_id = open_tracker(), 0
    place = rng.uniform(0, 1800, (num_objects, 2))
    for k in range(num_frames):
        gone = rng.random(num_objects) < 0.02
        place[gone] = rng.uniform(0, 1800, (int(gone.sum()), 2))
        place += rng.normal(0, 2, (num_objects, 2))
        box = np.concatenate((place, place + np.array([60, 130])), axis=1).astype(np.float32)
        score_now = rng.uniform(0.5, 1, num_objects).astype(np.float32)
        tracks = tracker.update(Detections(box, score_now, np.zeros(num_objects, np.int32)), k * 33_333_333)
        last_id = max(last_id, int(tracks.track_id.max(initial=0)))
        if k % max(1, num_frames // 20) == 0:
            print(f"frame {k}: {psutil.Process().memory_info().rss / 2**20:.1f} MiB, last id {last_id}", flush=True)
