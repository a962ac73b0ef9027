"""What a data set contains."""

from __future__ import annotations

from export.data.open_data import open_dataset
from export.data.statistics import measure


def test_counts_of_the_synthetic_street_add_up() -> None:
    dataset = open_dataset("synthetic:street?count=3&size=160x96")
    found = measure(dataset)
    samples = [dataset[number] for number in range(3)]
    assert sum(row["objects"] for row in found.per_class.values()) == sum(int((~one.ignore).sum()) for one in samples)
    assert found.num_ignored == sum(int(one.ignore.sum()) for one in samples)
    assert found.widths == [160.0] * 5 and found.heights == [96.0] * 5


def test_pixels_of_masks_add_up() -> None:
    found = measure(open_dataset("synthetic:street?count=2&size=160x96", "segment"))
    assert 0 < sum(row["pixels"] for row in found.per_class.values()) <= 2 * 160 * 96
    assert found.num_images == 2 and found.box_sides == []
