"""The data sets next to the project are read whole and without a fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.data.open_data import open_dataset


@pytest.mark.shared
@pytest.mark.parametrize(
    ("path", "num_images", "num_boxes", "num_ignored"),
    [
        ("detection/voc07/val.json", 450, 1379, 259),
        ("detection/bccd/val.json", 87, 1137, 0),
        ("detection/coco80/instances.json", 111, 1102, 15),
    ],
)
def test_real_detection_sets_open_without_faults(
    shared_data: Path, path: str, num_images: int, num_boxes: int, num_ignored: int
) -> None:
    from export.data.entries import FileDataset

    dataset = open_dataset(str(shared_data / path))
    assert isinstance(dataset, FileDataset) and len(dataset) == num_images
    assert sum(len(entry.boxes) for entry in dataset.entries) == num_boxes
    assert sum(int(entry.ignore.sum()) for entry in dataset.entries) == num_ignored


@pytest.mark.shared
@pytest.mark.parametrize(
    ("path", "num_images", "num_classes"),
    [("segmentation/camvid/val", 101, 11), ("classification/cifar10/val", 600, 10)],
)
def test_real_folders_open_without_faults(shared_data: Path, path: str, num_images: int, num_classes: int) -> None:
    dataset = open_dataset(str(shared_data / path))
    assert (len(dataset), len(dataset.classes)) == (num_images, num_classes)
