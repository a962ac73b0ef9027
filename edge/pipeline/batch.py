"""Frames of several streams through a model, in tiles where a stream asks for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from edge.model import Model
from edge.models.manifest import Manifest
from edge.models.tiles import TileGrid
from edge.pipeline.stream import Lane
from edge.types import Array, Detections, Frame, Prediction, UInt8

# the predictions of some frames, and nanoseconds per frame and stage
Inferred: TypeAlias = tuple[list[Prediction], dict[str, int]]


def run_frames(
    model: Model,
    frames: Sequence[Frame],
    lanes: Mapping[str, Lane],
    check: Callable[[Mapping[str, Array]], None] = lambda outputs: None,
) -> Inferred:
    """Run frames through a model, in several batches if there are more than it takes at once; ``check`` may raise."""
    grids = [lanes[frame.stream].tiles for frame in frames]
    views = [
        [frame.image] if grid is None else grid.cut(frame.image) for frame, grid in zip(frames, grids, strict=True)
    ]
    found, spent = _run_images(model, [image for view in views for image in view], check)
    merging_ns, parts = time.monotonic_ns(), iter(found)
    predictions: list[Prediction] = []
    for frame, grid, view in zip(frames, grids, views, strict=True):
        own = [next(parts) for _ in view]
        predictions.append(own[0] if grid is None else _merged(grid, own, frame.image, model.manifest))
    spent["head"] += time.monotonic_ns() - merging_ns
    return predictions, {stage: time_ns // len(frames) for stage, time_ns in spent.items()}


def _run_images(
    model: Model, images: Sequence[UInt8], check: Callable[[Mapping[str, Array]], None]
) -> tuple[list[Prediction], dict[str, int]]:
    """The predictions, and the nanoseconds of each stage."""
    predictions: list[Prediction] = []
    spent = {"letterbox": 0, "infer": 0, "head": 0}
    for start in range(0, len(images), model.engine.max_batch):
        started_ns = time.monotonic_ns()
        started = model.start(images[start : start + model.engine.max_batch])
        letterboxed_ns = time.monotonic_ns()
        outputs = model.finish(started)
        inferred_ns = time.monotonic_ns()
        check(outputs)
        predictions += model.head.decode(outputs, started.letterboxes)
        spent["letterbox"] += letterboxed_ns - started_ns
        spent["infer"] += inferred_ns - letterboxed_ns
        spent["head"] += time.monotonic_ns() - inferred_ns
    return predictions, spent


def _merged(grid: TileGrid, parts: Sequence[Prediction], image: UInt8, manifest: Manifest) -> Detections:
    boxes = [part for part in parts if isinstance(part, Detections)]
    return grid.merge(boxes, image.shape[1], image.shape[0], manifest.thresholds.iou)
