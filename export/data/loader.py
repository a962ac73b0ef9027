"""Batches of training pictures, the same ones for the same seed however many workers and machines make them.

B batch, N objects, h w model pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from edge.models.manifest import InputSpec
from edge.models.preprocess import Preprocessor
from edge.types import Bool, Float32, Float64, Int32, Int64, UInt8
from export.data.augment import AugmentSettings, Size, augment, letterboxed
from export.data.geometry import Window, paint_mask, place_labels
from export.data.sample import IGNORE_LABEL, NO_OBJECT, Dataset, Sample

# enough that no worker waits for the trainer, and few enough that memory stays small
_BATCHES_AHEAD = 3


@dataclass(frozen=True, slots=True)
class BatchSamples:
    """B pictures and their labels.

    Attributes:
        images: (B, h, w, 3) uint8 BGR.
        boxes: B arrays (N, 4) float32 in model pixels.
        labels, ignore, weight: B arrays (N,) each, as in ``Sample``.
        masks: (B, h, w) uint8 class ids, 255 unlabelled; segmentation only.
        label: (B,) int64; classification only.
        second_label: (B,) int64, what was mixed in; None if no picture of the batch is mixed.
        label_share: (B,) float32 of ``label``, 1 for pictures that are not mixed; None with ``second_label``.
        owner: (B, h, w) uint8 rows of ``boxes``, 255 for none; where masks are learned.
        points: B arrays (N, K, 3) of key points in model pixels; where key points are learned.
        ids: image ids, to name a picture that breaks the training.
    """

    images: UInt8
    boxes: list[Float32]
    labels: list[Int32]
    ignore: list[Bool]
    weight: list[Float32]
    masks: UInt8 | None
    label: Int64 | None
    ids: list[str]
    second_label: Int64 | None = None
    label_share: Float32 | None = None
    owner: UInt8 | None = None
    points: list[Float32] | None = None


class Loader:
    """One epoch of batches; may be iterated many times, each time with the same result. Made by ``make_loader``."""

    def __init__(
        self,
        dataset: Dataset,
        size: Size,
        settings: AugmentSettings | None,
        seeds: tuple[int, int],
        batches: list[list[tuple[int, int]]],
        num_workers: int,
    ) -> None:
        self._dataset = dataset
        self._size = size
        self._settings = settings
        self._seeds = seeds
        self._batches = batches
        self._num_workers = num_workers

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[BatchSamples]:
        if self._num_workers == 0:
            return (self.batch(number) for number in range(len(self)))
        return self._prefetched()

    def batch(self, number: int) -> BatchSamples:
        """Make one batch of this epoch; depends on nothing but its number."""
        return collate([self.sample(position, index) for position, index in self._batches[number]])

    def sample(self, position: int, index: int) -> Sample:
        """Make the picture at a position of the epoch from a picture of the data set."""
        sample = self._dataset[index]
        if self._settings is None:
            return letterbox_sample(sample, self._size)
        # chance hangs on the place in the epoch alone, so workers and machines may share the epoch in any way
        rng = np.random.default_rng((*self._seeds, position))
        dataset = self._dataset
        return augment(sample, self._size, self._settings, rng, dataset.__getitem__, len(dataset), dataset.task)

    def _prefetched(self) -> Iterator[BatchSamples]:
        with ThreadPoolExecutor(self._num_workers, thread_name_prefix="loader") as pool:
            waiting: deque[list[Future[Sample]]] = deque()
            try:
                for batch in self._batches:
                    waiting.append([pool.submit(self.sample, *place) for place in batch])
                    if len(waiting) > _BATCHES_AHEAD:
                        yield collate([future.result() for future in waiting.popleft()])
                while waiting:
                    yield collate([future.result() for future in waiting.popleft()])
            finally:
                for future in (future for batch in waiting for future in batch):
                    future.cancel()


def make_loader(
    dataset: Dataset,
    *,
    size: Size,
    batch_size: int,
    augment: AugmentSettings,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    train: bool = True,
    skip_batches: int = 0,
    weights: Float64 | None = None,
) -> Loader:
    """Plan one epoch.

    Args:
        dataset: where pictures come from.
        size: height and width of the batches.
        batch_size: pictures per batch of all machines together; each takes its slice of every such batch.
        augment: used for training only.
        seed, epoch: decide order and chance; nothing else does.
        rank, world_size: which slice.
        num_workers: threads that prepare pictures; 0 prepares them in the caller's thread.
        train: shuffled, augmented, whole batches only; else in order, letterboxed as the runtime does, all pictures.
        skip_batches: batches that were trained on before an interruption.
        weights: (len(dataset),) how often each picture is drawn, with replacement; None takes every one once.

    Raises:
        ValueError: the data set is empty, or training batches cannot be shared evenly.
    """
    if len(dataset) == 0:
        raise ValueError(f"{dataset.name} has no pictures")
    if train and batch_size % world_size:
        raise ValueError(f"a batch of {batch_size} cannot be shared evenly by {world_size} processes")
    order = epoch_order(len(dataset), batch_size, seed, epoch, weights) if train else np.arange(len(dataset))
    places = list(enumerate(order.tolist()))
    batches = [places[start : start + batch_size] for start in range(0, len(places), batch_size)][skip_batches:]
    shares = [_slice_of(batch, rank, world_size) for batch in batches]
    settings = augment if train else None
    return Loader(dataset, size, settings, (seed, epoch), [share for share in shares if share], num_workers)


def epoch_order(num_samples: int, batch_size: int, seed: int, epoch: int, weights: Float64 | None = None) -> Int64:
    """Which picture comes when in a training epoch: whole batches; a set smaller than one batch is repeated."""
    rng: Generator = np.random.default_rng((seed, epoch))
    num_batches = max(1, num_samples // batch_size)
    if weights is not None:
        return rng.choice(num_samples, num_batches * batch_size, p=weights / weights.sum())
    order: Int64 = rng.permutation(num_samples)
    return np.resize(order, num_batches * batch_size)


def letterbox_sample(sample: Sample, size: Size) -> Sample:
    """The sample as the runtime would see it: its picture from ``edge.models.preprocess``, its labels moved along."""
    height, width = size
    spec = InputSpec(name="frames", width=width, height=height, layout="nhwc", dtype="uint8", colour="bgr")
    tensor, _ = Preprocessor(spec, 1).images([sample.image])
    placement = letterboxed(sample.image.shape[1], sample.image.shape[0], size)
    whole = Window(0, 0, width, height)
    mask = None
    if sample.mask is not None:
        mask = np.full(size, IGNORE_LABEL, np.uint8)
        paint_mask(sample.mask, mask, placement, whole)
    moved = place_labels(sample, placement, whole)
    owner = None
    if moved.owner is not None:
        owner = np.full(size, NO_OBJECT, np.uint8)
        paint_mask(moved.owner, owner, placement, whole)
    return replace(moved, image=tensor[0], mask=mask, owner=owner)


def collate(samples: list[Sample]) -> BatchSamples:
    """Stack samples of one size."""
    masks = [sample.mask for sample in samples if sample.mask is not None]
    labels = [sample.label for sample in samples if sample.label is not None]
    second = [sample.label if sample.second_label is None else sample.second_label for sample in samples]
    owners = [sample.owner for sample in samples if sample.owner is not None]
    points = [sample.points for sample in samples if sample.points is not None]
    is_mixed = any(sample.second_label is not None for sample in samples)
    return BatchSamples(
        images=np.stack([sample.image for sample in samples]),
        boxes=[sample.boxes for sample in samples],
        labels=[sample.labels for sample in samples],
        ignore=[sample.ignore for sample in samples],
        weight=[sample.weight for sample in samples],
        masks=np.stack(masks) if masks else None,
        label=np.array(labels, np.int64) if labels else None,
        ids=[sample.image_id for sample in samples],
        second_label=np.array(second, np.int64) if is_mixed else None,
        label_share=np.array([sample.label_share for sample in samples], np.float32) if is_mixed else None,
        owner=np.stack(owners) if owners else None,
        points=points or None,
    )


def _slice_of(batch: list[tuple[int, int]], rank: int, world_size: int) -> list[tuple[int, int]]:
    low, high = (len(batch) * edge // world_size for edge in (rank, rank + 1))
    return batch[low:high]
