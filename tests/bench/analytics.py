"""What analytics costs per frame. Run: python tests/bench/analytics.py"""

from __future__ import annotations

import time

import numpy as np

from edge.analytics.analytics import StreamAnalytics
from edge.config.analytics import AnalyticsSettings, HeatmapSettings, LineSettings, ZoneSettings
from edge.types import Tracks

FRAMES, FPS = 600, 30


def analytics_with(num: int, heat: bool) -> StreamAnalytics:
    """``num`` lines and as many zones that watch everything."""
    lines = [LineSettings(name=f"{i}", points_px=((200 + i * 100, 100), (300 + i * 150, 600))) for i in range(num)]
    zones = [
        ZoneSettings(
            name=f"{i}",
            points_px=((100 + i * 200, 100), (400 + i * 200, 120), (500 + i * 150, 600), (100 + i * 200, 650)),
            loiter_s=10,
            crowd_count=5,
            stopped_s=5,
        )
        for i in range(num)
    ]
    settings = AnalyticsSettings(lines=tuple(lines), zones=tuple(zones), heatmap=HeatmapSettings() if heat else None)
    return StreamAnalytics(settings, stream="bench", classes=("person",), width=1280, height=720)


def frames_of(num: int) -> list[Tracks]:
    """Tracks that walk about at 40 px/s with 1 px of jitter and turn at the borders."""
    rng = np.random.default_rng(0)
    feet, velocity = rng.uniform((50, 150), (1200, 700), (num, 2)), rng.normal(0, 40, (num, 2))
    frames = []
    for _ in range(FRAMES):
        feet = feet + velocity / FPS
        velocity = np.where((feet < (50, 150)) | (feet > (1200, 700)), -velocity, velocity)
        seen = feet + rng.normal(0, 1, feet.shape)
        box = np.concatenate([seen - (20, 100), seen - (-20, 0)], 1).astype(np.float32)
        order = np.arange(num)
        ones = np.ones(num, np.float32)
        frames.append(
            Tracks(order, box, ones, np.zeros(num, np.int32), ones, velocity.astype(np.float32), order.astype(np.int32))
        )
    return frames


def main() -> None:
    """Print a table: median and 90th percentile of the thread's CPU milliseconds."""
    print("| tracks | lines + zones | heat map | median CPU ms | p90 CPU ms | events/s |\n|---|---|---|---|---|---|")
    for num, parts, heat in (
        (0, 2, False),
        (20, 2, False),
        (20, 4, False),
        (20, 4, True),
        (200, 4, False),
        (1000, 4, False),
    ):
        analytics, took, events = analytics_with(parts, heat), [], 0
        for number, tracks in enumerate(frames_of(num)):
            start = time.thread_time()
            events += len(analytics.update(tracks, number * 1_000_000_000 // FPS))
            took.append((time.thread_time() - start) * 1e3)
        median, p90 = np.quantile(took, (0.5, 0.9))
        rate = events * FPS / FRAMES
        print(
            f"| {num} | {parts} + {parts} | {'yes' if heat else 'no'} | {median:.3f} | {p90:.3f} | {rate:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
