"""What the detection heads share: choosing candidates and suppressing doubles. A anchors, C classes, K kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edge.boxes import nms_per_class
from edge.compiled import built
from edge.errors import EngineError
from edge.masks import Masks, masks_of_maps
from edge.models.manifest import Manifest
from edge.types import Array, Detections, Float32, Int32, Int64, Letterbox

MAX_CANDIDATES = 1000
# rounding of half precision
MAX_SCORE = 1.002
# in C where it was built; else NumPy does the same
_compiled = built("_boxes")
_KINDS = {(np.dtype("f4"), np.dtype("f4"), np.dtype(kind)) for kind in ("f4", "i4", "i8")}


def best_class(scores: Float32, threshold: float, weights: Float32 | None = None) -> tuple[Int64, Int32, Float32]:
    """The best class of each anchor.

    Args:
        scores: (A, C), at least one class.
        threshold: least score.
        weights: (A,) in [0, 1] that the scores are multiplied by, of models with a score for "there is something".

    Returns:
        (K,) anchors, their (K,) classes and (K,) scores; the best ``MAX_CANDIDATES`` of them.
    """
    if _compiled is not None and scores.dtype == np.float32:
        found = (
            np.empty(MAX_CANDIDATES, np.int64),
            np.empty(MAX_CANDIDATES, np.int32),
            np.empty(MAX_CANDIDATES, np.float32),
        )
        num = _compiled.best_class(scores, weights, threshold, *found)
        if num >= 0:
            anchor, class_id, score = found
            return anchor[:num], class_id[:num], score[:num]
    if weights is not None:
        # an anchor's score is at most its weight, so most anchors need no look at their classes
        possible = np.flatnonzero(weights >= threshold)
        anchor, class_id, score = best_class(scores[possible] * weights[possible, None], threshold)
        return possible[anchor], class_id, score
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
    found, index = _placed(xyxy, score, class_id, box, manifest)
    if maps is not None:
        found = replace(found, masks=_masks(maps[index], box))
    return found if points is None else replace(found, keypoints=keypoints_of(points[index], box))


def _placed(
    xyxy: Float32, score: Float32, class_id: Int32, box: Letterbox, manifest: Manifest
) -> tuple[Detections, Int64]:
    """The objects in frame pixels, and which candidate each was."""
    if _compiled is not None and _is_plain(box):
        out, index = _empty(len(score))
        given = (
            np.ascontiguousarray(value, kind.dtype) for value, kind in zip((xyxy, score, class_id), out, strict=True)
        )
        num = _compiled.place(*given, _fit(box), _iou(manifest), MAX_SCORE, *out, index)
        return _first(out, num, score, manifest), index[: max(num, 0)]
    _check_range(score, manifest)
    kept = (
        nms_per_class(xyxy, score, class_id, manifest.thresholds.iou) if manifest.needs_nms else np.arange(len(score))
    )
    placed = box.to_frame(xyxy[kept])
    real = (placed[:, 2] > placed[:, 0]) & (placed[:, 3] > placed[:, 1])
    index = kept[real]
    return Detections(placed[real], np.minimum(score[index], np.float32(1)), class_id[index]), index


def listed(boxes: Array, scores: Array, labels: Array, box: Letterbox, manifest: Manifest) -> Detections | None:
    """The objects that a graph lists, in one go, None where that is not built or the arrays are of another kind.

    Args:
        boxes: (K, 4) ``x1 y1 x2 y2`` in model pixels.
        scores, labels: (K,).
        box: how the frame was fitted in.
        manifest: of the model.

    Raises:
        EngineError: a score above 1.
    """
    kinds = boxes.dtype, scores.dtype, labels.dtype
    is_whole = boxes.shape == (len(scores), 4) and scores.shape == labels.shape
    if _compiled is None or kinds not in _KINDS or not is_whole or not _is_plain(box):
        return None
    out, index = _empty(len(scores))
    boxes, scores, labels = map(np.ascontiguousarray, (boxes, scores, labels))
    limits = manifest.thresholds.track_score, manifest.reading.first_class
    num = _compiled.listed(boxes, scores, labels, *limits, _fit(box), _iou(manifest), MAX_SCORE, *out, index)
    return _first(out, num, scores, manifest)


def _empty(most: int) -> tuple[tuple[Float32, Float32, Int32], Int64]:
    """Room for so many objects, and for the candidate that each was."""
    room = np.empty((most, 4), np.float32), np.empty(most, np.float32), np.empty(most, np.int32)
    return room, np.empty(most, np.int64)


def _first(out: tuple[Float32, Float32, Int32], num: int, score: Float32, manifest: Manifest) -> Detections:
    """The first so many objects; below zero a score was too high."""
    if num < 0:
        _check_range(score, manifest)
    xyxy, scores, class_id = out
    return Detections(xyxy[:num], scores[:num], class_id[:num])


def _check_range(score: Float32, manifest: Manifest) -> None:
    if not float(score.max()) <= MAX_SCORE:
        raise EngineError(
            f"{manifest.name}: scores go from {score.min():.4g} to {score.max():.4g}, expected 0 to 1; head "
            f"{manifest.head!r} reads this model wrongly; run: edge inspect MODEL"
        )


def _is_plain(box: Letterbox) -> bool:
    """Whether C may do what ``to_frame`` does; the proof of a model looks at the boxes on their way."""
    return type(box) is Letterbox


def _fit(box: Letterbox) -> tuple[float, ...]:
    return box.pad_x, box.pad_y, box.scale_x, box.scale_y, box.frame_width, box.frame_height


def _iou(manifest: Manifest) -> float:
    """The overlap from which boxes are doubles, below zero where the graph has dropped them."""
    return manifest.thresholds.iou if manifest.needs_nms else -1.0


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
