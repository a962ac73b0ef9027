"""The cache of decoded samples: equal, bounded, safe against torn files and shared by processes."""

from __future__ import annotations

import logging
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.errors import DataError
from export.data.cache import CachedDataset, fit_sample
from export.data.loader import letterbox_sample
from export.data.sample import DataTask, Sample

SIZE = (32, 48)


class Counted:
    """Counts how often pictures are decoded."""

    name = "counted"
    classes = ("a", "b", "c")
    fingerprint = "ab" * 32

    def __init__(self, task: DataTask = "detect", count: int = 6) -> None:
        self.task = task
        self.count = count
        self.num_decoded = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        self.num_decoded += 1
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (60 + index, 50 + 7 * index, 3), np.uint8)
        count = index  # the first one has no objects
        return Sample(
            image,
            f"folder/ä {index}.jpg",
            boxes=rng.uniform(0, 50, (count, 4)).astype(np.float32),
            labels=rng.integers(0, 3, count).astype(np.int32),
            ignore=rng.random(count) < 0.5,
            weight=rng.random(count).astype(np.float32),
            mask=rng.integers(0, 3, image.shape[:2], np.uint8) if self.task == "segment" else None,
            label=index % 3 if self.task == "classify" else None,
        )


def assert_same(one: Sample, other: Sample) -> None:
    assert (one.image_id, one.label) == (other.image_id, other.label)
    for name in ("image", "boxes", "labels", "ignore", "weight", "mask"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("task", ["detect", "segment", "classify"])
def test_cached_samples_equal_fresh_ones_and_are_decoded_once(tmp_path: Path, task: DataTask) -> None:
    dataset = Counted(task)
    fresh = [fit_sample(dataset[number], SIZE) for number in range(6)]
    dataset.num_decoded = 0
    cached = CachedDataset(dataset, tmp_path, SIZE)
    for _ in range(3):
        for number in range(6):
            assert_same(cached[number], fresh[number])
    assert dataset.num_decoded == 6
    # a later run finds them as well
    again = CachedDataset(dataset, tmp_path, SIZE)
    assert_same(again[4], fresh[4])
    assert dataset.num_decoded == 6


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_letterboxed_pixels_are_those_of_the_original(tmp_path: Path, task: DataTask) -> None:
    dataset = Counted(task)
    cached = CachedDataset(dataset, tmp_path, SIZE)
    for number in range(6):
        one, other = letterbox_sample(dataset[number], SIZE), letterbox_sample(cached[number], SIZE)
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)


def test_torn_slot_is_decoded_again(tmp_path: Path) -> None:
    dataset = Counted()
    cached = CachedDataset(dataset, tmp_path, SIZE)
    wanted = cached[3]
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    place = data.index(wanted.image.tobytes())
    data[place + 100] ^= 1
    path.write_bytes(data)
    again = CachedDataset(dataset, tmp_path, SIZE)
    assert_same(again[3], wanted)
    assert dataset.num_decoded == 2


def test_cache_is_bounded_and_the_rest_decoded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = Counted()
    with caplog.at_level(logging.WARNING):
        cached = CachedDataset(dataset, tmp_path, SIZE, max_bytes=100_000)
    assert "counted: 2 of 6 samples fit into" in caplog.text
    for _ in range(2):
        samples = [cached[number] for number in range(6)]
    assert_same(samples[5], fit_sample(Counted()[5], SIZE))
    assert dataset.num_decoded == 2 + 2 * 4
    (path,) = tmp_path.iterdir()
    assert path.stat().st_blocks * 512 <= 100_000


def test_sample_with_too_many_labels_is_not_cached(tmp_path: Path) -> None:
    class Crowded(Counted):
        def __getitem__(self, index: int) -> Sample:
            many = 2000
            return replace(
                super().__getitem__(0),
                boxes=np.ones((many, 4), np.float32),
                labels=np.zeros(many, np.int32),
                ignore=np.zeros(many, np.bool_),
                weight=np.ones(many, np.float32),
            )

    dataset = Crowded()
    cached = CachedDataset(dataset, tmp_path, SIZE)
    assert len(cached[0].boxes) == len(cached[0].boxes) == 2000
    assert dataset.num_decoded == 2


def test_other_labels_or_sizes_have_their_own_file(tmp_path: Path) -> None:
    other = Counted()
    other.fingerprint = "cd" * 32
    part = Counted()
    part.fingerprint = "ab" * 32 + ":3"
    for dataset, size in ((Counted(), SIZE), (Counted(), (48, 48)), (other, SIZE), (part, SIZE)):
        CachedDataset(dataset, tmp_path, size).close()
    assert len(list(tmp_path.iterdir())) == 4


def test_unwritable_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="the cache cannot be written"):
        CachedDataset(Counted(), tmp_path / "file" / "cache", SIZE)


def _fill(folder: Path) -> None:
    cached = CachedDataset(Counted(count=40), folder, SIZE)
    for number in range(40):
        assert_same(cached[number], fit_sample(Counted()[number], SIZE))


def test_two_processes_fill_one_cache(tmp_path: Path) -> None:
    workers = [multiprocessing.get_context("fork").Process(target=_fill, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    dataset = Counted(count=40)
    cached = CachedDataset(dataset, tmp_path, SIZE)
    for number in range(40):
        assert_same(cached[number], fit_sample(Counted()[number], SIZE))
    assert dataset.num_decoded == 0
