"""Hours of several streams through tracker, rules and store: without a change what-if says the same, byte for byte."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from unit.trackstore.scenes import CLASSES, facts, frames_of
from unit.trackstore.test_evaluate import rules

from edge.config.analytics import AnalyticsSettings
from edge.config.recording import TrackStoreSettings
from edge.pipeline.analysis import StreamAnalysis
from edge.trackers.tracker import MotionTracker
from edge.trackstore.evaluate import Found, evaluate, reported
from edge.trackstore.read import Reader
from edge.trackstore.store import TrackStore
from edge.types import Detections

FPS = 10


class Filmed:
    """A stream whose frames go through tracker and rules into the store, and what was said."""

    def __init__(self, store: TrackStore, name: str, seed: int, count: int, settings: AnalyticsSettings) -> None:
        self.analysis = StreamAnalysis(name, CLASSES, tracker=MotionTracker(), settings=settings)
        self.log = self.analysis.log = self.analysis.rounding = store.log_of(name, facts(name=name))
        self.frames = frames_of(seed, count)
        self.told: list[str] = []

    def step(self) -> bool:
        pair = next(self.frames, None)
        if pair is None:
            return False
        frame, found, _ = pair
        # what the model says lies on no grid
        shifted = found.xyxy + np.random.default_rng(frame.seq).normal(0, 0.3, found.xyxy.shape).astype(np.float32)
        result = self.analysis.update(frame, Detections(shifted, found.score, found.class_id), {})
        self.told += [as_text(event.kind, event.time_ns, event.track_id, dict(event.data)) for event in result.events]
        return True


def as_text(kind: str, time_ns: int, track_id: int | None, data: object) -> str:
    return json.dumps([kind, time_ns, track_id, data])


def texts(found: list[Found]) -> list[str]:
    return [as_text(one.event.kind, one.event.time_ns, one.event.track_id, dict(one.event.data)) for one in found]


@pytest.mark.parametrize(
    ("streams", "seconds"), [(2, 120), pytest.param(4, 7200, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_what_if_without_a_change_equals_the_live_events(streams: int, seconds: int, tmp_path: Path) -> None:
    store = TrackStore(TrackStoreSettings(block_s=0.5), tmp_path)
    writing = threading.Thread(target=store.run, args=(threading.Event(),))
    writing.start()
    films = [Filmed(store, f"camera-{n}", n, seconds * FPS, rules()) for n in range(streams)]
    for _ in range(seconds * FPS):
        assert [film.step() for film in films] == [True] * streams
        if films[0].log.num_waiting > 2000:
            assert store.flush(30)
    store.close()
    writing.join(60)
    assert store.stats()["lost"] == 0
    reader = Reader(tmp_path)
    for number, film in enumerate(films):
        name = f"camera-{number}"
        live = "\n".join(film.told).encode()
        later = "\n".join(texts(list(evaluate(reader.blocks(name, with_candidates=False), rules())))).encode()
        kept = "\n".join(texts(list(reported(reader.blocks(name, with_candidates=False))))).encode()
        assert live == later == kept
        assert len(film.told) > seconds / 60
