"""Batches: the same ones for the same seed, however they are shared and prepared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge.models.manifest import InputSpec
from edge.models.preprocess import Preprocessor
from export.data.augment import AugmentSettings
from export.data.loader import BatchSamples, Loader, make_loader
from export.data.sample import DataTask, Sample

SIZE = (32, 48)
STILL = AugmentSettings(flip=0, crop=0, colour=0, blur=0, noise=0, jpeg=0)


class Coloured:
    """Pictures of different sizes and one object each."""

    name = "coloured"
    classes = ("thing",)
    fingerprint = "0" * 64

    def __init__(self, count: int, task: DataTask = "detect") -> None:
        self._count = count
        self.task = task

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (30 + index % 5, 40 + index % 7, 3), np.uint8)
        box = np.array([[2, 3, 20, 25]], np.float32)
        rest = np.zeros(1, np.int32), np.zeros(1, np.bool_), np.ones(1, np.float32)
        mask = np.full(image.shape[:2], index % 3, np.uint8) if self.task == "segment" else None
        return Sample(image, f"{index}", box, *rest, mask=mask, label=index if self.task == "classify" else None)


def loader(count: int = 20, *, task: DataTask = "detect", train: bool = True, **options: int) -> Loader:
    settings = AugmentSettings(mosaic=0.5, mixup=0.3, cutout=0.3)
    chosen: dict[str, Any] = {"batch_size": 4, "seed": 1, "epoch": 0, **options}
    return make_loader(Coloured(count, task), size=SIZE, augment=settings, train=train, **chosen)


def assert_same(one: BatchSamples, other: BatchSamples) -> None:
    assert one.ids == other.ids
    np.testing.assert_array_equal(one.images, other.images)
    for first, second in zip(one.boxes, other.boxes, strict=True):
        np.testing.assert_array_equal(first, second)


def test_epoch_repeats_and_epochs_differ() -> None:
    for one, other in zip(loader(), loader(), strict=True):
        assert_same(one, other)
    assert [batch.ids for batch in loader()] != [batch.ids for batch in loader(epoch=1)]
    assert [batch.ids for batch in loader()] != [batch.ids for batch in loader(seed=2)]


def test_threads_change_nothing() -> None:
    for one, other in zip(loader(), loader(num_workers=3), strict=True):
        assert_same(one, other)


def test_broken_off_epoch_leaves_no_threads() -> None:
    import threading

    batches = iter(loader(num_workers=2))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_skipping_goes_on_where_training_stopped() -> None:
    rest = list(loader(skip_batches=2))
    assert len(rest) == 3 and len(loader(skip_batches=2)) == 3
    for one, other in zip(rest, list(loader())[2:], strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("world_size", [2, 4])
def test_machines_together_make_the_same_batches(world_size: int) -> None:
    shares = [list(loader(rank=rank, world_size=world_size)) for rank in range(world_size)]
    for number, whole in enumerate(loader()):
        parts = [share[number] for share in shares]
        np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
        assert [name for part in parts for name in part.ids] == whole.ids


def test_training_takes_whole_batches_of_every_picture_once() -> None:
    names = [name for batch in loader(22) for name in batch.ids]
    assert len(names) == len(set(names)) == 20


def test_set_smaller_than_a_batch_is_repeated() -> None:
    (batch,) = loader(3, batch_size=8)
    assert len(batch.ids) == 8 and set(batch.ids) == {"0", "1", "2"}


def test_validation_sees_every_picture_in_order() -> None:
    names = [name for batch in loader(10, train=False) for name in batch.ids]
    assert names == [str(number) for number in range(10)]


def test_validation_pictures_are_those_of_the_runtime() -> None:
    spec = InputSpec(name="frames", width=48, height=32, layout="nhwc", dtype="uint8", colour="bgr")
    dataset = Coloured(4)
    preprocessor = Preprocessor(spec, 4)
    tensor, letterboxes = preprocessor.images([dataset[number].image for number in range(4)])
    (batch,) = loader(4, train=False)
    np.testing.assert_array_equal(batch.images, tensor)
    for number, box in enumerate(letterboxes):
        np.testing.assert_allclose(batch.boxes[number], box.to_model(dataset[number].boxes), atol=0.5)


def test_weights_draw_some_pictures_more_often() -> None:
    weights = np.ones(20)
    weights[7] = 100.0
    batches = make_loader(Coloured(20), size=SIZE, batch_size=20, augment=STILL, seed=0, epoch=0, weights=weights)
    assert batches.batch(0).ids.count("7") > 8


@pytest.mark.parametrize("train", [True, False])
def test_masks_and_labels_are_stacked(train: bool) -> None:
    segment = loader(task="segment", train=train).batch(0)
    assert segment.masks is not None and segment.masks.shape == (4, *SIZE) and segment.label is None
    classify = loader(task="classify", train=train).batch(0)
    assert classify.label is not None and classify.label.tolist() == [int(name) for name in classify.ids]


def test_shares_of_mixed_labels_are_stacked() -> None:
    settings = replace(STILL, mixup=0.5)
    batches = [
        make_loader(Coloured(40, "classify"), size=SIZE, batch_size=40, augment=settings, seed=seed, epoch=0).batch(0)
        for seed in range(2)
    ]
    shares = [batch.label_share for batch in batches]
    assert shares[0] is not None and shares[1] is not None
    assert (shares[0] != shares[1]).any()
    for batch in batches:
        assert batch.label is not None and batch.second_label is not None and batch.label_share is not None
        whole = batch.label_share == 1
        assert 5 < whole.sum() < 35
        assert (batch.second_label[whole] == batch.label[whole]).all()
        assert (batch.second_label[~whole] != batch.label[~whole]).any()


def test_uneven_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 4 cannot be shared evenly by 3 processes"):
        loader(world_size=3)


def test_empty_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="coloured has no pictures"):
        loader(0)
