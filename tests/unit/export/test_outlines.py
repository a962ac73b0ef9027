"""Masks and key points of COCO files: read as pycocotools reads them, and whatever is wrong is named and left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import DataError
from edge.masks import encode_rle
from export.data.instances import InstanceDataset
from export.data.open_data import open_dataset
from export.data.outlines import filled, outline_fault, run_lengths
from export.data.sample import NO_OBJECT, Dataset

pytest.importorskip("pycocotools")
WIDTH, HEIGHT = 40, 30
SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]


def coco(folder: Path, rows: list[dict[str, Any]], names: tuple[str, ...] = ("tip", "left_end", "right_end")) -> str:
    """The address of a data set of one picture with these objects."""
    cv2.imwrite(str(folder / "a.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    objects = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": [5, 5, 30, 20], "iscrowd": 0, **row}
        for number, row in enumerate(rows, start=1)
    ]
    category = {"id": 1, "name": "thing", "keypoints": list(names)}
    images = [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}]
    (folder / "labels.json").write_text(
        json.dumps({"images": images, "annotations": objects, "categories": [category]})
    )
    return f"coco:{folder / 'labels.json'}"


def instances(dataset: Dataset, names: tuple[str, ...] = ("tip", "left_end", "right_end")) -> InstanceDataset:
    return InstanceDataset(dataset, has_masks=True, keypoints=names)


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_run_lengths_are_read_as_they_are_written(seed: int, width: int, height: int, share: float) -> None:
    from pycocotools import mask as peer

    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    text = encode_rle(mask, (0, 0, width, height), (width, height))
    as_numbers = {"size": [height, width], "counts": run_lengths(text, width * height).tolist()}
    for shape in ({"size": [height, width], "counts": text}, as_numbers):
        assert outline_fault(shape, (width, height)) == ""
        np.testing.assert_array_equal(filled(shape, height, width), mask == 1)
    np.testing.assert_array_equal(peer.decode({"size": [height, width], "counts": text.encode()}), mask)


@settings(max_examples=examples(200), deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner),
    max_leaves=12,
))  # fmt: skip
def test_any_value_is_a_mask_or_a_sentence(shape: Any) -> None:
    if shape and not outline_fault(shape, (WIDTH, HEIGHT)):
        assert filled(shape, HEIGHT, WIDTH).shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ("polygon", "neither polygons nor run lengths"),
        ([[1, 2, 3]], "no list of x, y"),
        ([[1, 2, "3", 4, 5, 6]], "no number"),
        ([[1, 2, float("nan"), 4, 5, 6]], "no number"),
        ([[1, 2, 1e300, 4, 5, 6]], "a corner at 1e\\+300"),
        ({"counts": "x"}, "neither polygons"),
        ({"size": [30], "counts": []}, "without height and width"),
        ({"size": [40, 30], "counts": [1200]}, "30x40 in a picture of 40x30"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "1000000000x1000000000"),
        ({"size": [HEIGHT, WIDTH], "counts": [1199]}, "do not fill"),
        ({"size": [HEIGHT, WIDTH], "counts": [1300, -100]}, "do not fill"),
        ({"size": [HEIGHT, WIDTH], "counts": 7}, "neither whole numbers nor text"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x00\x7f"}, "no text of COCO's"),
        ({"size": [HEIGHT, WIDTH], "counts": "PPPPPPPPPPPPPPPP"}, "no text of COCO's"),
        ({"size": [HEIGHT, WIDTH], "counts": "P"}, "middle of a number"),
        ({"size": [HEIGHT, WIDTH], "counts": "oooo0"}, "do not fill"),
    ],
)
def test_a_faulty_mask_is_named_and_left_out(tmp_path: Path, shape: Any, fault: str) -> None:
    uri = coco(tmp_path, [{"segmentation": shape}, {"segmentation": [SQUARE]}])
    with pytest.raises(DataError, match=f"faulty mask: a.png .*{fault}"):
        open_dataset(uri)
    sample = instances(open_dataset(uri, on_error="skip"))[0]
    assert sample.owner is not None and set(np.unique(sample.owner)) == {1, NO_OBJECT}


@pytest.mark.parametrize(
    ("points", "fault"),
    [
        ("nose", "expected x, y and"),
        ([1, 2], "expected x, y and"),
        ([1, 2, None] * 3, "expected x, y and"),
        ([1, float("inf"), 2] * 3, "expected x, y and"),
        ([1, 2, 2], "3 numbers for 3 points"),
        ([1, 2, 3] * 3, "visibility 3"),
    ],
)
def test_faulty_key_points_are_named_and_left_out(tmp_path: Path, points: Any, fault: str) -> None:
    good = [1, 2, 2, 3, 4, 1, 0, 0, 0]
    uri = coco(tmp_path, [{"keypoints": points}, {"keypoints": good}])
    with pytest.raises(DataError, match=f"faulty key points: a.png .*{fault}"):
        open_dataset(uri)
    sample = instances(open_dataset(uri, on_error="skip"))[0]
    assert sample.points is not None
    assert sample.points.reshape(2, 9).tolist() == [[0] * 9, good]


def test_the_smallest_of_overlapping_objects_has_the_pixel_and_a_crowd_has_none(tmp_path: Path) -> None:
    large = [5, 5, 35, 5, 35, 25, 5, 25]
    crowd = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}, "iscrowd": 1}
    uri = coco(tmp_path, [{"segmentation": [SQUARE]}, {"segmentation": [large, [1, 1, 2, 2]]}, crowd])
    owner = instances(open_dataset(uri))[0].owner
    assert owner is not None
    assert owner[15, 15] == 0 and owner[7, 7] == 1 and owner[1, 1] == NO_OBJECT
    assert (owner == 0).sum() == 100 and (owner == 1).sum() == 500


def test_key_points_of_other_names_are_refused(tmp_path: Path) -> None:
    dataset = open_dataset(coco(tmp_path, [{"keypoints": [1, 2, 2] * 3}]))
    with pytest.raises(DataError, match=r"has the 3 key points tip, left_end.*recipe's model.keypoints are the 2 a, b"):
        instances(dataset, ("a", "b"))[0]
