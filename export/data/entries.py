"""Labelled pictures on disk: what every reader of a format gives, and the data set made of it. N objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge.errors import DataError
from edge.types import Bool, Float32, Int32, UInt8
from export.data.image_file import read_image, read_mask
from export.data.sample import IGNORE_LABEL, DataTask, Outlines, Sample


@dataclass(frozen=True, slots=True)
class Entry:
    """One labelled picture that was not read yet.

    Attributes:
        path: the picture.
        image_id: its name within the data set, unique.
        boxes, labels, ignore, weight, outlines: as in ``Sample``.
        mask_path: its mask; segmentation only.
        label: its class; classification only.
        size: width and height that the labels speak of; None where the format does not tell.
        num_bytes: length of the picture's file, which tells a re-encoded picture from the old one.
    """

    path: Path
    image_id: str
    boxes: Float32 = field(default_factory=lambda: np.empty((0, 4), np.float32))
    labels: Int32 = field(default_factory=lambda: np.empty(0, np.int32))
    ignore: Bool = field(default_factory=lambda: np.empty(0, np.bool_))
    weight: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    mask_path: Path | None = None
    label: int | None = None
    size: tuple[int, int] | None = None
    num_bytes: int = 0
    outlines: Outlines | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader found. ``ignore_id`` is the mask value that means unlabelled."""

    name: str
    task: DataTask
    classes: tuple[str, ...]
    entries: list[Entry]
    ignore_id: int = IGNORE_LABEL


class FileDataset:
    """Labelled pictures in files, read when they are asked for. Safe for many threads."""

    def __init__(self, reading: Reading, entries: Sequence[Entry]) -> None:
        self._reading = reading
        self._entries = entries
        self._fingerprint = _fingerprint(reading, entries)

    @property
    def name(self) -> str:
        return self._reading.name

    @property
    def task(self) -> DataTask:
        return self._reading.task

    @property
    def classes(self) -> tuple[str, ...]:
        return self._reading.classes

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def entries(self) -> Sequence[Entry]:
        """The labels without the pictures."""
        return self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        """Read one picture.

        Raises:
            DataError: its file changed or vanished since the data set was opened.
        """
        entry = self._entries[index]
        image = read_image(entry.path, entry.size)
        mask = None if entry.mask_path is None else self._mask(entry.mask_path, image.shape[:2])
        return Sample(
            image,
            entry.image_id,
            entry.boxes,
            entry.labels,
            entry.ignore,
            entry.weight,
            mask=mask,
            label=entry.label,
            outlines=entry.outlines,
        )

    def _mask(self, path: Path, size: tuple[int, int]) -> UInt8:
        mask = read_mask(path)
        if mask.shape != size:
            raise DataError(f"{path}: expected a mask of {size[1]}x{size[0]}, found {mask.shape[1]}x{mask.shape[0]}")
        if self._reading.ignore_id != IGNORE_LABEL:
            mask = np.where(mask == self._reading.ignore_id, np.uint8(IGNORE_LABEL), mask)
        return mask


def _fingerprint(reading: Reading, entries: Sequence[Entry]) -> str:
    digest = hashlib.sha256(json.dumps([reading.task, reading.classes, reading.ignore_id]).encode())
    for entry in entries:
        digest.update(json.dumps([entry.image_id, entry.num_bytes, entry.label, entry.mask_path is None]).encode())
        for array in (entry.boxes, entry.labels, entry.ignore, entry.weight):
            digest.update(array.tobytes())
        if entry.mask_path is not None:
            digest.update(entry.mask_path.read_bytes())
    return digest.hexdigest()
