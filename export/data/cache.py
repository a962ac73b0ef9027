"""Decoded and resized samples kept in one file, so that later epochs skip decoding. N objects, H W picture, h w slot.

The file belongs to one data set (by fingerprint) and one size. Several processes may fill and read it at once: each
sample has its own slot, whoever writes it writes the same bytes, and a checksum tells a whole slot from a torn one.
It is read and written by position rather than mapped: a full disk then is an ordinary error, and the pages belong to
the kernel, not to this process.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edge.errors import DataError
from edge.types import UInt8
from export.data.augment import Size, letterboxed
from export.data.geometry import Window, paint_mask
from export.data.sample import Dataset, DataTask, Sample

log = logging.getLogger(__name__)

# checksum, bytes of the labels, bytes of the pixels and mask; all zero in a slot that nobody wrote
_HEAD = struct.Struct("<III")
# a sample with more labels than fit here (some 1,200 boxes) is not cached
_LABEL_BYTES = 32 * 1024
_SPARE_DISK_BYTES = 1 << 30
_VERSION = 2


class CachedDataset:
    """A data set whose pictures come resized to fit into a size, from a cache file where they are in it already.

    Boxes and masks are resized with the picture. What is resized once is letterboxed to the same size without being
    resized again, so the pixels are those that ``edge.models.preprocess`` makes of the original. Safe for many threads.
    """

    def __init__(
        self, dataset: Dataset, folder: Path, size: Size, *, max_bytes: int = 32 << 30, has_masks: bool = False
    ) -> None:
        """Open or make the cache file.

        Args:
            dataset: where samples come from.
            folder: is made if it is missing; holds one file per data set and size.
            size: height and width into which the pictures are fitted.
            max_bytes: largest size of the file; samples beyond it are decoded every time.
            has_masks: whether its samples tell which object each pixel shows.

        Raises:
            DataError: the folder cannot be written.
        """
        self._dataset = dataset
        self._size = size
        channels = 4 if dataset.task == "segment" or has_masks else 3
        self._slot_bytes = _HEAD.size + _LABEL_BYTES + size[0] * size[1] * channels
        path = folder / f"{_file_stem(dataset.fingerprint)}-{size[0]}x{size[1]}-v{_VERSION}.samples"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise DataError(f"{path}: the cache cannot be written ({error.strerror}); choose another folder") from None
        wanted = len(dataset) * self._slot_bytes
        used = os.fstat(self._file).st_blocks * 512
        free = shutil.disk_usage(folder).free + used - _SPARE_DISK_BYTES
        self._num_slots = min(len(dataset), max(0, min(max_bytes, free)) // self._slot_bytes)
        if self._num_slots < len(dataset):
            log.warning("%s: %d of %d samples fit into %s", dataset.name, self._num_slots, len(dataset), path)
        # a file with holes: only slots that are written take space
        if os.fstat(self._file).st_size < wanted:
            os.ftruncate(self._file, wanted)

    @property
    def name(self) -> str:
        return self._dataset.name

    @property
    def task(self) -> DataTask:
        return self._dataset.task

    @property
    def classes(self) -> tuple[str, ...]:
        return self._dataset.classes

    @property
    def fingerprint(self) -> str:
        return self._dataset.fingerprint

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """The sample, resized; its arrays are read-only."""
        if index >= self._num_slots:
            return fit_sample(self._dataset[index], self._size)
        stored = self._read(index)
        if stored is not None:
            return stored
        sample = fit_sample(self._dataset[index], self._size)
        self._write(index, sample)
        return sample

    def close(self) -> None:
        """Close the file; the data set must not be used again."""
        os.close(self._file)

    def _read(self, index: int) -> Sample | None:
        start = index * self._slot_bytes
        checksum, num_labels, num_pixels = _HEAD.unpack(os.pread(self._file, _HEAD.size, start))
        if num_labels == 0 or num_labels + num_pixels > self._slot_bytes - _HEAD.size:
            return None
        body = os.pread(self._file, num_labels + num_pixels, start + _HEAD.size)
        if zlib.crc32(body) != checksum:
            return None
        return _unpack(body, num_labels)

    def _write(self, index: int, sample: Sample) -> None:
        labels, pixels = _pack(sample)
        if len(labels) > _LABEL_BYTES:
            return
        body = labels + pixels
        start = index * self._slot_bytes
        try:
            os.pwrite(self._file, body, start + _HEAD.size)
            os.pwrite(self._file, _HEAD.pack(zlib.crc32(body), len(labels), len(pixels)), start)
        except OSError as error:
            log.warning("%s: the cache is not filled any further (%s)", self.name, error.strerror)
            self._num_slots = 0


def fit_sample(sample: Sample, size: Size) -> Sample:
    """The sample resized (up or down) to fit into ``size``, its aspect ratio kept, without padding."""
    height, width = sample.image.shape[:2]
    placement = letterboxed(width, height, size)
    new_width, new_height = round(width * placement.scale_x), round(height * placement.scale_y)
    if (new_width, new_height) == (width, height):
        return sample
    image: UInt8 = np.asarray(
        cv2.resize(sample.image, (new_width, new_height), interpolation=cv2.INTER_LINEAR), np.uint8
    )
    at_origin = replace(placement, shift_x=0.0, shift_y=0.0)
    mask = None
    if sample.mask is not None:
        mask = np.empty((new_height, new_width), np.uint8)
        paint_mask(sample.mask, mask, at_origin, Window(0, 0, new_width, new_height))
    owner = None
    if sample.owner is not None:
        owner = np.empty((new_height, new_width), np.uint8)
        paint_mask(sample.owner, owner, at_origin, Window(0, 0, new_width, new_height))
    points = None if sample.points is None else at_origin.points(sample.points, sample.mirror)
    boxes = at_origin.boxes(sample.boxes)
    return replace(sample, image=image, mask=mask, owner=owner, boxes=boxes, points=points, outlines=None)


def _pack(sample: Sample) -> tuple[bytes, bytes]:
    """Labels (a JSON line, then the arrays) and pixels (picture, then its map)."""
    facts = {
        "id": sample.image_id,
        "shape": sample.image.shape[:2],
        "objects": len(sample.labels),
        "mask": sample.mask is not None,
        "owner": sample.owner is not None,
        "points": None if sample.points is None else sample.points.shape[1],
        "mirror": sample.mirror,
        "label": sample.label,
    }
    arrays = [sample.boxes, sample.labels, sample.weight, sample.ignore]
    if sample.points is not None:
        arrays.append(sample.points.astype(np.float32))
    labels = json.dumps(facts).encode() + b"\n" + b"".join(array.tobytes() for array in arrays)
    maps = [sample.image, *(map_ for map_ in (sample.mask, sample.owner) if map_ is not None)]
    return labels, b"".join(map_.tobytes() for map_ in maps)


def _unpack(body: bytes, num_labels: int) -> Sample:
    """The sample as views of ``body``."""
    line_end = body.index(b"\n")
    facts = json.loads(body[:line_end])
    count, (height, width) = facts["objects"], facts["shape"]
    start = line_end + 1
    image = np.frombuffer(body, np.uint8, height * width * 3, num_labels).reshape(height, width, 3)
    mask = owner = points = None
    if facts["mask"] or facts["owner"]:
        mask = np.frombuffer(body, np.uint8, height * width, num_labels + image.size).reshape(height, width)
    if facts["owner"]:
        mask, owner = None, mask
    if facts["points"] is not None:
        at = start + count * 25
        points = np.frombuffer(body[at : at + count * facts["points"] * 12], np.float32)
        points = points.reshape(count, facts["points"], 3)
    return Sample(
        image,
        facts["id"],
        boxes=np.frombuffer(body, np.float32, count * 4, start).reshape(count, 4),
        labels=np.frombuffer(body, np.int32, count, start + count * 16),
        weight=np.frombuffer(body, np.float32, count, start + count * 20),
        ignore=np.frombuffer(body, np.bool_, count, start + count * 24),
        mask=mask,
        owner=owner,
        points=points,
        mirror=tuple(facts["mirror"]),
        label=facts["label"],
    )


def _file_stem(fingerprint: str) -> str:
    """A file name from a fingerprint; those of parts of a data set carry a suffix that must tell them apart."""
    return fingerprint[:24] + "".join(letter for letter in fingerprint[64:] if letter.isalnum())
