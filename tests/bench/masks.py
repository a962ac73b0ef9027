"""What masks cost: kept and not looked at, painted, written. 20 objects at 720p, YOLO11n-seg's shapes. One thread.

Every figure is the median of the thread's processor time, so that other work on the machine does not count; the two
streams that are compared take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from edge.heads.choose import open_head
from edge.masks import mask_of
from edge.models.manifest import HeadName, InputSpec, Manifest, Thresholds
from edge.models.preprocess import fit
from edge.overlay import Overlay, StreamState, Theme
from edge.result_json import ResultEncoder
from edge.types import Array, Detections, Frame, Letterbox, Result, UInt8

WIDTH, HEIGHT, SIDE, ANCHORS, MAPS, NUM = 1280, 720, 640, 8400, 32, 20
CLASSES = tuple(f"class {number}" for number in range(80))
ROUNDS, WARM_UP = 300, 20
SPEC = InputSpec(name="x", width=SIDE, height=SIDE, layout="nchw", dtype="float32", colour="rgb")


def head_of(name: HeadName) -> Callable[[dict[str, Array]], Detections]:
    manifest = Manifest(
        name="m", task="detect", head=name, input=SPEC, classes=CLASSES, thresholds=Thresholds(track_score=0.3)
    )
    head, box = open_head(manifest), letterbox()

    def decode(outputs: dict[str, Array]) -> Detections:
        found = head.decode(outputs, [box])[0]
        assert isinstance(found, Detections)
        return found

    return decode


def letterbox() -> Letterbox:
    return fit(WIDTH, HEIGHT, SPEC)


def outputs() -> dict[str, Array]:
    """People of 40 to 110 by 90 to 250 frame pixels side by side, in rows, with smooth random masks."""
    rng = np.random.default_rng(1)
    raw = np.zeros((1, 4 + len(CLASSES) + MAPS, ANCHORS), np.float32)
    maps = rng.normal(size=(160, 160, MAPS)).astype(np.float32)
    smooth = cv2.GaussianBlur(maps, (0, 0), 4).transpose(2, 0, 1)
    smooth /= smooth.std()
    # the first map is everywhere above zero, so that most of each box belongs to its object
    smooth[0] = 2
    for number in range(NUM):
        x, y = 40 + 140 * (number % 5), 190 + 80 * (number // 5)
        raw[0, :4, 100 + number] = x * 0.85, y, rng.uniform(20, 55), rng.uniform(45, 125)
        raw[0, 4 + number % 3, 100 + number] = 0.9 - 0.01 * number
        raw[0, 4 + len(CLASSES) :, 100 + number] = (1, *rng.normal(0, 0.3, MAPS - 1))
    return {"output0": raw, "output1": smooth[None].copy()}


def median_ms(*works: Callable[[], object]) -> list[float]:
    """Processor time of each, which take turns."""
    times: list[list[float]] = [[] for _ in works]
    for number in range(WARM_UP + ROUNDS):
        for work, spent in zip(works, times, strict=True):
            started = time.thread_time()
            work()
            if number >= WARM_UP:
                spent.append(time.thread_time() - started)
    return [1e3 * float(np.median(spent)) for spent in times]


def main() -> None:
    """Print the times."""
    cv2.setNumThreads(1)
    given = outputs()
    boxes_only = {"output0": np.ascontiguousarray(given["output0"][:, : 4 + len(CLASSES)])}
    with_masks, with_boxes = head_of("yolov8-seg"), head_of("yolov8")
    found = with_masks(given)
    assert found.masks is not None and len(found) == NUM
    image: UInt8 = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    frame = Frame("door", 0, 1, 0, 0, image)
    painted, plain = Result(frame, found), Result(frame, replace(found, masks=None))
    # a head's results stay alive while they wait for output
    kept: list[Detections] = []

    def keep(decode: Callable[[dict[str, Array]], Detections], what: dict[str, Array]) -> None:
        kept.append(decode(what))
        del kept[:-4]

    heads = median_ms(lambda: keep(with_masks, given), lambda: keep(with_boxes, boxes_only))
    theme = Theme(has_status=False)
    one, other = Overlay(CLASSES, theme), Overlay(CLASSES, theme)
    state = StreamState()
    drawn = median_ms(lambda: one.draw(painted, state), lambda: other.draw(plain, state))
    encoder = ResultEncoder(CLASSES)
    feed = ResultEncoder(CLASSES, has_masks=False)
    written = median_ms(lambda: encoder.encode(painted), lambda: feed.encode(painted), lambda: encoder.encode(plain))
    share = np.mean([mask_of(found.masks, row)[0].mean() for row in range(NUM)])
    print(f"{NUM} objects at {WIDTH}x{HEIGHT}, {100 * share:.0f} % of their boxes are mask; median of {ROUNDS}, ms")
    print(
        f"head: masks {heads[0]:.2f}, boxes {heads[1]:.2f}; masks that nobody looks at cost {heads[0] - heads[1]:.2f}"
    )
    print(f"overlay: masks {drawn[0]:.2f}, boxes {drawn[1]:.2f}; painting costs {drawn[0] - drawn[1]:.2f}")
    print(f"JSONL: masks {written[0]:.2f}, left out {written[1]:.2f}, boxes {written[2]:.2f}")


if __name__ == "__main__":
    main()
