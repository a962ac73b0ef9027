"""YOLO folders: ``images/``, ``labels/`` with a text file per picture, class names next to them. N objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.errors import DataError
from export.data.checks import Problems
from export.data.class_list import read_class_list
from export.data.entries import Entry, Reading
from export.data.image_file import image_size, list_images

Row = tuple[int, float, float, float, float, float]


def read_yolo(folder: Path, problems: Problems, split: str | None = None) -> Reading:
    """Read a YOLO folder. A picture without a label file has no objects.

    A line is ``class cx cy w h`` in fractions of the picture, optionally with a score (the label's weight), or
    ``class x1 y1 x2 y2 x3 y3 …``, a polygon, of which the box is taken.

    Args:
        folder: has ``images`` and ``labels``, and ``data.yaml`` or ``classes.txt``.
        problems: faults of single lines are added to it.
        split: a folder below ``images`` and ``labels``; None takes all pictures.

    Raises:
        DataError: there are no class names or no pictures.
    """
    classes = read_class_list(folder)
    if not classes:
        raise DataError(f"{folder}: expected the class names in data.yaml or classes.txt, found neither")
    images = folder / "images" / (split or "")
    paths = list_images(images, deep=True) if images.is_dir() else []
    if not paths:
        raise DataError(f"{images}: expected pictures, found none")
    entries = [_entry(folder, path, problems) for path in paths]
    return Reading(folder.name if split is None else f"{folder.name}/{split}", "detect", tuple(classes), entries)


def _entry(folder: Path, path: Path, problems: Problems) -> Entry:
    image_id = path.relative_to(folder / "images").as_posix()
    label_file = (folder / "labels" / image_id).with_suffix(".txt")
    rows = _read_rows(label_file, problems) if label_file.is_file() else []
    # without a size the picture is unreadable, which the checks will say
    size = image_size(path) or (1, 1)
    table = np.array(rows, np.float64).reshape(-1, 6)
    scale = np.array([*size, *size], np.float64)
    return Entry(
        path=path,
        image_id=image_id,
        boxes=(table[:, 1:5] * scale).astype(np.float32),
        labels=table[:, 0].astype(np.int32),
        ignore=np.zeros(len(rows), np.bool_),
        weight=np.clip(table[:, 5], 0, 1).astype(np.float32),
    )


def _read_rows(path: Path, problems: Problems) -> list[Row]:
    """Class, x1 y1 x2 y2 in fractions, and weight of each line."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        row = _parse_row(line.split())
        if row is None:
            problems.add("unreadable label line", f"{path.name}:{number} ({line.strip()[:60]!r})")
        else:
            rows.append(row)
    return rows


def _parse_row(words: list[str]) -> Row | None:
    try:
        label, values = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        return None
    if len(values) in {4, 5}:
        x, y, width, height = values[:4]
        weight = values[4] if len(values) == 5 else 1.0
        return label, x - width / 2, y - height / 2, x + width / 2, y + height / 2, weight
    if len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[0::2], values[1::2]
        return label, min(xs), min(ys), max(xs), max(ys), 1.0
    return None
