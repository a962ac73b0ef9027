"""Segmentations of COCO's three forms: polygons, run lengths as numbers, run lengths as text. H W pixels, R runs.

What comes from a file is checked here before any library of C sees it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edge.types import Bool, Int64

# beyond this a corner is a mistake, and would cost memory and time
MAX_COORDINATE = 1e5
# x y of three corners; what has fewer covers nothing
_FEWEST = 6


def outline_fault(shape: Any, size: tuple[int, int] | None) -> str:
    """What is wrong with a segmentation of a file; empty where nothing is.

    Args:
        size: width and height of the picture, None where the file does not tell.
    """
    if isinstance(shape, list):
        return _polygon_fault(shape)
    if not isinstance(shape, dict) or "counts" not in shape or "size" not in shape:
        return "neither polygons nor run lengths"
    found = shape["size"]
    if not isinstance(found, list) or len(found) != 2 or not all(isinstance(side, int) for side in found):
        return "run lengths without height and width"
    if min(found) < 1 or max(found) > MAX_COORDINATE or (size is not None and tuple(found[::-1]) != size):
        return f"run lengths of {found[1]}x{found[0]}" + (f" in a picture of {size[0]}x{size[1]}" if size else "")
    try:
        runs = run_lengths(shape["counts"], found[0] * found[1])
    except ValueError as error:
        return str(error)
    return "" if runs.sum() == found[0] * found[1] else "run lengths that do not fill the picture"


def _polygon_fault(shape: list[Any]) -> str:
    for polygon in shape:
        if not isinstance(polygon, list) or len(polygon) % 2:
            return "a polygon that is no list of x, y, …"
        for value in polygon:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                return "a polygon with a corner that is no number"
            if abs(value) > MAX_COORDINATE:
                return f"a polygon with a corner at {value:.6g}"
    return ""


def run_lengths(counts: Any, limit: int) -> Int64:
    """(R,) lengths of the runs, zeros first, of numbers or of COCO's text.

    Raises:
        ValueError: they are no run lengths, or longer than ``limit`` pixels.
    """
    if isinstance(counts, (str, bytes)):
        numbers = _from_text(counts.encode() if isinstance(counts, str) else counts, limit)
    elif isinstance(counts, list) and all(isinstance(run, int) and not isinstance(run, bool) for run in counts):
        numbers = counts
    else:
        raise ValueError("run lengths that are neither whole numbers nor text")
    if any(not 0 <= run <= limit for run in numbers) or sum(numbers) > limit:
        raise ValueError("run lengths that do not fill the picture")
    return np.array(numbers, np.int64)


def _from_text(text: bytes, limit: int) -> list[int]:
    """Five bits a character, lowest first, the sixth for "more follow"; the fourth run and later add to two before."""
    numbers: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError("run lengths in no text of COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        if not 0 <= numbers[-1] <= limit:
            raise ValueError("run lengths that do not fill the picture")
        value = shift = 0
    if shift:
        raise ValueError("run lengths that end in the middle of a number")
    return numbers


def filled(shape: Any, height: int, width: int) -> Bool:
    """(H, W) bool: the pixels of a checked segmentation.

    Polygons are filled by pycocotools, whose pixels are those that COCO judges by.
    """
    if isinstance(shape, dict):
        runs = run_lengths(shape["counts"], height * width)
        line = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return np.ascontiguousarray(line.reshape(width, height).T)
    from pycocotools import mask as coco

    polygons = [polygon for polygon in shape if len(polygon) >= _FEWEST]
    if not polygons:
        return np.zeros((height, width), np.bool_)
    return filled(coco.merge(coco.frPyObjects(polygons, height, width)), height, width)
