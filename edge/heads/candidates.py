"""What the detection heads share: choosing candidates and suppressing doubles. A anchors, C classes, K kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edge.boxes import nms_per_class
from edge.errors import EngineError
from edge.masks import Masks, masks_of_maps
from edge.models.manifest import Manifest
from edge.types import Array, Detections, Float32, Int32, Int64, Letterbox

MAX_CANDIDATES = 1000
# rounding of half precision
MAX_SCORE = 1.002


def best_class(scores: Float32, threshold: float) -> tuple[Int64, Int32, Float32]:
    """The best class of each anchor.

    Args:
        scores: (A, C).
        threshold: least score.

    Returns:
        (K,) anchors, their (K,) classes and (K,) scores; the best ``MAX_CANDIDATES`` of them.
    """
    class_id = scores.argmax(1)
    score = scores[np.arange(len(scores)), class_id]
    anchor = np.flatnonzero(score >= threshold)
    return _best(anchor, class_id[anchor], score[anchor])


def every_class(scores: Float32, threshold: float, most: int = MAX_CANDIDATES) -> tuple[Int64, Int32, Float32]:
    """As ``best_class``, but an anchor may stand for several classes, as in models with one sigmoid per class.

    Args:
        scores: (A, C).
        threshold: least score.
        most: the best so many are kept, at most ``MAX_CANDIDATES``.
    """
    anchor, class_id = np.nonzero(scores >= threshold)
    return _best(anchor, class_id, scores[anchor, class_id], min(most, MAX_CANDIDATES))


def _best(anchor: Array, class_id: Array, score: Float32, most: int = MAX_CANDIDATES) -> tuple[Int64, Int32, Float32]:
    if len(score) > most:
        keep = np.argpartition(-score, most)[:most]
        keep.sort()
        anchor, class_id, score = anchor[keep], class_id[keep], score[keep]
    return (
        anchor.astype(np.int64, copy=False),
        class_id.astype(np.int32, copy=False),
        score.astype(np.float32, copy=False),
    )


def detections(
    xyxy: Float32,
    score: Float32,
    class_id: Int32,
    box: Letterbox,
    manifest: Manifest,
    maps: Array | None = None,
    points: Array | None = None,
) -> Detections:
    """Suppress doubles and map model pixels to frame pixels; boxes that are empty in the frame are dropped.

    Args:
        xyxy, score, class_id: of K candidates.
        box: how the frame was fitted in.
        manifest: of the model.
        maps: (K, h, w) of each candidate, above zero where it is; they cover the model's input.
        points: (K, P, 2 or 3) key points of each candidate in model pixels, with a score where there are three numbers.

    Raises:
        EngineError: a score above 1, so the head does not read what the model gives.
    """
    if len(score) == 0:
        return Detections.empty()
    if not float(score.max()) <= MAX_SCORE:
        raise EngineError(
            f"{manifest.name}: scores go from {score.min():.4g} to {score.max():.4g}, expected 0 to 1; head "
            f"{manifest.head!r} reads this model wrongly; run: edge inspect MODEL"
        )
    if manifest.needs_nms:
        kept = nms_per_class(xyxy, score, class_id, manifest.thresholds.iou)
        xyxy, score, class_id = xyxy[kept], score[kept], class_id[kept]
        maps = None if maps is None else maps[kept]
        points = None if points is None else points[kept]
    placed = box.to_frame(xyxy)
    real = (placed[:, 2] > placed[:, 0]) & (placed[:, 3] > placed[:, 1])
    found = Detections(placed, np.minimum(score, np.float32(1)), class_id)
    found = found if real.all() else found[real]
    if maps is not None:
        found = replace(found, masks=_masks(maps[real], box))
    return found if points is None else replace(found, keypoints=keypoints_of(points[real], box))


def keypoints_of(given: Array, box: Letterbox) -> Float32:
    """(K, P, 3) key points in frame pixels of (K, P, 2 or 3) in model pixels.

    Points beyond the frame's edges are set on them, and one that is no number is not seen. A missing score is 1.
    """
    points = np.ones((*given.shape[:2], 3), np.float32)
    limit = np.array([box.frame_width, box.frame_height], np.float32)
    points[..., :2] = np.clip(box.points_to_frame(given[..., :2].astype(np.float32)), 0, limit)
    if given.shape[2] == 3:
        points[..., 2] = np.clip(given[..., 2], 0, 1)
    points[~np.isfinite(points).all(axis=2)] = 0
    return points


def _masks(maps: Array, box: Letterbox) -> Masks:
    """Masks of objects with a map of their own; copied, for the engine may overwrite its outputs."""
    across, down = maps.shape[2] / box.model_width, maps.shape[1] / box.model_height
    scale, shift = (box.scale_x * across, box.scale_y * down), (box.pad_x * across, box.pad_y * down)
    return masks_of_maps(np.array(maps, np.float32), scale, shift, (box.frame_width, box.frame_height))


def grid_centres(width: int, height: int, strides: tuple[int, ...]) -> tuple[Float32, Float32]:
    """Cells of the feature maps, row by row, stride after stride.

    Returns:
        (A, 2) cell corners in cells (x, y) and (A,) strides in pixels.
    """
    cells, sizes = [], []
    for stride in strides:
        columns, rows = -(-width // stride), -(-height // stride)
        y, x = np.mgrid[:rows, :columns]
        cells.append(np.stack([x, y], -1).reshape(-1, 2))
        sizes.append(np.full(rows * columns, stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(sizes).astype(np.float32)


def corners(centre_size: Float32) -> Float32:
    """(K, 4) ``cx cy w h`` to ``x1 y1 x2 y2``."""
    half = centre_size[:, 2:] * np.float32(0.5)
    return np.concatenate([centre_size[:, :2] - half, centre_size[:, :2] + half], 1)


def output_of(outputs: Mapping[str, Array], manifest: Manifest, role: str = "main") -> Array:
    """The output that plays a role: the one that the manifest names, else the one called so, else the first."""
    name = manifest.reading.names.get(role, role)
    return outputs[name] if name in outputs else next(iter(outputs.values()))


def boxes_of(values: Float32, columns: str, manifest: Manifest, unit: str) -> Float32:
    """(K, 4) ``x1 y1 x2 y2`` in model pixels from (K, M) numbers.

    Args:
        values: numbers of each box.
        columns: what they are, see ``OutputSpec.columns``; corners, or a centre and a size.
        unit: ``pixels``, or ``share`` of the input's sides.
    """
    place = columns.split()
    wanted = ("x1", "y1", "x2", "y2") if "x1" in place else ("cx", "cy", "w", "h")
    first = place.index(wanted[0])
    if tuple(place[first : first + 4]) == wanted:
        boxes = values[:, first : first + 4].astype(np.float32, copy=False)
    else:
        boxes = values[:, [place.index(name) for name in wanted]].astype(np.float32)
    if "x1" not in place:
        boxes = corners(boxes)
    if unit == "share":
        boxes = boxes * np.array([manifest.input.width, manifest.input.height] * 2, np.float32)
    return boxes


def activated(values: Array, activation: str) -> Float32:
    """Scores (…, C) of values, in float32."""
    numbers = values.astype(np.float32, copy=False)
    if activation == "sigmoid":
        # the exponential of a large number is infinite, and its reciprocal the right zero
        with np.errstate(over="ignore"):
            scores: Float32 = np.reciprocal(1 + np.exp(-numbers))
        return scores
    if activation == "softmax":
        weights = np.exp(numbers - numbers.max(-1, keepdims=True))
        softmax: Float32 = weights / weights.sum(-1, keepdims=True)
        return softmax
    return numbers
