"""Accuracy is never judged on a picture that calibration has seen, whatever it is called the second time."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import ModelProto

from calib.calibrate import calibrate
from calib.frames import choose_frames, dataset_candidates
from calib.ranges import RangeTable, load_table
from calib.seen_pictures import bare_id, base_of, seen_pictures
from edge.commands.calibrate import calibrate as calibrate_command
from edge.errors import DataError
from edge.models.manifest import InputSpec, Manifest, write_sidecar
from export.data.open_data import first, open_dataset
from export.data.sample import Dataset
from export.quantize.gate import unseen_part


def write_coco(folder: Path, seed: int, count: int = 12) -> str:
    """Address of ``count`` different pictures called 0.png, 1.png, …, cats and dogs in turn."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((8, 8, 1))))
    labels = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 32, "height": 32} for n in range(count)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1 + n % 2, "bbox": [1, 2, 10, 20]} for n in range(count)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (folder / "labels.json").write_text(json.dumps(labels))
    return f"coco:{folder / 'labels.json'}"


class Shop:
    """A model and two unrelated data sets that call their pictures alike."""

    def __init__(self, folder: Path, model: ModelProto, spec: InputSpec) -> None:
        self.path = folder / "tiny.onnx"
        onnx.save(model, self.path)
        self.manifest = Manifest(name="tiny", task="segment", head="semantic", input=spec, classes=("a", "b", "c", "d"))
        write_sidecar(self.manifest, self.path)
        self.one, self.other = write_coco(folder / "one", 1), write_coco(folder / "other", 2)
        self.folder = folder

    def calibrate(self, *addresses: str, merge: Path | None = None) -> RangeTable:
        out = self.folder / f"{len(addresses)}-{merge is not None}.json"
        calibrate_command(self.path, data=list(addresses), frames=24, ranges=out, merge=merge, as_json=True)
        return load_table(out)

    def calibrate_part(self, address: str, count: int) -> RangeTable:
        dataset = open_dataset(address)
        part = choose_frames(dataset_candidates(dataset, 0), self.manifest.input, count, origin="t", min_frames=1)
        out = self.folder / "part.json"
        return calibrate(self.path, self.manifest, part, out, datasets=[dataset.fingerprint]).table


@pytest.fixture
def shop(tmp_path: Path, model: ModelProto, spec: InputSpec) -> Shop:
    return Shop(tmp_path, model, spec)


def left(address: str, table: RangeTable) -> int:
    try:
        return len(unseen_part(open_dataset(address), table))
    except DataError:
        return 0


def test_every_data_set_of_a_calibration_is_left_out(shop: Shop) -> None:
    table = shop.calibrate(shop.one, shop.other)
    assert (left(shop.one, table), left(shop.other, table)) == (0, 0)
    assert table.datasets == (open_dataset(shop.one).fingerprint, open_dataset(shop.other).fingerprint)


def test_the_pictures_of_a_merged_table_are_left_out(shop: Shop) -> None:
    shop.calibrate(shop.one)
    table = shop.calibrate(shop.other, merge=shop.folder / "1-False.json")
    assert (left(shop.one, table), left(shop.other, table)) == (0, 0)
    assert len(table.datasets) == 2 and len(table.frame_digests) == len(table.frame_ids) == 24


def test_a_part_of_the_classes_shows_the_same_pictures(shop: Shop) -> None:
    table = shop.calibrate(shop.one)
    assert left(f"{shop.one}?only=cat", table) == 0
    assert left(shop.one, shop.calibrate(f"{shop.one}?only=cat,dog")) == 0


def test_joined_sets_are_known_by_their_pictures(shop: Shop) -> None:
    assert left(f"{shop.one} + {shop.other}", shop.calibrate(shop.one)) == 12
    assert left(shop.other, shop.calibrate(f"{shop.one} + {shop.other}")) == 0


def test_other_pictures_of_the_same_names_are_judged(shop: Shop) -> None:
    assert left(shop.other, shop.calibrate(shop.one)) == 12


def test_within_one_data_set_the_name_is_enough(shop: Shop) -> None:
    # as where another OpenCV decodes the files to other pixels
    table = shop.calibrate_part(shop.one, 5).model_copy(update={"frame_digests": ("0" * 24,) * 5})
    whole: Dataset = open_dataset(shop.one)
    assert len(unseen_part(whole, table)) == 7
    seen = seen_pictures(table)
    part = first(whole, 6)
    assert seen.has(table.frame_ids[0], whole[0].image, part.fingerprint)
    assert left(shop.other, table) == 12


def test_a_table_without_hashes_of_its_pictures_is_refused(shop: Shop) -> None:
    raw = json.loads(shop.calibrate_part(shop.one, 5).to_json())
    del raw["frame_digests"]
    path = shop.folder / "bare.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError, match="not a range table, frame_digests: field required; run edge calibrate again"):
        load_table(path)


@pytest.mark.parametrize(
    ("picture_id", "bare"),
    [("7.jpg", "7.jpg"), ("train:7.jpg", "7.jpg"), ("synthetic:street?a=1:street-1-2", "street-1-2")],
)
def test_the_name_of_a_joined_set_is_no_part_of_the_id(picture_id: str, bare: str) -> None:
    assert bare_id(picture_id) == bare


@pytest.mark.parametrize("suffix", ["", ":100", "-7", ":100-7"])
def test_a_part_has_the_fingerprint_of_the_whole(suffix: str) -> None:
    assert base_of("ab" * 32 + suffix) == "ab" * 32
