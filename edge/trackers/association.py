"""Which detection continues which track: similarity of the pairs that meet, and the best assignment over them.

Shape letters: T tracks, N detections, P pairs. Boxes are float64 ``x1 y1 x2 y2``.
"""

from __future__ import annotations

from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edge.types import Bool, Float64, Int64


# share of a gain that a price leaves
LEAST_LEFT = 0.05


@cache
def solver() -> Any:
    """SciPy's assignment, without the rest of ``scipy.optimize``, whose import takes 0.4 s of every start.

    Loading even this can wait until a start waits for its cameras.
    """
    import scipy

    file = next((Path(scipy.__file__).parent / "optimize").glob("_lsap*.so"), None)
    spec = None if file is None else spec_from_file_location("_lsap", file)
    if spec is None or spec.loader is None:
        from scipy.optimize import linear_sum_assignment

        return linear_sum_assignment
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.linear_sum_assignment


def meeting_pairs(tracks: Float64, boxes: Float64) -> tuple[Int64, Int64]:
    """(P,) rows and columns of the (T, 4) and (N, 4) boxes that overlap, in order of the rows."""
    # float32 halves the traffic of the only T x N arrays there are; outward rounding is harmless here
    a, b = tracks.astype(np.float32).T[..., None], boxes.astype(np.float32).T
    meets = a[0] < b[2]
    meets &= a[2] > b[0]
    meets &= a[1] < b[3]
    meets &= a[3] > b[1]
    flat = meets.ravel().nonzero()[0]
    rows = flat // max(1, len(boxes))
    return rows, flat - rows * len(boxes)


def overlap(a: Float64, b: Float64) -> Float64:
    """(P,) intersection over union of (P, 4) and (P, 4) boxes."""
    # a row per coordinate: short strided rows would cost three times as much
    ends_a, ends_b = np.ascontiguousarray(a.T).reshape(2, 2, -1), np.ascontiguousarray(b.T).reshape(2, 2, -1)
    shared = np.minimum(ends_a[1], ends_b[1])
    shared -= np.maximum(ends_a[0], ends_b[0])
    np.maximum(shared, 0, out=shared)
    both = shared[0] * shared[1]
    (wide_a, high_a), (wide_b, high_b) = ends_a[1] - ends_a[0], ends_b[1] - ends_b[0]
    iou: Float64 = both / (wide_a * high_a + wide_b * high_b - both)
    return iou


def height_overlap(a: Float64, b: Float64) -> Float64:
    """(P,) intersection over union of the vertical extents (Hybrid-SORT, https://arxiv.org/abs/2308.00783)."""
    shared = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    span = np.maximum(a[:, 3], b[:, 3]) - np.minimum(a[:, 1], b[:, 1])
    ratio: Float64 = np.maximum(shared, 0) / span
    return ratio


def power_of(values: Float64, power: float) -> Float64:
    """(P,) the values to a power; by roots where that is possible, which are exact everywhere."""
    if power == 0.75:
        found: Float64 = np.sqrt(values * np.sqrt(values))
        return found
    return values**power


def direction_agreement(past: Float64, last: Float64, centre: Float64) -> Float64:
    """(P,) how well ``past`` → ``centre`` goes on in the direction ``past`` → ``last``, in [-0.5, 0.5].

    OC-SORT's momentum (https://arxiv.org/abs/2203.14360, equation 5). All are (P, 2); 0 where nothing moved.
    """
    old, new = last - past, centre - past
    length = np.hypot(old[:, 0], old[:, 1]) * np.hypot(new[:, 0], new[:, 1])
    dot = (old * new).sum(axis=1)
    cosine = np.divide(dot, length, out=np.zeros_like(dot), where=length > 0)
    agreement: Float64 = 0.5 - np.arccos(np.clip(cosine, -1, 1)) / np.pi
    return agreement


def priced(gain: Float64, price: float) -> Float64:
    """(P,) gains less a price, never all of it: it decides between rivals, and leaves what nobody else wants."""
    less: Float64 = np.where(gain > 0, np.maximum(LEAST_LEFT * gain, gain - price), gain)
    return less


def mutual_best(rows: Int64, cols: Int64, value: Float64, shape: tuple[int, int]) -> Bool:
    """(P,) the pairs that are the best of their row and of their column."""
    best_row, best_col = np.zeros(shape[0]), np.zeros(shape[1])
    np.maximum.at(best_row, rows, value)
    np.maximum.at(best_col, cols, value)
    best: Bool = (value >= best_row[rows]) & (value >= best_col[cols])
    return best


def assign(rows: Int64, cols: Int64, gain: Float64, shape: tuple[int, int]) -> tuple[Int64, Int64]:
    """Choose pairs so that each row and column is used at most once and the sum of gains is largest.

    Args:
        rows, cols: (P,) the pairs.
        gain: (P,) what each is worth; pairs worth 0 or less are never chosen.
        shape: number of rows and columns.

    Returns:
        (K,) rows and (K,) columns.
    """
    wanted = gain > 0
    rows, cols, gain = rows[wanted], cols[wanted], gain[wanted]
    if len(rows) < 2:
        return rows, cols
    # a pair without rivals needs no solver, and most pairs have none
    rivals = np.bincount(rows, minlength=shape[0])[rows] + np.bincount(cols, minlength=shape[1])[cols]
    rest = rivals > 2
    if not rest.any():
        return rows, cols
    alone = ~rest
    used_rows, r = _numbered(rows[rest], shape[0])
    used_cols, c = _numbered(cols[rest], shape[1])
    table = np.zeros((len(used_rows), len(used_cols)))
    table[r, c] = gain[rest]
    best_r, best_c = solver()(table, maximize=True)
    real = table[best_r, best_c] > 0
    return (
        np.concatenate((rows[alone], used_rows[best_r[real]])),
        np.concatenate((cols[alone], used_cols[best_c[real]])),
    )


def _numbered(values: Int64, limit: int) -> tuple[Int64, Int64]:
    """The different values below a limit, in order, and the place of each value among them; ``np.unique`` sorts."""
    is_used = np.zeros(limit, np.bool_)
    is_used[values] = True
    return is_used.nonzero()[0], (is_used.cumsum() - 1)[values]
