"""Arithmetic on boxes. N M objects; boxes are float32 ``x1 y1 x2 y2`` in pixels; an empty input is an ordinary case.

Oriented boxes are ``cx cy w h`` and an angle in radians, clockwise in the picture.
"""

from __future__ import annotations

import numpy as np

from edge.compiled import built, flat
from edge.types import Bool, Detections, Float32, Float64, Int32, Int64

# in C where it was built; else NumPy does the same
_compiled = built("_boxes")


def area(xyxy: Float32) -> Float32:
    """(N,) areas of (N, 4) boxes; 0 for inverted ones."""
    size = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 0)
    areas: Float32 = size[:, 0] * size[:, 1]
    return areas


def iou(a: Float32, b: Float32) -> Float32:
    """(N, M) overlap of (N, 4) and (M, 4) boxes: intersection over union, 0 where both are empty."""
    # a matrix per coordinate: a last axis of two would cost five times as much
    width = np.minimum(a[:, 2, None], b[:, 2]) - np.maximum(a[:, 0, None], b[:, 0])
    height = np.minimum(a[:, 3, None], b[:, 3]) - np.maximum(a[:, 1, None], b[:, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    union = area(a)[:, None] + area(b)[None, :] - shared
    overlap: Float32 = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def nms(xyxy: Float32, score: Float32, iou_threshold: float) -> Int64:
    """Keep the best box of each overlapping group (greedy non-maximum suppression).

    Args:
        xyxy: (N, 4) pixels.
        score: (N,) in [0, 1]; ties keep the earlier box, NaN is dropped.
        iou_threshold: overlap in [0, 1] above which the lower score is dropped.

    Returns:
        (K,) indices into the input, highest score first.
    """
    if _compiled is not None:
        kept = np.empty(len(score), np.int64)
        return kept[: _compiled.nms(flat(xyxy), flat(score), iou_threshold, kept)]
    order = np.argsort(-score, kind="stable")
    if len(order) and np.isnan(score[order[-1]]):
        order = order[~np.isnan(score[order])]
    # in single precision, as the kernel for GPUs compares
    overlaps = iou(xyxy[order], xyxy[order]) > iou_threshold
    alive = np.ones(len(order), np.bool_)
    for row in np.flatnonzero(overlaps.sum(1) > 1):
        if alive[row]:
            alive[row + 1 :] &= ~overlaps[row, row + 1 :]
    return order[alive]


def nms_per_class(xyxy: Float32, score: Float32, class_id: Int32, iou_threshold: float) -> Int64:
    """As ``nms``, but only boxes of the same class compete: the classes are moved apart by more than their extent."""
    if len(xyxy) == 0:
        return np.empty(0, np.int64)
    if _compiled is not None:
        kept = np.empty(len(score), np.int64)
        classes = flat(class_id, np.int32)
        return kept[: _compiled.nms_per_class(flat(xyxy), flat(score), classes, iou_threshold, kept)]
    step = float(xyxy.max() - xyxy.min()) + 1.0
    if np.isnan(step):
        step = float(np.nanmax(xyxy) - np.nanmin(xyxy)) + 1.0
    offset = (class_id * step).astype(np.float32)
    return nms(xyxy + offset[:, None], score, iou_threshold)


def without_doubles(xyxy: Float32, score: Float32, iou_threshold: float) -> Bool:
    """Which boxes to keep so that no two of them, whatever their classes, overlap by more than the threshold.

    Args:
        xyxy: (N, 4) pixels.
        score: (N,) in [0, 1]; the higher one stays.
        iou_threshold: overlap in [0, 1].

    Returns:
        (N,) bool; the order of the boxes is kept.
    """
    keep = np.zeros(len(score), np.bool_)
    keep[nms(xyxy, score, iou_threshold)] = True
    return keep


def centre(xyxy: Float32) -> Float32:
    """(N, 2) box centres."""
    middle: Float32 = (xyxy[:, :2] + xyxy[:, 2:]) * np.float32(0.5)
    return middle


def best_pairs(overlap: Float32, least: float) -> list[tuple[int, int]]:
    """Rows and columns of (N, M) overlaps, the largest overlap first, each used once, none below ``least``."""
    rows, columns = np.nonzero(overlap >= least)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return list(pairs.items())


def corners_of(box: Float32, angle: Float32) -> Float32:
    """(N, 4, 2) corners of (N, 4) boxes turned by (N,) angles: one after the other around the box."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    across = np.concatenate([cos, sin], axis=1) * box[:, 2:3] / 2
    down = np.concatenate([-sin, cos], axis=1) * box[:, 3:4] / 2
    centre = box[:, :2]
    turned = [centre + across + down, centre + across - down, centre - across - down, centre - across + down]
    return np.stack(turned, axis=1).astype(np.float32)


def bounds(corners: Float32) -> Float32:
    """(N, 4) ``x1 y1 x2 y2`` around (N, 4, 2) corners."""
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def prob_iou(first: Float32, first_angle: Float32, second: Float32, second_angle: Float32) -> Float64:
    """(N, M) overlap of oriented boxes taken for normal distributions, in [0, 1].

    One minus the Hellinger distance, which follows from the Bhattacharyya distance (ProbIoU, Llerena et al. 2021,
    arXiv 2106.06072).
    """
    xx, yy, xy, own = _covariance(first, first_angle)
    other_xx, other_yy, other_xy, other_own = _covariance(second, second_angle)
    # of the sum of two covariances
    sum_xx, sum_yy, sum_xy = xx[:, None] + other_xx, yy[:, None] + other_yy, xy[:, None] + other_xy
    dx, dy = first[:, None, 0] - second[:, 0], first[:, None, 1] - second[:, 1]
    determinant = np.maximum(sum_xx * sum_yy - sum_xy**2, 1e-9)
    apart = (sum_yy * dx**2 - 2 * sum_xy * dx * dy + sum_xx * dy**2) / determinant / 4
    unlike = np.log(np.maximum(determinant / (4 * own[:, None] * other_own), 1e-9)) / 2
    distance = np.clip(apart + unlike, 0, 100)
    overlap: Float64 = 1 - np.sqrt(1 - np.exp(-distance))
    return overlap


def _covariance(box: Float32, angle: Float32) -> tuple[Float64, Float64, Float64, Float64]:
    """xx, yy, xy and the root of the determinant, (N,) each; a box of width w has the variance w^2 / 12 along it."""
    along, beside = (side.astype(np.float64) ** 2 / 12 for side in (box[:, 2], box[:, 3]))
    cos, sin = np.cos(angle, dtype=np.float64), np.sin(angle, dtype=np.float64)
    root = np.maximum(np.sqrt(along * beside), 1e-9)
    return along * cos**2 + beside * sin**2, along * sin**2 + beside * cos**2, (along - beside) * cos * sin, root


def nms_oriented(box: Float32, angle: Float32, score: Float32, class_id: Int32, threshold: float) -> Int64:
    """Keep the oriented boxes that overlap no better one of their class, dropped ones included.

    So did the authors of Fast NMS (YOLACT, arXiv 1904.02689), and so do the oriented exports of this family.

    Args:
        box, angle: (N, 4) ``cx cy w h`` and (N,) radians.
        score: (N,); ties keep the earlier box.
        class_id: (N,).
        threshold: ``prob_iou`` above which the lower score is dropped.

    Returns:
        (K,) indices into the input, highest score first.
    """
    order = np.argsort(-score, kind="stable")
    overlap = prob_iou(box[order], angle[order], box[order], angle[order])
    same = class_id[order][:, None] == class_id[order][None, :]
    beaten = np.triu((overlap > threshold) & same, k=1).any(axis=0)
    kept: Int64 = order[~beaten]
    return kept


def turned(corners: Float32) -> tuple[Float32, Float32]:
    """The opposite of ``corners_of``: (N, 4) ``cx cy w h`` and (N,) angles of (N, 4, 2) corners."""
    across, down = corners[:, 0] - corners[:, 3], corners[:, 0] - corners[:, 1]
    size = np.stack([np.hypot(*across.T), np.hypot(*down.T)], axis=1)
    box = np.concatenate([corners.mean(axis=1), size], axis=1).astype(np.float32, copy=False)
    return box, np.arctan2(across[:, 1], across[:, 0])


def oriented_iou(first: Float32, second: Float32) -> Float32:
    """(N, M) overlap of (N, 4, 2) and (M, 4, 2) corners as areas, intersection over union (Sutherland-Hodgman)."""
    overlap = np.zeros((len(first), len(second)), np.float32)
    one, other = bounds(first), bounds(second)
    meets = (one[:, None, :2] < other[None, :, 2:]).all(2) & (other[None, :, :2] < one[:, None, 2:]).all(2)
    for row, column in np.argwhere(meets).tolist():
        shared = _shared_area(first[row].tolist(), second[column].tolist())
        union = abs(_signed_area(first[row].tolist())) + abs(_signed_area(second[column].tolist())) - shared
        overlap[row, column] = shared / union if union > 0 else 0.0
    return overlap


def _shared_area(polygon: list[list[float]], cutter: list[list[float]]) -> float:
    """Area of what two convex polygons share."""
    side = 1.0 if _signed_area(cutter) >= 0 else -1.0
    for (ax, ay), (bx, by) in zip(cutter, [*cutter[1:], cutter[0]], strict=True):
        depth = [side * ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) for x, y in polygon]
        kept: list[list[float]] = []
        for number, (x, y) in enumerate(polygon):
            # from the corner before
            (px, py), before, here = polygon[number - 1], depth[number - 1], depth[number]
            if (before < 0) != (here < 0):
                share = before / (before - here)
                kept.append([px + (x - px) * share, py + (y - py) * share])
            if here >= 0:
                kept.append([x, y])
        polygon = kept
    return abs(_signed_area(polygon))


def _signed_area(polygon: list[list[float]]) -> float:
    following = [*polygon[1:], *polygon[:1]]
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in zip(polygon, following, strict=True)) / 2


def distinct(found: Detections, iou_threshold: float, *, per_class: bool) -> Int64:
    """Which objects to keep so that no two of them (of one class) overlap by more than the threshold.

    Oriented boxes are compared as they lie: two that cross have one and the same box around them.

    Returns:
        (K,) indices, highest score first.
    """
    if found.corners is not None:
        classes = found.class_id if per_class else np.zeros_like(found.class_id)
        return nms_oriented(*turned(found.corners), found.score, classes, iou_threshold)
    if per_class:
        return nms_per_class(found.xyxy, found.score, found.class_id, iou_threshold)
    return nms(found.xyxy, found.score, iou_threshold)
