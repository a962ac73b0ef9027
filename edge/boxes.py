"""Arithmetic on boxes. N M objects; boxes are float32 ``x1 y1 x2 y2`` in pixels; an empty input is an ordinary case."""

from __future__ import annotations

import numpy as np

from edge.types import Bool, Float32, Int32, Int64


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
    order = np.argsort(-score, kind="stable")
    order = order[~np.isnan(score[order])]
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
