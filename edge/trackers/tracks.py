"""What is remembered of every track besides its motion: one structured array, one row per track.

Shape letters: T tracks, K boxes kept of the past.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edge.types import Array, Float64, Int32, Int64

PAST = 3  # observations that a direction of travel is taken over, as in OC-SORT

ROW = np.dtype(
    [
        ("track_id", np.int64),
        ("class_id", np.int32),
        ("hits", np.int32),
        ("detection", np.int32),  # index in this frame, -1 where unseen
        ("is_confirmed", np.bool_),
        ("score", np.float64),
        ("born_s", np.float64),
        ("seen_s", np.float64),
        ("box", np.float64, 4),  # seen last, cx cy w h
        ("past", np.float64, (PAST + 1, 2)),  # centres seen, oldest first
    ],
    align=True,  # as C lays it out (edge/compiled/_tracks.c)
)


def empty() -> Array:
    """No tracks yet."""
    return np.empty(0, ROW)


def birth(first_id: int, box: Float64, score: Float64, class_id: Int32, detection: Int64, now_s: float) -> Array:
    """(T,) rows for (T, 4) boxes ``cx cy w h`` seen for the first time; ids count up from ``first_id``."""
    rows = np.zeros(len(box), ROW)
    rows["track_id"] = np.arange(first_id, first_id + len(box))
    rows["class_id"] = class_id
    rows["hits"] = 1
    rows["detection"] = detection
    rows["score"] = score
    rows["born_s"] = rows["seen_s"] = now_s
    rows["box"] = box
    rows["past"] = box[:, None, :2]
    return rows


def note_matches(book: Array, rows: Int64, box: Float64, score: Float64, detection: Int64, now_s: float) -> None:
    """Note what was seen of these rows in this frame, in place."""
    book["seen_s"][rows] = now_s
    book["score"][rows] = score
    book["detection"][rows] = detection
    book["box"][rows] = box
    book["hits"][rows] += 1


def remember_centres(book: Array, rows: Int64, box: Float64) -> None:
    """Push the centres of these rows into their past, in place."""
    past = book["past"][rows]
    book["past"][rows] = np.concatenate((past[:, 1:], box[:, None, :2]), axis=1)


def warp(book: Array, affine: Float64) -> None:
    """Carry the boxes seen before from the last frame's pixels to this one's, in place; ``affine`` is (2, 3)."""
    linear, shift = affine[:, :2], affine[:, 2]
    zoom = float(np.sqrt(abs(np.linalg.det(linear))))
    book["box"][:, :2] = book["box"][:, :2] @ linear.T + shift
    book["box"][:, 2:] *= zoom
    book["past"] = book["past"] @ linear.T + shift
