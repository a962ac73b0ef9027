"""What a frame costs next to its engine: letterbox, head, tracks and JSONL of a clip, in processor time of one thread.

    python tests/bench/own_cost.py MODEL.onnx CLIP.mp4 [--engine] [--frames 300]

The stages run one after the other, frame by frame, on the planes of the decoder and on outputs of the model. With
``--engine`` the model runs before each frame's head, as in the loop, so that its stages find cold caches; without, its
outputs are known from a first round. The digest of the lines tells whether a change of ours changed a result.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import av
import cv2
import numpy as np

from edge.config.analytics import AnalyticsSettings
from edge.engines.ort import OrtEngine
from edge.heads.choose import open_head
from edge.metrics.clock import WallClock
from edge.model import find_manifest
from edge.models.preprocess import Preprocessor, fit
from edge.pictures.frames import planes_of
from edge.pictures.planes import Planes
from edge.pipeline.analysis import StreamAnalysis
from edge.result_json import ResultEncoder
from edge.trackers.choose import open_tracker
from edge.trackers.settings import TrackerSettings
from edge.types import Array, Frame

FPS = 30
Value = TypeVar("Value")


class Stages:
    """Microseconds of each stage, frame by frame."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def time(self, name: str, work: Callable[..., Value], *given: object) -> Value:
        began_ns = time.thread_time_ns()
        value = work(*given)
        self.spent.setdefault(name, []).append((time.thread_time_ns() - began_ns) / 1e3)
        return value


def pictures(clip: Path, count: int) -> Iterator[Planes]:
    with av.open(str(clip)) as container:
        yield from map(planes_of, itertools.islice(container.decode(video=0), count))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--engine", action="store_true")
    parser.add_argument("--frames", type=int, default=300)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    manifest = find_manifest(chosen.model)
    engine = OrtEngine(chosen.model, threads=1, max_batch=1)
    preprocessor, head = Preprocessor(manifest.input, 1), open_head(manifest)
    settings = TrackerSettings.for_scores(manifest.thresholds.score, manifest.thresholds.track_score)
    analysis = StreamAnalysis(
        "clip", manifest.classes, tracker=open_tracker(settings=settings), settings=AnalyticsSettings()
    )
    encoder = ResultEncoder(manifest.classes, clock=WallClock(0, lambda: 0))

    def run(image: Planes) -> dict[str, Array]:
        tensor, _ = preprocessor.images([image])
        return {name: values.copy() for name, values in engine.infer(tensor).items()}

    known = [] if chosen.engine else [run(image) for image in pictures(chosen.clip, chosen.frames)]
    stages, num_objects, digest = Stages(), 0, hashlib.sha256()
    for number, image in enumerate(pictures(chosen.clip, chosen.frames)):
        box = fit(*image.size, manifest.input)
        stages.time("letterbox", preprocessor.images, [image])
        outputs: Mapping[str, Array] = run(image) if chosen.engine else known[number]
        (found,) = stages.time("head", head.decode, outputs, [box])
        time_ns = number * 1_000_000_000 // FPS
        frame = Frame("clip", 0, number, time_ns, time_ns, image)
        result = stages.time("tracks", analysis.update, frame, found, {})
        digest.update(stages.time("JSONL", encoder.encode, result))
        num_objects += len(result.tracks or ())
    num = number + 1
    print(f"{num} frames, {num_objects / num:.1f} objects a frame; the lines have {digest.hexdigest()[:16]}\n")
    print("| stage | median, us | mean, us |\n|---|---|---|")
    for name, spent in stages.spent.items():
        print(f"| {name} | {np.median(spent):.0f} | {np.mean(spent):.0f} |")
    sums = np.sum(list(stages.spent.values()), axis=0)
    print(f"| all | {np.median(sums):.0f} | {np.mean(sums):.0f} |")


if __name__ == "__main__":
    main()
