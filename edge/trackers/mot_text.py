"""Reads and writes tracking text: detections and tracks of one sequence, one box a line, as in the MOTChallenge.

Shape letters: N boxes of a frame. In the files boxes are ``x y width height`` and frames count from 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np

from edge.errors import DataError
from edge.files import write_atomic
from edge.types import Detections, Float64, Tracks

MOST_FRAMES = 10_000_000


def read_detections(path: Path) -> list[Detections]:
    """The detections of every frame, in order; frames without a line are empty.

    Two layouts are understood: the MOTChallenge's ``frame,-1,x,y,w,h,score[,class…]`` and the short
    ``frame,x,y,w,h,score[,class]``. A line has the former when it has 7 columns or more and the second is -1
    throughout.

    Raises:
        DataError: the file cannot be read, or a line is not a row of numbers.
    """
    rows = _read_rows(path, least=6)
    frame = rows[:, 0]
    is_challenge = rows.shape[1] >= 7 and (rows.shape[1] > 7 or bool((rows[:, 1] == -1).all()))
    box = rows[:, 2:6] if is_challenge else rows[:, 1:5]
    rest = rows[:, 6:] if is_challenge else rows[:, 5:]
    class_id = np.maximum(rest[:, 1], 0) if rest.shape[1] > 1 else np.zeros(len(rows))
    corners = np.concatenate((box[:, :2], box[:, :2] + box[:, 2:]), axis=1).astype(np.float32)
    everything = Detections(corners, rest[:, 0].astype(np.float32), np.nan_to_num(class_id).astype(np.int32))
    order = np.argsort(frame, kind="stable")
    num_frames = int(frame.max()) if len(frame) else 0
    edges = np.searchsorted(frame[order], np.arange(1, num_frames + 2))
    return [everything[order[low:high]] for low, high in pairwise(edges.tolist())]


def read_motion(path: Path) -> dict[int, Float64]:
    """Camera motion: ``frame a b tx c d ty`` a line → frame → (2, 3) affine from the frame before to it.

    Raises:
        DataError: the file cannot be read, or a line is not a row of 7 numbers.
    """
    rows = _read_rows(path, least=7)
    return {int(row[0]): row[1:7].reshape(2, 3) for row in rows}


def write_tracks(path: Path, frames: Iterable[Tracks]) -> int:
    """Write ``frame,id,x,y,w,h,score,-1,-1,-1`` for every track of every frame; gives the number of lines.

    Raises:
        DataError: the file cannot be written.
    """
    lines: list[str] = []
    for number, tracks in enumerate(frames, start=1):
        size = tracks.xyxy[:, 2:] - tracks.xyxy[:, :2]
        table = np.column_stack((tracks.xyxy[:, :2], size, tracks.score)).tolist()
        for track_id, (x, y, w, h, score) in zip(tracks.track_id.tolist(), table, strict=True):
            lines.append(f"{number},{track_id},{x:.2f},{y:.2f},{w:.2f},{h:.2f},{score:.4f},-1,-1,-1\n")
    try:
        write_atomic(path, "".join(lines))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    return len(lines)


def _read_rows(path: Path, least: int) -> Float64:
    """(N, columns) numbers of a file separated by commas or blanks; the frame number stands first."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from error
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.replace(",", " ").split()
        if fields:
            rows.append(_numbers(path, number, fields, least, len(rows[0]) if rows else len(fields)))
    return np.array(rows, np.float64).reshape(len(rows), -1 if rows else least)


def _numbers(path: Path, number: int, fields: list[str], least: int, width: int) -> list[float]:
    place = f"{path}:{number}"
    if len(fields) < least or len(fields) != width:
        expected = (
            f"{max(width, least)} columns as in the first line" if len(fields) != width else f"at least {least} columns"
        )
        raise DataError(f"{place}: expected {expected}, found {len(fields)}")
    try:
        row = [float(field) for field in fields]
    except ValueError as error:
        raise DataError(f"{place}: expected numbers, {error}") from error
    if not 1 <= row[0] <= MOST_FRAMES:
        raise DataError(f"{place}: expected a frame number from 1 to {MOST_FRAMES}, found {fields[0]}")
    return row
