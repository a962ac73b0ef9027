"""What the second stage and looks cost the thread of the frames: python tests/bench/second_stage.py"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from edge.config.analytics import SecondStageSettings
from edge.model import Model, open_model
from edge.second_stage.classifier import CropClassifier
from edge.trackers.appearance import CropEmbedder
from edge.trackers.tracker import MotionTracker
from edge.types import Detections, Frame, Prediction, Tracks, UInt8

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import colour_classifier, colour_embedder

FRAMES, FPS, WIDTH, HEIGHT = 300, 30, 1280, 720
PICTURE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH + 2 * FRAMES, 3), np.uint8), (5, 5), 0
)


def walk(num: int) -> list[Detections]:
    """Objects that walk to and fro at 60 px/s with 1 px of jitter, and pass each other."""
    rng = np.random.default_rng(num)
    place, speed = rng.uniform((50, 50), (1150, 500), (num, 2)), rng.normal(0, 60, (num, 2))
    size = rng.uniform((40, 90), (80, 180), (num, 2))
    frames = []
    for _ in range(FRAMES):
        place = place + speed / FPS
        speed = np.where((place < (20, 20)) | (place > (1180, 520)), -speed, speed)
        low = place + rng.normal(0, 1, (num, 2))
        corners = np.concatenate((low, low + size), axis=1).astype(np.float32)
        frames.append(Detections(corners, np.full(num, 0.9, np.float32), np.zeros(num, np.int32)))
    return frames


def frame(number: int) -> Frame:
    """A camera that pans by 2 pixels per frame."""
    return Frame("door", 0, number, number * 10**9 // FPS, None, PICTURE[:, 2 * number : 2 * number + WIDTH])


def timed(name: str, num: int, step: Callable[[Frame, Detections], object]) -> None:
    """Prints median and 99th percentile of the thread's CPU milliseconds per frame, after 20 frames."""
    spent = []
    for number, detections in enumerate(walk(num)):
        given = frame(number)
        started_s = time.thread_time()
        step(given, detections)
        spent.append(1e3 * (time.thread_time() - started_s))
    print(
        f"{name:34} {num:4} objects: {np.median(spent[20:]):.3f} / {np.percentile(spent[20:], 99):.3f} ms", flush=True
    )


def as_tracks(detections: Detections) -> Tracks:
    num = len(detections)
    numbers = np.arange(num, dtype=np.int32)
    zero = np.zeros(num, np.float32)
    return Tracks(
        numbers.astype(np.int64) + 1,
        detections.xyxy,
        detections.score,
        detections.class_id,
        zero,
        np.zeros((num, 2), np.float32),
        numbers,
    )


def main() -> None:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        colour, looks = (
            make(Path(folder) / f"{make.__name__}.onnx", size=64) for make in (colour_classifier, colour_embedder)
        )
        for num in (5, 20, 50):
            classifier = CropClassifier("colour", open_model(colour, threads=1))
            view = classifier.view("door", ("person",), SecondStageSettings(model="colour"), is_waiting=False)
            timed("second stage, camera", num, lambda given, found, label=view.label: label(given, as_tracks(found)))
            plain = MotionTracker()
            timed("tracker", num, lambda given, found, t=plain: t.update(found, given.time_ns))
            model, crops = open_model(looks, threads=1), [0]

            def predict(images: Sequence[UInt8], model: Model = model, crops: list[int] = crops) -> list[Prediction]:
                crops[0] += len(images)
                return model.predict(images)

            embedder, seeing = CropEmbedder(predict), MotionTracker()
            timed(
                "tracker with looks",
                num,
                lambda given, found, t=seeing, e=embedder: t.update(
                    found, given.time_ns, None, e.embedder_for(given, found.xyxy)
                ),
            )
            print(f"{'':34} {crops[0] / FRAMES:.2f} crops per frame")


if __name__ == "__main__":
    main()
