"""Short films of one person who walks over a line, through tracker, rules and store, with a fault built in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.config.recording import TrackStoreSettings
from edge.config.schema import StreamSettings
from edge.metrics.clock import WallClock
from edge.pipeline.analysis import StreamAnalysis
from edge.trackers.settings import TrackerSettings
from edge.trackers.tracker import MotionTracker
from edge.trackstore.parts import Head
from edge.trackstore.read import Reader
from edge.trackstore.store import Stand, StreamFacts, TrackStore, head_of
from edge.types import Detections, Frame

FPS = 10
STEP_NS = 1_000_000_000 // FPS
# the wall clock at the monotonic clock's zero
BEGUN_NS = 1_795_000_000_000_000_000
SCORE, FLOOR = 0.5, 0.1
STREAMING = Stand({}, "streaming", "", ())


@dataclass(frozen=True, slots=True)
class Walk:
    """What the model said of each frame of a walk from left to right, and when the feet pass the line.

    Attributes:
        x: of the line. floor: of the feet. height: of the person. at: number of the frame.
        slow: heights per second that are just too slow for how the person stops or walks beyond the line.
    """

    found: Sequence[Detections]
    size: tuple[int, int]
    classes: tuple[str, ...]
    x: float
    floor: float
    height: float
    at: int
    slow: float

    @property
    def at_ns(self) -> int:
        """The wall clock at the crossing."""
        return BEGUN_NS + self.at * STEP_NS


@dataclass(slots=True)
class Fault:
    """What is wrong in a film.

    Attributes:
        settings: keys of the stream. line, zone: keys of the rule; a zone replaces the line.
        change: makes other detections of a frame; None takes the frame away.
        stand: how the stream stands, from the second before the crossing on. counts: what is counted per second then.
        question: asked instead of for the line at the crossing. lost: frames that found no room.
        away: numbers of the frames in which the camera was turned away.
        shift_s: the moment asked for, next to the crossing. length_s: of the film after the crossing.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    line: Mapping[str, Any] = field(default_factory=dict)
    zone: Mapping[str, Any] | None = None
    change: Callable[[Walk, int, Detections], Detections | None] = lambda walk, number, found: found
    stand: Stand = STREAMING
    counts: Mapping[str, int] = field(default_factory=dict)
    kind: str = ""
    part: str = "gate"
    lost: int = 0
    away: range = range(0)
    shift_s: float = 0.0


def synthetic() -> Walk:
    """A person of 30 x 80 px who walks 5 px per frame, with a little noise, and nobody else."""
    chance, found = np.random.default_rng(4), []
    for number in range(110):
        low = np.array([60 + 5 * number, 150]) + chance.normal(0, 0.4, 2)
        box = np.concatenate([low, low + np.array([30, 80])])[None].astype(np.float32)
        found.append(Detections(box, np.array([0.9], np.float32), np.zeros(1, np.int32)))
    return Walk(found, (640, 360), ("person", "car"), 325, 230, 80, 50, 0.3)


def real(clips: Path) -> Walk:
    """A person who walks through a room, seen by YOLOX-nano."""
    import edge

    video, found = cv2.VideoCapture(str(clips / "videos" / "intel-one-by-one-person.mp4")), []
    video.set(cv2.CAP_PROP_POS_FRAMES, 735)
    with edge.open_model(clips / "models" / "yolox_nano_416.onnx") as model:
        for _ in range(100):
            _, image = video.read()
            predicted = model.predict([image])[0]
            assert isinstance(predicted, Detections)
            walker = predicted.score == predicted.score.max(initial=0) if len(predicted) else predicted.score > 1
            found.append(predicted[walker & (predicted.xyxy[:, 3] > 300)])
        classes = tuple(model.manifest.classes)
    feet = [(float(one.xyxy[0, [0, 2]].mean()), one.xyxy[0]) if len(one) else (0.0, np.zeros(4)) for one in found]
    at = next(number for number, (x, _) in enumerate(feet) if x > 400)
    box = feet[at][1]
    return Walk(found, (768, 432), classes, 400, float(box[3]), float(box[3] - box[1]), at, 0.001)


def settings_of(walk: Walk, fault: Fault) -> StreamSettings:
    width, height = walk.size
    line = {"name": "gate", "points_px": [[walk.x, 2], [walk.x, height - 2]], **fault.line}
    zone = {
        "name": "gate",
        "points_px": [[walk.x, 10], [width - 10, 10], [width - 10, height], [walk.x, height]],
        **(fault.zone or {}),
    }
    drawn = {"lines": [line]} if fault.zone is None else {"zones": [zone]}
    return StreamSettings.model_validate({"name": "door", "source": "0", "analytics": drawn, **fault.settings})


def film(folder: Path, walk: Walk, fault: Fault) -> Reader:
    """Run the walk with its fault; gives what the store kept of it."""
    settings, now = settings_of(walk, fault), [0]
    tracker = TrackerSettings.for_scores(SCORE, FLOOR)
    thresholds = {"low": FLOOR, "high": SCORE, "new": tracker.score_new}
    counts: dict[str, int] = {}

    def head(width: int, height: int) -> Head:
        return head_of(
            "door",
            "run",
            {"name": "m", "sha256": ""},
            settings.model_dump(mode="json", exclude_none=True),
            classes=walk.classes,
            model_anchors=(),
            anchors=(),
            width=width,
            height=height,
            thresholds={**thresholds, "model_score": SCORE, "model_track_score": FLOOR},
        )

    def stand() -> Stand:
        is_late = now[0] >= (walk.at - 12) * STEP_NS
        found = fault.stand if is_late else STREAMING
        broken = {"analytics": analysis.fault} if analysis.fault else {}
        return replace(found, counts=dict(counts), faults={**found.faults, **broken})

    clock = WallClock(BEGUN_NS, now_ns=lambda: now[0])
    store = TrackStore(TrackStoreSettings(), folder, clock)
    log = store.log_of("door", StreamFacts(head, stand))
    analysis = StreamAnalysis("door", walk.classes, tracker=MotionTracker(tracker), settings=settings.analytics)
    analysis.log = analysis.rounding = log
    from edge.analytics.schedule import utc

    analysis.clock = lambda _: utc(analysis.captured_ns + log.offset_ns)
    image = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (walk.size[1], walk.size[0], 3))
    for number, found in enumerate(walk.found):
        now[0] = number * STEP_NS
        counts["captured"] = counts.get("captured", 0) + 1
        changed = fault.change(walk, number, found)
        if changed is not None:
            counts["inferred"] = counts.get("inferred", 0) + 1
            analysis.is_away = number in fault.away
            analysis.update(Frame("door", 0, number, now[0], None, image), changed, {})
        if number % FPS == FPS - 1:
            for name, count in fault.counts.items():
                counts[name] = counts.get(name, 0) + count
            log.num_lost += fault.lost
            store._round(is_flush=True)
    store.close()
    store.run(threading.Event())
    return Reader(folder)
