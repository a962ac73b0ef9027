"""Faults of a data set, gathered while it is opened and reported together. N objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from edge.errors import DataError
from edge.types import Bool, Float32
from export.data.entries import Entry, Reading
from export.data.image_file import image_size, read_mask, stored_size
from export.data.outlines import outline_fault
from export.data.sample import IGNORE_LABEL, Outlines

OnError = Literal["refuse", "skip"]
MAX_NAMED = 20
# labels are often rounded to whole pixels, or count from 1
_EDGE_TOLERANCE_PX = 1.5
_MIN_SIDE_PX = 0.5


@dataclass
class Problems:
    """Faults as (kind, where) in the order they were found."""

    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, kind: str, where: str) -> None:
        """Note one fault: ``add("missing image", "train/7.jpg")``."""
        self.found.append((kind, where))

    def __len__(self) -> int:
        return len(self.found)

    def counts(self) -> dict[str, int]:
        """Kind → how often, most frequent first."""
        return dict(Counter(kind for kind, _ in self.found).most_common())

    def report(self, name: str) -> str:
        """A summary, and the first faults by name."""
        kinds = ", ".join(f"{count} x {kind}" for kind, count in self.counts().items())
        lines = [f"{name}: {len(self)} problem{'s' if len(self) > 1 else ''} in the data set: {kinds}"]
        lines += [f"  {kind}: {where}" for kind, where in self.found[:MAX_NAMED]]
        if len(self) > MAX_NAMED:
            lines.append(f"  … and {len(self) - MAX_NAMED} more")
        return "\n".join(lines)

    def refuse(self, name: str) -> None:
        """Raise ``DataError`` if anything was found."""
        if self.found:
            raise DataError(
                f"{self.report(name)}\ncorrect these, or leave them out: --on-error skip, in a training data.bad=skip"
            )


def check_entries(reading: Reading, problems: Problems) -> list[Entry]:
    """Look at every picture and label.

    Args:
        reading: what the reader found.
        problems: faults are added to it.

    Returns:
        The entries that can be used: without bad pictures and bad boxes; boxes cut at the picture's edges.
    """
    good: list[Entry] = []
    seen: set[str] = set()
    for entry in reading.entries:
        if entry.image_id in seen:
            problems.add("duplicated image id", entry.image_id)
            continue
        seen.add(entry.image_id)
        sized = _check_image(entry, problems)
        if sized is None or not _check_class(sized, reading, problems) or not _check_mask(sized, reading, problems):
            continue
        good.append(_check_boxes(sized, reading, problems))
    return good


def _check_image(entry: Entry, problems: Problems) -> Entry | None:
    """The entry with its size and length filled in."""
    try:
        num_bytes = entry.path.stat().st_size
        size = image_size(entry.path)
    except FileNotFoundError:
        problems.add("missing image", str(entry.path))
        return None
    except OSError as error:
        problems.add("unreadable image", f"{entry.path} ({error.strerror})")
        return None
    if size is None:
        problems.add("unreadable image", str(entry.path))
        return None
    # labels may speak of the picture as it is stored, before EXIF turns it
    if entry.size not in (None, size) and entry.size != stored_size(entry.path):
        declared, found = (f"{width}x{height}" for width, height in (entry.size, size))
        problems.add("wrong image size", f"{entry.path} (label file says {declared}, found {found})")
        return None
    return replace(entry, size=entry.size or size, num_bytes=num_bytes)


def _check_class(entry: Entry, reading: Reading, problems: Problems) -> bool:
    if entry.label is None or 0 <= entry.label < len(reading.classes):
        return True
    problems.add("class id out of range", f"{entry.image_id} (class {entry.label})")
    return False


def _check_mask(entry: Entry, reading: Reading, problems: Problems) -> bool:
    if entry.mask_path is None:
        return True
    if not entry.mask_path.is_file():
        problems.add("missing mask", str(entry.mask_path))
        return False
    try:
        mask = read_mask(entry.mask_path)
    except DataError as error:
        problems.add("unreadable mask", str(error))
        return False
    if entry.size is not None and mask.shape != entry.size[::-1]:
        found = f"{mask.shape[1]}x{mask.shape[0]}"
        problems.add("wrong mask size", f"{entry.mask_path} (picture {entry.size[0]}x{entry.size[1]}, mask {found})")
        return False
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    allowed = {*range(len(reading.classes)), reading.ignore_id, IGNORE_LABEL}
    wrong = sorted(set(present.tolist()) - allowed)
    if wrong:
        problems.add("class id out of range", f"{entry.mask_path} (values {_few(wrong)})")
    return not wrong


def _check_boxes(entry: Entry, reading: Reading, problems: Problems) -> Entry:
    """The entry with only its usable boxes."""
    assert entry.size is not None
    width, height = entry.size
    limit = np.array([width, height, width, height], np.float32)
    clipped = np.clip(np.nan_to_num(entry.boxes, nan=0.0), 0, limit)
    is_foreign: Bool = (entry.labels < 0) | (entry.labels >= len(reading.classes))
    is_broken = _any(~np.isfinite(entry.boxes))
    verdicts = [
        ("class id out of range", is_foreign),
        ("box is not a number", is_broken),
        ("empty box", _is_thin(entry.boxes)),
        ("box outside the image", _any(np.abs(clipped - entry.boxes) > _EDGE_TOLERANCE_PX)),
    ]
    judged = np.zeros(len(entry.boxes), np.bool_)
    for kind, is_bad in verdicts:
        for row in np.flatnonzero(is_bad & ~judged):
            what = f"class {entry.labels[row]}" if kind.startswith("class") else f"box {_few(entry.boxes[row])}"
            problems.add(kind, f"{entry.image_id} ({what})")
        judged |= is_bad
    outlines = _checked_outlines(entry, problems)
    # a box that only sticks out is cut and kept; every other fault drops it
    keep = ~(is_foreign | is_broken | _is_thin(clipped))
    return replace(
        entry,
        boxes=clipped[keep].astype(np.float32),
        labels=entry.labels[keep],
        ignore=entry.ignore[keep],
        weight=entry.weight[keep],
        outlines=None if outlines is None else outlines[keep],
    )


def _checked_outlines(entry: Entry, problems: Problems) -> Outlines | None:
    """The outlines without those of faulty form."""
    if entry.outlines is None:
        return None
    shapes = list(entry.outlines.segmentations)
    for row, shape in enumerate(shapes):
        if shape is not None and (fault := outline_fault(shape, entry.size)):
            problems.add("faulty mask", f"{entry.image_id} ({fault})")
            shapes[row] = None
    return replace(entry.outlines, segmentations=tuple(shapes))


def _is_thin(boxes: Float32) -> Bool:
    return _any((boxes[:, 2:] - boxes[:, :2]) < _MIN_SIDE_PX)


def _any(faults: Bool) -> Bool:
    """(N,) whether a row of (N, K) has a fault."""
    found: Bool = np.any(faults, axis=1)
    return found


def _few(values: Iterable[float]) -> str:
    shown = [f"{value:g}" for value in values]
    return ", ".join(shown[:6]) + (" …" if len(shown) > 6 else "")
