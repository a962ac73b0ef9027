"""Counting in the built-in scene: the counts of analytics against those of the true paths of its pedestrians."""

from __future__ import annotations

import functools
from collections import defaultdict

import numpy as np
import pytest

from edge.analytics.analytics import StreamAnalytics
from edge.config.analytics import AnalyticsSettings, LineSettings
from edge.scene.traffic import Actor, Traffic
from edge.scene.truth import CLASSES
from edge.scene.variation import SceneVariation, draw_variation
from edge.types import Float32, Tracks

PERSON = CLASSES.index("person")
SECONDS = 60
TRUTH_HZ = 30
# in box heights; the band is a tenth of the mean of width and height, so 0.07
JITTER_SHARE = 0.04
CLEAR_HEIGHTS = 0.15


def walker_box(variation: SceneVariation, actor: Actor) -> Float32 | None:
    """The box of a pedestrian of 1.7 m, None where a part of it is out of the picture."""
    camera = variation.camera
    x, y, depth = camera.point(actor.s, actor.t)
    height = camera.focal_px * 1.7 / depth
    box = np.array([x - 0.2 * height, y - height, x + 0.2 * height, y], np.float32)
    is_whole = depth > 1 and box[0] >= 0 and box[1] >= 0 and box[2] <= camera.width and box[3] <= camera.height
    return box if is_whole else None


@functools.lru_cache(maxsize=1)
def true_paths(seed: int) -> list[dict[int, Float32]]:
    """At 30 Hz: track id → box of every whole pedestrian."""
    variation = draw_variation(seed, 1280, 720, wide=False)
    traffic = Traffic(variation, 24)
    frames = []
    for number in range(SECONDS * TRUTH_HZ):
        actors = [actor for actor in traffic.at(number / TRUTH_HZ) if actor.class_id == PERSON]
        boxes = {actor.track_id: walker_box(variation, actor) for actor in actors}
        frames.append({track_id: box for track_id, box in boxes.items() if box is not None})
    return frames


def true_counts(frames: list[dict[int, Float32]], x: float) -> tuple[int, int, set[int]]:
    """How many pass a column to the left and to the right, and the ids of those who begin, end or turn next to it."""
    paths = defaultdict(list)
    for boxes in frames:
        for track_id, box in boxes.items():
            paths[track_id].append(((box[0] + box[2]) / 2 - x) / (box[3] - box[1]))
    to_left, to_right, unclear = 0, 0, set()
    for track_id, heights in paths.items():
        path = np.array(heights)
        turning = (path[0], path[-1], path.max(), path.min())
        if min(abs(value) for value in turning) < CLEAR_HEIGHTS:
            unclear.add(track_id)
            continue
        to_left += int(((path[:-1] >= 0) & (path[1:] < 0)).sum())
        to_right += int(((path[:-1] < 0) & (path[1:] >= 0)).sum())
    return to_left, to_right, unclear


@pytest.mark.parametrize(("fps", "lost"), [(30, 0.4), (10, 0.2), (2, 0.0)])
@pytest.mark.parametrize("seed", [3, 7])
def test_counts_in_the_scene_are_the_true_ones(seed: int, fps: int, lost: float) -> None:
    total = 0
    for x in (400, 640, 880):
        to_left, to_right, unclear = true_counts(true_paths(seed), x)
        # drawn downwards: the picture's left is on its right-hand side
        line = LineSettings(name="mid", points_px=((x, 0), (x, 720)), classes=("person",))
        analytics = StreamAnalytics(
            AnalyticsSettings(lines=(line,)), stream="scene", classes=CLASSES, width=1280, height=720
        )
        observe(analytics, true_paths(seed)[:: TRUTH_HZ // fps], unclear, fps, lost)
        count = analytics.counts()["lines"]["mid"]
        assert (count["in"], count["out"]) == (to_left, to_right), f"line at {x}"
        total += to_left + to_right
    assert total >= 10, "the scene has crossings to count"


def observe(
    analytics: StreamAnalytics, frames: list[dict[int, Float32]], unclear: set[int], fps: int, lost: float
) -> None:
    """Show the true boxes with jitter and drop-outs."""
    rng = np.random.default_rng(1)
    for number, boxes in enumerate(frames):
        seen = [track_id for track_id in boxes if track_id not in unclear and rng.random() >= lost]
        xyxy = np.array([boxes[track_id] for track_id in seen], np.float32).reshape(-1, 4)
        shift = rng.uniform(-1, 1, (len(seen), 2)) * JITTER_SHARE * (xyxy[:, 3:] - xyxy[:, 1:2])
        analytics.update(tracks_of(seen, xyxy + np.tile(shift, 2).astype(np.float32)), number * 1_000_000_000 // fps)
    analytics.update(Tracks.empty(), (SECONDS + 10) * 1_000_000_000)


def tracks_of(ids: list[int], xyxy: Float32) -> Tracks:
    num = len(ids)
    return Tracks(
        np.array(ids, np.int64),
        xyxy,
        np.ones(num, np.float32),
        np.full(num, PERSON, np.int32),
        np.ones(num, np.float32),
        np.zeros((num, 2), np.float32),
        np.arange(num, dtype=np.int32),
    )
