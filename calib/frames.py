"""Chooses calibration frames: seeded, spread over time and streams, without black pictures and near-duplicates.

They are kept as the model sees them, resized by the runtime's own preprocessing, in a temporary file instead of memory.
h w model pixels, K frames.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from calib.collect import Step, TensorSource
from calib.seen_pictures import picture_digest
from edge.errors import DataError
from edge.models.manifest import InputSpec
from edge.models.preprocess import Preprocessor
from edge.sources.images import load_image
from edge.types import Array, Float32, UInt8

if TYPE_CHECKING:
    from edge.interfaces import Source
    from export.data.sample import Dataset

THUMBNAIL = 16
SAME_GREY_LEVELS = 6.0
DARK_GREY_LEVEL = 8.0
FLAT_GREY_LEVELS = 2.0
MIN_FRAMES = 8
CANDIDATES_PER_FRAME = 4
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that may be chosen.

    Attributes:
        frame_id: unique.
        image: (H, W, 3) uint8 BGR.
        slot: at most one picture of a slot is kept, None for no such limit.
    """

    frame_id: str
    image: UInt8
    slot: int | None = None


@dataclass
class FrameSet:
    """The chosen frames, in the order of choice. Filled by ``choose_frames``.

    Attributes:
        spec: the model's input.
        frame_ids: one per frame.
        digests: of the pictures as they were offered, one per frame.
        dark, repeated: how many candidates were left out as black or flat, and as near-duplicates.
        origin: where they came from, for people.
    """

    spec: InputSpec
    capacity: int
    origin: str = ""
    frame_ids: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    dark: int = 0
    repeated: int = 0

    def __post_init__(self) -> None:
        plain = {"layout": "nhwc", "dtype": "uint8", "colour": "bgr", "mean": (0.0,) * 3, "std": (1.0,) * 3}
        self._fit = Preprocessor(self.spec.model_copy(update=plain), 1)
        # the file has no name: it is gone when the object is, whatever happens
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the frames
        shape = (self.capacity, self.spec.height, self.spec.width, 3)
        self._pictures: UInt8 = np.memmap(self._file, np.uint8, "w+", shape=shape)
        self._thumbnails = np.empty((self.capacity, THUMBNAIL, THUMBNAIL), np.float32)

    def __len__(self) -> int:
        return len(self.frame_ids)

    @property
    def is_full(self) -> bool:
        return len(self) >= self.capacity

    def offer(self, candidate: Candidate) -> bool:
        """Take the picture unless it is black, flat or much like one already taken; says whether it was taken."""
        if self.is_full:
            return False
        grey = thumbnail(candidate.image)
        if grey.mean() < DARK_GREY_LEVEL or grey.std() < FLAT_GREY_LEVELS:
            self.dark += 1
            return False
        taken = self._thumbnails[: len(self)]
        if len(taken) and np.abs(taken - grey).max(axis=(1, 2)).min() < SAME_GREY_LEVELS:
            self.repeated += 1
            return False
        tensor, _ = self._fit.images([candidate.image])
        self._thumbnails[len(self)] = grey
        self._pictures[len(self)] = tensor[0]
        self.frame_ids.append(candidate.frame_id)
        self.digests.append(picture_digest(candidate.image))
        return True

    def picture(self, number: int) -> UInt8:
        """(h, w, 3) uint8 BGR as resized for the model."""
        return np.asarray(self._pictures[number])

    def source(self, first: int | None = None) -> TensorSource:
        """The frames as input tensors, (1, …) each; the tensor is reused by the next one."""
        count = len(self) if first is None else min(first, len(self))
        return TensorSource(lambda: self._tensors(count), count)

    def _tensors(self, count: int) -> Iterator[Array]:
        # a picture of the model's own size is neither scaled nor padded again
        preprocessor = Preprocessor(self.spec, 1)
        for number in range(count):
            yield preprocessor.images([self._pictures[number]])[0]


def thumbnail(image: UInt8) -> Float32:
    """(16, 16) grey levels."""
    small = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    grey: Float32 = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)
    return grey


