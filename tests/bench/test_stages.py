"""What the stages of a frame cost, against a stored baseline: a stage that became slower fails, by name.

    make bench ARGS="-k stages"                     measure, print the table, fail where a stage is over its limit
    make bench ARGS="-k stages --store-baseline"    make what was measured the new baseline

Machines differ, so costs are in units: a fixed piece of work of numpy, OpenCV and the interpreter, measured before and
after each stage. One unit is about a millisecond. Of many rounds the fastest counts, of both: what else runs on the
machine only ever adds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from edge.boxes import nms_per_class
from edge.heads.choose import open_head
from edge.models.manifest import Manifest, parse_manifest
from edge.models.preprocess import Preprocessor, fit
from edge.overlay import Overlay, StreamState
from edge.pictures.planes import Colour, PlaneForm, Planes
from edge.pipeline.latest_frames import LatestFrames
from edge.result_json import ResultEncoder
from edge.scene.street import Street
from edge.sources.isolation.ring import NUM_SLOTS, RingLimit, RingReader, RingWriter, receive, send
from edge.trackers.choose import open_tracker
from edge.types import Array, Detections, Frame, UInt8

sys.path.insert(0, str(Path(__file__).parent))
from overlay import result

pytestmark = pytest.mark.bench

BASELINE = Path(__file__).with_name("stages.json")
# three runs on one machine differed by 11 %; another machine weighs pixels against Python differently
TOLERANCE = 1.3
ROUNDS, WARM_UP = 200, 8
CLASSES = ("person", "bicycle", "car")
SIZE = (1280, 720)
Work = Callable[[], object]


def unit_of_work() -> float:
    """Many small numpy calls, plain Python, one pass over pixels. Returns something, so that it is done."""
    small, total = np.arange(64, dtype=np.float32).reshape(16, 4), 0.0
    for number in range(60):
        total += float((small * number).max())
    total += sum(number % 7 for number in range(6000))
    grey = cv2.resize(_NOISE, (320, 180), interpolation=cv2.INTER_LINEAR)
    return total + float(cv2.GaussianBlur(grey, (5, 5), 1.0)[0, 0, 0])


_NOISE = np.random.default_rng(1).integers(0, 255, (720, 1280, 3), np.uint8)


def unit_s() -> float:
    """Seconds of the unit, the fastest of many."""
    spent = []
    for _ in range(150):
        began = time.perf_counter()
        unit_of_work()
        spent.append(time.perf_counter() - began)
    return min(spent)


def manifest_of(head: str) -> Manifest:
    tree = {
        "schema": 1, "name": "bench", "task": "detect", "head": head, "classes": list(CLASSES),
        "input": {"name": "x", "width": 416, "height": 416, "layout": "nchw", "dtype": "float32", "colour": "bgr"},
    }  # fmt: skip
    return parse_manifest(json.dumps(tree), "bench")


def picture() -> UInt8:
    image: UInt8 = Street(7, *SIZE, 30, 12).render(0)[0]
    return image


def heap(num: int, seed: int) -> Detections:
    """Boxes in clumps of five, as raw detectors give them."""
    rng = np.random.default_rng(seed)
    centre = np.repeat(rng.uniform(50, 1200, (-(-num // 5), 2)), 5, axis=0)[:num] + rng.normal(0, 4, (num, 2))
    half = rng.uniform(15, 50, (num, 2))
    boxes = np.concatenate([centre - half, centre + half], 1).astype(np.float32)
    return Detections(boxes, rng.uniform(0.3, 0.9, num).astype(np.float32), rng.integers(0, 3, num).astype(np.int32))


def letterbox() -> Work:
    preprocessor, image = Preprocessor(manifest_of("yolox").input, 1), picture()
    return lambda: preprocessor.images([image])


def yolox_head() -> Work:
    head, rng = open_head(manifest_of("yolox")), np.random.default_rng(2)
    raw = np.zeros((1, 3549, 8), np.float32)
    raw[..., 2:4] = 1.0
    raw[..., 4:] = rng.uniform(0, 0.05, (1, 3549, 4))
    raw[0, rng.choice(3549, 120, replace=False), 4:6] = 0.9
    boxes = [fit(*SIZE, manifest_of("yolox").input)]
    output = {"output": raw}
    return lambda: head.decode(output, boxes)


def own_head() -> Work:
    head, found = open_head(manifest_of("edgenet")), heap(100, 3)
    boxes = [fit(*SIZE, manifest_of("edgenet").input)]
    output: dict[str, Array] = {
        "boxes": found.xyxy[None],
        "scores": found.score[None],
        "labels": found.class_id[None].astype(np.int64),
    }
    return lambda: head.decode(output, boxes)


def suppression() -> Work:
    found = heap(300, 4)
    return lambda: nms_per_class(found.xyxy, found.score, found.class_id, 0.6)


def tracker(num: int) -> Callable[[], Work]:
    def make() -> Work:
        tracking = open_tracker()
        frames = [cast(Detections, result(number, *SIZE, num).prediction) for number in range(60)]
        turn = count()

        def one() -> object:
            number = next(turn)
            return tracking.update(frames[number % 60], number * 33_000_000)

        return one

    return make


def planes(width: int, height: int) -> Planes:
    """As an H.264 camera gives them."""
    form = PlaneForm("i420", width, height, Colour("bt709"))
    small = np.random.default_rng(5).integers(16, 235, (form.num_bytes // 1000 + 1,), dtype=np.uint8)
    return form.over(np.repeat(small, 1000)[: form.num_bytes])


def letterbox_of_planes() -> Work:
    preprocessor, image = Preprocessor(manifest_of("yolox").input, 1), planes(*SIZE)
    return lambda: preprocessor.images([image])


def hand_over_of(image: Planes) -> Work:
    """Ring, socket and queue of a frame, child and parent in one thread, the copy into the ring with it."""
    ours, theirs = socket.socketpair()
    writer = RingWriter(image.form)
    reader = RingReader(os.dup(writer.fd), image.form, NUM_SLOTS, writer.release, RingLimit())
    latest = LatestFrames()
    place = latest.add("door", group="all", is_lossless=False, on_drop=lambda frame: None)
    turn = count()

    def one() -> object:
        slot, number = writer.put(image), next(turn)
        send(theirs, {"kind": "picture", "slot": slot})
        message = receive(ours)
        assert message is not None
        latest.put(place, Frame("door", 0, number, time.monotonic_ns(), None, reader.picture(message[0]["slot"])))
        return latest.take({"all": 1}, {"all": 0.0}, 1.0)

    return one


def overlay() -> Work:
    drawing = Overlay(CLASSES)
    turn, state = count(), StreamState("live", 25.0, 40.0)
    frames = [result(number, *SIZE, 20) for number in range(40)]
    return lambda: drawing.draw(frames[next(turn) % 40], state)


def jsonl() -> Work:
    encoder, one = ResultEncoder(CLASSES), result(3, *SIZE, 20)
    return lambda: encoder.encode(one)


def jpeg() -> Work:
    image = picture()
    return lambda: cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])


STAGES: dict[str, Callable[[], Work]] = {
    "letterbox of 720p to 416x416": letterbox,
    "letterbox of 720p to 416x416, planes": letterbox_of_planes,
    "head, YOLOX with 120 raw boxes": yolox_head,
    "head, our own detector": own_head,
    "NMS of 300 boxes": suppression,
    "tracker, 10 objects": tracker(10),
    "tracker, 50 objects": tracker(50),
    "hand-over of 720p": lambda: hand_over_of(Planes.of(picture())),
    "hand-over of 1080p, planes": lambda: hand_over_of(planes(1920, 1080)),
    "overlay, 20 objects on 720p": overlay,
    "JSONL, 20 objects": jsonl,
    "JPEG of 720p": jpeg,
}


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[dict[str, float]]:
    """Units per stage; printed, and stored where that was asked for, when all are measured."""
    found: dict[str, float] = {}
    yield found
    stored = json.loads(BASELINE.read_text()) if BASELINE.is_file() else {}
    print("\n\n| stage | baseline, units | now | change |\n|---|---|---|---|")
    for name, units in found.items():
        before = stored.get(name)
        change = f"{units / before - 1:+.0%}" if before else "new"
        print(f"| {name} | {before or '–'} | {units:.3f} | {change} |")
    if request.config.getoption("--store-baseline"):
        BASELINE.write_text(
            json.dumps({**stored, **{name: round(units, 3) for name, units in found.items()}}, indent=1)
        )


@pytest.mark.parametrize("name", STAGES)
def test_no_stage_became_slower(
    name: str, table: dict[str, float], benchmark: Any, request: pytest.FixtureRequest
) -> None:
    cv2.setNumThreads(1)
    work = STAGES[name]()
    before_s = unit_s()
    benchmark.pedantic(work, rounds=ROUNDS, iterations=3, warmup_rounds=WARM_UP)
    units = benchmark.stats.stats.min / min(before_s, unit_s())
    benchmark.extra_info["units"] = round(units, 3)
    table[name] = units
    if request.config.getoption("--store-baseline"):
        return
    stored = json.loads(BASELINE.read_text())
    assert name in stored, f"{name} has no baseline; make bench ARGS='-k stages --store-baseline' stores one"
    limit = stored[name] * TOLERANCE
    assert units <= limit, f"{name} takes {units:.2f} units, {units / stored[name]:.2f} times the stored {stored[name]}"
