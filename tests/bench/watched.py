"""What a camera costs that nobody watches, that the page watches, and that is watched with annotated pictures.

    python tests/bench/watched.py CLIP [--frames 200] [--rounds 5] [--objects 12]

Processor time of the output's side alone (line, drawing, resizing, JPEG) per frame, the kinds one after the other in
each round; the clip's frames are decoded before, with boxes of as many objects as asked for.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import av
import cv2
import numpy as np

from edge.overlay import Overlay, StreamState
from edge.pictures.frames import planes_of
from edge.pictures.planes import Planes
from edge.server.board import LiveBoard
from edge.sinks.live import LiveSink
from edge.types import Detections, Frame, Result, Tracks, UInt8

CLASSES = ("person", "car")
KEPT = 40
KINDS = {
    "nobody watches": None,
    "annotated (MJPEG, snapshots, the page before)": 0,
    "the page, a card of 320 px": 320,
    "the page, a card of 640 px": 640,
    "the page, one camera of 1280 px": 1280,
}


def frames_of(clip: str) -> list[Planes]:
    with av.open(clip) as container:
        return [planes_of(frame).copy() for frame, _ in zip(container.decode(video=0), range(KEPT), strict=False)]


def result_of(planes: Planes, number: int, num_objects: int) -> Result:
    random = np.random.default_rng(number // 5)
    corner = random.random((num_objects, 2)) * (planes.width - 120, planes.height - 200)
    xyxy = np.concatenate([corner, corner + np.array([80, 170])], 1).astype(np.float32)
    score, class_id = np.full(num_objects, 0.8, np.float32), np.arange(num_objects, dtype=np.int32) % 2
    tracks = Tracks(
        np.arange(num_objects, dtype=np.int64),
        xyxy,
        score,
        class_id,
        np.ones(num_objects, np.float32),
        np.zeros((num_objects, 2), np.float32),
        np.arange(num_objects, dtype=np.int32),
    )
    frame = Frame("door", 0, number, time.monotonic_ns(), number * 40_000_000, planes=planes)
    return Result(frame, Detections(xyxy, score, class_id), tracks, ())


def spent_ms(pictures: list[Planes], width: int | None, num_frames: int, num_objects: int) -> float:
    """Milliseconds of processor time per frame."""
    board = LiveBoard()
    board.add_stream("door", {})
    sink, overlay = LiveSink(board, "door", CLASSES), Overlay(CLASSES)
    viewer = None if width is None else board.watch("door", has_pictures=True, width=width)
    spent = 0.0
    for number in range(num_frames):
        # as it comes from the decoder: nothing of it is converted yet
        planes = Planes(pictures[number % KEPT].form, pictures[number % KEPT].arrays)
        result = result_of(planes, number, num_objects)
        started = time.process_time()
        sink.write(result, drawing(overlay, result))
        if viewer is not None:
            assert board.take(viewer) is not None
        spent += time.process_time() - started
    return spent / num_frames * 1000


def drawing(overlay: Overlay, result: Result) -> Callable[[], UInt8]:
    return lambda: overlay.draw(result, StreamState("live", 25.0, 20.0))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objects", type=int, default=12)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    pictures = frames_of(chosen.clip)
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(chosen.rounds):
        for kind, width in KINDS.items():
            found[kind].append(spent_ms(pictures, width, chosen.frames, chosen.objects))
    print(f"{pictures[0].width}x{pictures[0].height}, {chosen.objects} objects, median of {chosen.rounds} rounds\n")
    print("| who watches | ms a frame |\n|---|---|")
    for kind, values in found.items():
        print(f"| {kind} | {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}) |")


if __name__ == "__main__":
    main()