def choose_frames(
    candidates: Iterable[Candidate],
    spec: InputSpec,
    count: int,
    *,
    origin: str,
    min_frames: int = MIN_FRAMES,
    step: Step = lambda: None,
) -> FrameSet:
    """Fill a frame set from candidates, in their order, until it is full.

    Raises:
        DataError: fewer than ``min_frames`` were usable.
    """
    chosen = FrameSet(spec, count, origin)
    offered, used = 0, set[tuple[str, int]]()
    for candidate in candidates:
        offered += 1
        slot = None if candidate.slot is None else (candidate.frame_id.rpartition("#")[0], candidate.slot)
        if slot not in used and chosen.offer(candidate) and slot is not None:
            used.add(slot)
        step()
        if chosen.is_full:
            break
    if len(chosen) < min(min_frames, count):
        raise DataError(
            f"{origin}: {len(chosen)} usable calibration frames of {offered}, at least {min(min_frames, count)} are "
            f"needed ({chosen.dark} black or flat, {chosen.repeated} near-duplicates left out); give more varied frames"
        )
    return chosen


def dataset_candidates(dataset: Dataset, seed: int) -> Iterator[Candidate]:
    """All pictures of a data set in seeded random order."""
    order = list(range(len(dataset)))
    random.Random(seed).shuffle(order)
    for place in order:
        sample = dataset[place]
        yield Candidate(sample.image_id, sample.image)


def folder_candidates(folder: Path, seed: int) -> Iterator[Candidate]:
    """All pictures below a folder in seeded random order.

    Raises:
        DataError: there are none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not paths:
        raise DataError(f"{folder}: has no pictures ({', '.join(sorted(PICTURES))})")
    random.Random(seed).shuffle(paths)
    for path in paths:
        image = load_image(path)
        if image is not None:
            yield Candidate(str(path.relative_to(folder)), image)


def source_candidates(source: Source, name: str, count: int, seed: int, every_s: float = 0.5) -> Iterator[Candidate]:
    """Pictures of a video or camera, spread over time.

    A file of known length is cut into equal stretches with one random frame of each; of anything else one frame per
    ``every_s`` is taken, by media time where there is one.

    Args:
        count: how many frames are wanted; four times as many are offered, because some will be left out.
    """
    try:
        total = source.info.num_frames
        if total:
            yield from _by_number(source, name, spread(total, count * CANDIDATES_PER_FRAME, seed))
        else:
            yield from _by_time(source, name, count * CANDIDATES_PER_FRAME, every_s)
    finally:
        source.close()


def _by_time(source: Source, name: str, limit: int, every_s: float) -> Iterator[Candidate]:
    due_ns, number, offered = 0, 0, 0
    while offered < limit and (got := source.read()) is not None:
        image, pts_ns = got
        now_ns = time.monotonic_ns() if pts_ns is None else pts_ns
        if now_ns >= due_ns:
            due_ns, offered = now_ns + int(every_s * 1e9), offered + 1
            yield Candidate(f"{name}#{number}", image)
        number += 1


def _by_number(source: Source, name: str, wanted: Sequence[int]) -> Iterator[Candidate]:
    """The numbered frames of a file; neighbours share a slot, of which one will be kept."""
    slots = {frame: place // CANDIDATES_PER_FRAME for place, frame in enumerate(wanted)}
    number = 0
    while number <= wanted[-1] and (got := source.read()) is not None:
        if number in slots:
            yield Candidate(f"{name}#{number}", got[0], slots[number])
        number += 1


def spread(total: int, count: int, seed: int) -> list[int]:
    """``count`` numbers below ``total``, one at random from each of as many equal stretches."""
    count = min(total, count)
    rng = random.Random(seed)
    edges = [total * place // count for place in range(count + 1)]
    return [rng.randrange(first, last) for first, last in pairwise(edges)]


def interleave(streams: Sequence[Iterator[Candidate]]) -> Iterator[Candidate]:
    """One candidate of every stream in turn, so that each gets its share."""
    for row in zip_longest(*streams):
        yield from (candidate for candidate in row if candidate is not None)
