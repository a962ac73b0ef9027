"""Streams for the tests of the track store: random walks, as an inference thread would hand them over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge.trackstore.block import Steps
from edge.trackstore.parts import Head
from edge.trackstore.rounding import near
from edge.trackstore.store import Stand, StreamFacts, head_of
from edge.types import Detections, Event, Frame, Tracks

CLASSES = ("person", "car")


def frames_of(seed: int, count: int, size: tuple[int, int] = (640, 360)) -> Iterator[tuple[Frame, Detections, Tracks]]:
    """Objects that walk, come, go and are missed, and boxes that no track takes; boxes rounded as they are stored."""
    chance = np.random.default_rng(seed)
    image = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (size[1], size[0], 3))
    steps, time_ns = Steps.of(*size), 1_000_000_000
    place, step = chance.uniform(0, 300, (6, 2)), chance.normal(0, 4, (6, 2))
    begun = chance.integers(0, max(1, count // 2), 6)
    for number in range(count):
        time_ns += 100_000_000 + int(chance.integers(-9_000_000, 9_000_000))
        step = np.where((place < 0) | (place > (size[0] - 20, size[1] - 50)), np.abs(step) * np.sign(100 - place), step)
        place = place + step + chance.normal(0, 1, (6, 2))
        here = np.flatnonzero((begun <= number) & (chance.random(6) > 0.1))
        box = near(np.concatenate([place[here], place[here] + (20, 50)], 1).astype(np.float32), steps.px)
        strange = chance.uniform(0, 200, (int(chance.integers(0, 4)), 2))
        others = np.concatenate([strange, strange + 30], 1).astype(np.float32)
        found = Detections(
            np.concatenate([box, others]),
            chance.uniform(0.1, 1, len(box) + len(others)).astype(np.float32),
            np.concatenate([here % 2, np.zeros(len(others))]).astype(np.int32),
        )
        velocity = near(step[here].astype(np.float32) * 10, steps.px_s)
        order = np.arange(len(here), dtype=np.int32)
        tracks = Tracks(
            here + 1, box, found.score[: len(here)], (here % 2).astype(np.int32), here * 0.1, velocity, order
        )
        yield Frame("door", 0, number, time_ns, None, image), found, tracks


def head(width: int = 640, height: int = 360, name: str = "door") -> Head:
    return head_of(
        name,
        "run",
        {"name": "m", "sha256": "00"},
        {"name": "door"},
        classes=CLASSES,
        model_anchors=(),
        anchors=(),
        width=width,
        height=height,
        thresholds={"low": 0.1, "high": 0.5, "new": 0.6},
    )


def facts(counts: dict[str, int] | None = None, name: str = "door") -> StreamFacts:
    return StreamFacts(
        lambda width, height: head(width, height, name), lambda: Stand(dict(counts or {}), "streaming", "", ())
    )


def crossed(frame: Frame, track_id: int) -> Event:
    return Event("line_crossed", "door", frame.time_ns, track_id, {"line": "gate", "direction": "in"})
