"""Data sets of every format: what is read, and what is said about faulty ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import DataError, UsageError
from export.data.checks import Problems
from export.data.image_file import image_size, read_image
from export.data.open_data import first, open_dataset


def write_picture(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((height, width, 3), 90, np.uint8)
    assert cv2.imwrite(str(path), picture)


def make_coco(folder: Path) -> Path:
    for name in ("a.jpg", "b.png"):
        write_picture(folder / "train" / name)
    labels = {
        "images": [
            {"id": 7, "file_name": "train/a.jpg", "width": 40, "height": 30},
            {"id": 9, "file_name": "train/b.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2, 10, 20]},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [5, 5, 5, 5], "iscrowd": 1},
            {"id": 3, "image_id": 9, "category_id": 2, "bbox": [0, 0, 40, 30], "ignore": 1, "score": 0.5},
        ],
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(labels))
    return path


def make_voc(folder: Path) -> Path:
    write_picture(folder / "JPEGImages" / "x.jpg")
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "val.txt").write_text("x\n")
    box = "<xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax>"
    (folder / "Annotations" / "x.xml").write_text(
        "<annotation><filename>x.jpg</filename><size><width>40</width><height>30</height></size>"
        f"<object><name>cat</name><bndbox>{box}</bndbox></object>"
        f"<object><name>ant</name><difficult>1</difficult><bndbox>{box}</bndbox></object></annotation>"
    )
    return folder


def make_yolo(folder: Path) -> Path:
    write_picture(folder / "images" / "train" / "x.jpg")
    write_picture(folder / "images" / "train" / "empty.jpg")
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "labels" / "train" / "x.txt").write_text(
        "1 0.5 0.5 0.5 0.5\n0 0.1 0.1 0.3 0.1 0.3 0.4\n0 .5 .5 1 1 .25\n"
    )
    (folder / "data.yaml").write_text("train: images/train\nnames:\n  0: cat\n  1: 'dog'\nnc: 2\n")
    return folder


def make_masks(folder: Path) -> Path:
    write_picture(folder / "images" / "x.jpg")
    (folder / "masks").mkdir()
    mask = np.zeros((30, 40), np.uint8)
    mask[:10] = 1
    mask[10:12] = 200
    cv2.imwrite(str(folder / "masks" / "x.png"), mask)
    (folder / "classes.json").write_text(json.dumps({"names": ["road", "sky"], "ignore_index": 200}))
    return folder


def make_classes(folder: Path) -> Path:
    for name in ("zebra", "ape"):
        write_picture(folder / name / "1.png")
    return folder


def test_coco_boxes_classes_and_ignored_ones(tmp_path: Path) -> None:
    dataset = open_dataset(f"coco:{make_coco(tmp_path)}")
    assert dataset.classes == ("cat", "dog")
    sample = dataset[0]
    assert sample.image_id == "train/a.jpg" and sample.image.shape == (30, 40, 3)
    assert sample.boxes.tolist() == [[1, 2, 11, 22], [5, 5, 10, 10]]
    assert sample.labels.tolist() == [1, 0] and sample.ignore.tolist() == [False, True]
    assert dataset[1].weight.tolist() == [0.5] and dataset[1].ignore.all()


def test_voc_counts_pixels_from_one(tmp_path: Path) -> None:
    sample = open_dataset(f"voc:{make_voc(tmp_path)}?split=val")[0]
    assert sample.boxes.tolist() == [[0, 0, 40, 30]] * 2
    assert sample.labels.tolist() == [1, 0] and sample.ignore.tolist() == [False, True]


def test_yolo_boxes_polygons_and_scores(tmp_path: Path) -> None:
    dataset = open_dataset(f"yolo:{make_yolo(tmp_path)}?split=train")
    assert dataset.classes == ("cat", "dog")
    empty, sample = dataset[0], dataset[1]
    assert empty.boxes.shape == (0, 4)
    np.testing.assert_allclose(sample.boxes, np.array([[10, 7.5, 30, 22.5], [4, 3, 12, 12], [0, 0, 40, 30]]), atol=1e-4)
    assert sample.labels.tolist() == [1, 0, 0] and sample.weight.tolist() == [1, 1, 0.25]


def test_masks_unlabelled_value_becomes_255(tmp_path: Path) -> None:
    dataset = open_dataset(f"masks:{make_masks(tmp_path)}")
    mask = dataset[0].mask
    assert mask is not None and dataset.task == "segment"
    assert [mask[0, 0], mask[11, 0], mask[29, 0]] == [1, 255, 0]


def test_class_folders_are_sorted_and_a_list_overrules(tmp_path: Path) -> None:
    make_classes(tmp_path)
    assert open_dataset(f"classes:{tmp_path}").classes == ("ape", "zebra")
    (tmp_path / "classes.txt").write_text("zebra\nape\n")
    dataset = open_dataset(f"classes:{tmp_path}")
    assert dataset.classes == ("zebra", "ape") and [dataset[i].label for i in range(2)] == [0, 1]


def test_class_that_a_split_lacks_keeps_its_id(tmp_path: Path) -> None:
    make_classes(tmp_path / "val")
    (tmp_path / "classes.txt").write_text("ape\nbear\nzebra\n")
    dataset = open_dataset(f"classes:{tmp_path / 'val'}")
    assert dataset.classes == ("ape", "bear", "zebra") and dataset[1].label == 2


@pytest.mark.parametrize("make", [make_coco, make_voc, make_yolo, make_masks, make_classes])
def test_bare_path_is_recognised(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert len(open_dataset(str(make(tmp_path)))) > 0


def test_fingerprint_changes_with_labels_and_pictures(tmp_path: Path) -> None:
    path = make_coco(tmp_path)
    before = open_dataset(str(path)).fingerprint
    assert open_dataset(str(path)).fingerprint == before
    write_picture(tmp_path / "train" / "b.png", 40, 30)
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "train" / "b.png"), noise)
    changed = open_dataset(str(path)).fingerprint
    path.write_text(path.read_text().replace("[1, 2, 10, 20]", "[1, 2, 10, 21]"))
    assert len({before, changed, open_dataset(str(path)).fingerprint}) == 3


def test_joined_sets_share_the_classes_of_the_first(tmp_path: Path) -> None:
    coco, yolo = make_coco(tmp_path / "c"), make_yolo(tmp_path / "y")
    (yolo / "data.yaml").write_text("names: [dog, bird]\n")
    joined = open_dataset(f"coco:{coco} + yolo:{yolo}")
    assert joined.classes == ("cat", "dog") and len(joined) == 4
    assert joined[3].labels.tolist() == [1, 1]
    assert len({joined[number].image_id for number in range(4)}) == 4


def test_first_cuts_a_data_set(tmp_path: Path) -> None:
    dataset = open_dataset(str(make_coco(tmp_path)))
    part = first(dataset, 1)
    assert len(part) == 1 and part.fingerprint != dataset.fingerprint
    with pytest.raises(IndexError):
        part[1]


def edit_coco(change: Callable[[dict], object]) -> Callable[[Path], str]:  # type: ignore[type-arg]
    def build(folder: Path) -> str:
        path = make_coco(folder)
        labels = json.loads(path.read_text())
        change(labels)
        path.write_text(json.dumps(labels))
        return f"coco:{path}"

    return build


def edit_file(make: Callable[[Path], Path], scheme: str, name: str, text: str | None) -> Callable[[Path], str]:
    """A data set in which one file has other content, or is missing."""

    def build(folder: Path) -> str:
        make(folder)
        if text is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(text)
        return f"{scheme}:{folder}"

    return build


def cut_picture(folder: Path) -> str:
    path = make_coco(folder)
    picture = folder / "train" / "a.jpg"
    picture.write_bytes(picture.read_bytes()[:-200])
    return f"coco:{path}"


def coloured_mask(folder: Path) -> str:
    make_masks(folder)
    write_picture(folder / "masks" / "x.png")
    return f"masks:{folder}"


def small_mask(folder: Path) -> str:
    make_masks(folder)
    cv2.imwrite(str(folder / "masks" / "x.png"), np.zeros((3, 4), np.uint8))
    return f"masks:{folder}"


def wrong_mask_id(folder: Path) -> str:
    make_masks(folder)
    cv2.imwrite(str(folder / "masks" / "x.png"), np.full((30, 40), 2, np.uint8))
    return f"masks:{folder}"


def broken_json(folder: Path) -> str:
    path = make_coco(folder)
    path.write_text("{")
    return f"coco:{path}"


FAULTS = [
    (
        "coco missing picture",
        edit_coco(lambda raw: raw["images"][0].update(file_name="train/z.jpg")),
        "missing image: ",
    ),
    ("coco cut picture", cut_picture, "unreadable image: "),
    ("coco size", edit_coco(lambda raw: raw["images"][0].update(width=41)), "label file says 41x30, found 40x30"),
    ("coco id twice", edit_coco(lambda raw: raw["images"][1].update(id=7)), "duplicated image id: labels.json (id 7,"),
    ("coco name twice", edit_coco(lambda raw: raw["images"][1].update(file_name="train/a.jpg")), "duplicated image id"),
    ("coco category", edit_coco(lambda raw: raw["annotations"][0].update(category_id=3)), "train/a.jpg (category 3)"),
    ("coco image id", edit_coco(lambda raw: raw["annotations"][0].update(image_id=3)), "label without image: "),
    ("coco three numbers", edit_coco(lambda raw: raw["annotations"][0].update(bbox=[1, 2, 3])), "box is not a number"),
    (
        "coco empty box",
        edit_coco(lambda raw: raw["annotations"][0].update(bbox=[1, 2, 0, 3])),
        "empty box: train/a.jpg",
    ),
    ("coco outside", edit_coco(lambda raw: raw["annotations"][0].update(bbox=[30, 2, 20, 3])), "box outside the image"),
    ("coco no key", edit_coco(lambda raw: raw["images"][0].pop("file_name")), "images[0] has no 'file_name'"),
    ("coco no list", edit_coco(lambda raw: raw.pop("categories")), "lists images, annotations and categories"),
    ("coco no json", broken_json, "labels.json: no valid JSON"),
    ("voc xml", edit_file(make_voc, "voc", "Annotations/x.xml", "<annotation>"), "unreadable label file: "),
    ("voc picture", edit_file(make_voc, "voc", "JPEGImages/x.jpg", None), "missing image: "),
    ("voc class", edit_file(make_voc, "voc", "classes.txt", "ant\n"), "unknown class: x.xml ('cat')"),
    (
        "voc empty",
        edit_file(make_voc, "voc", "Annotations/x.xml", None),
        "expected VOC annotations (*.xml), found none",
    ),
    ("yolo words", edit_file(make_yolo, "yolo", "labels/train/x.txt", "1 a b c d\n"), "x.txt:1 ('1 a b c d')"),
    ("yolo short", edit_file(make_yolo, "yolo", "labels/train/x.txt", "1 0.1 0.1\n"), "unreadable label line: x.txt:1"),
    ("yolo class", edit_file(make_yolo, "yolo", "labels/train/x.txt", "2 .5 .5 .5 .5\n"), "train/x.jpg (class 2)"),
    ("yolo outside", edit_file(make_yolo, "yolo", "labels/train/x.txt", "0 .9 .5 .5 .5\n"), "box outside the image"),
    ("yolo names", edit_file(make_yolo, "yolo", "data.yaml", None), "class names in data.yaml or classes.txt, found"),
    ("yolo name ids", edit_file(make_yolo, "yolo", "data.yaml", "names: {0: a, 2: b}\n"), "found [0, 2]"),
    ("masks colours", coloured_mask, "8-bit class ids with one channel, found uint8 of shape (30, 40, 3)"),
    ("masks size", small_mask, "(picture 40x30, mask 4x3)"),
    ("masks value", wrong_mask_id, "x.png (values 2)"),
    ("masks missing", edit_file(make_masks, "masks", "masks/x.png", None), "missing mask: "),
    ("masks names", edit_file(make_masks, "masks", "classes.json", None), "class names in classes.json or classes.txt"),
    ("masks list", edit_file(make_masks, "masks", "classes.json", '{"a": 1}'), "expected a list of class names"),
    ("classes unlisted", edit_file(make_classes, "classes", "classes.txt", "ape\n"), "unknown class: "),
    ("classes empty", edit_file(make_classes, "classes", "ape/1.png", None), "class without images: "),
    ("classes unreadable", edit_file(make_classes, "classes", "ape/1.png", "text"), "unreadable image: "),
]


@pytest.mark.parametrize(("build", "message"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_fault_is_named(tmp_path: Path, build: Callable[[Path], str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(build(tmp_path))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "kind", "message"),
    [
        ("coco:nowhere.json", DataError, "coco:nowhere.json: no such file or folder"),
        ("nowhere", DataError, "classes:DIR "),
        ("voc:{}?part=val", UsageError, "unknown option 'part'; voc: takes split, only"),
        ("voc:{}?split=test", DataError, "no split 'test' in ImageSets/Main; found: val"),
        ("synthetic:street?task=classify", UsageError, "not classify"),
    ],
)
def test_wrong_address_is_explained(tmp_path: Path, uri: str, kind: type[Exception], message: str) -> None:
    make_voc(tmp_path)
    with pytest.raises(kind) as caught:
        open_dataset(uri.format(tmp_path))
    assert message in str(caught.value)


def test_wrong_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'detect', but 'segment' was asked for"):
        open_dataset(str(make_coco(tmp_path)), "segment")


def test_skip_leaves_faulty_pictures_and_boxes_out(tmp_path: Path) -> None:
    def spoil(raw: dict) -> None:  # type: ignore[type-arg]
        raw["images"][1]["file_name"] = "train/z.jpg"
        raw["annotations"][0]["bbox"] = [30, 2, 20, 3]
        raw["annotations"][1]["bbox"] = [50, 2, 20, 3]

    uri = edit_coco(spoil)(tmp_path)
    dataset = open_dataset(uri, on_error="skip")
    assert len(dataset) == 1
    # what sticks out is cut, what lies outside is dropped
    assert dataset[0].boxes.tolist() == [[30, 2, 40, 5]]


def test_report_names_twenty_faults_and_counts_all() -> None:
    problems = Problems()
    for number in range(30):
        problems.add("empty box", f"{number}.jpg")
    problems.add("missing image", "x.jpg")
    lines = problems.report("cats").splitlines()
    assert lines[0] == "cats: 31 problems in the data set: 30 x empty box, 1 x missing image"
    assert len(lines) == 22 and lines[1] == "  empty box: 0.jpg" and lines[-1] == "  … and 11 more"


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + b"\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_camera_pictures_have_the_size_that_is_shown(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "x.jpg"
    write_picture(path, 40, 30)
    path.write_bytes(with_orientation(path.read_bytes(), orientation))
    shown = read_image(path)
    assert image_size(path) == (shown.shape[1], shown.shape[0])


def test_labels_of_the_stored_picture_switch_orientation_off(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    write_picture(path, 40, 30)
    path.write_bytes(with_orientation(path.read_bytes(), 6))
    assert read_image(path).shape[:2] == (40, 30)
    assert read_image(path, (40, 30)).shape[:2] == (30, 40)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_size_is_read_from_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    write_picture(path, 40, 30)
    assert image_size(path) == (40, 30)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [a, 'b c', \"d\"]", ["a", "b c", "d"]),
        ("names:\n- a\n- b # second\nnc: 2", ["a", "b"]),
        ("nc: 2\nnames:\n  1: b\n  0: a\n", ["a", "b"]),
        ("names: ['a',\n  'b']\n", ["a", "b"]),
        ("names: {0: a, 1: 'b'}", ["a", "b"]),
    ],
)
def test_names_of_yaml_in_all_its_forms(tmp_path: Path, text: str, names: list[str]) -> None:
    from export.data.class_list import names_of_yaml

    path = tmp_path / "data.yaml"
    path.write_text(text)
    assert names_of_yaml(path) == names


def test_only_some_classes_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    make_coco(tmp_path)
    everything = open_dataset(f"coco:{tmp_path / 'labels.json'}")
    assert everything.classes == ("cat", "dog")
    dogs = open_dataset(f"coco:{tmp_path / 'labels.json'}?only=dog")
    assert dogs.classes == ("dog",)
    # the second picture shows no dog, and one empty picture would be half of all
    assert [(sample.image_id, sample.labels.tolist()) for sample in iter(dogs)] == [("train/a.jpg", [0])]
    assert dogs[0].boxes.tolist() == [[1, 2, 11, 22]]
    turned = open_dataset(f"coco:{tmp_path / 'labels.json'}?only=dog,cat")
    assert turned.classes == ("dog", "cat")
    assert [sample.labels.tolist() for sample in iter(turned)] == [[0, 1], [1]]
    assert len({dogs.fingerprint, turned.fingerprint, everything.fingerprint}) == 3


def test_a_tenth_of_pictures_without_the_classes_stays_as_background(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 30} for n in range(60)]
    for image in images:
        write_picture(tmp_path / str(image["file_name"]))
    boxes = [{"id": n, "image_id": n, "category_id": 1 + n % 2, "bbox": [1, 2, 10, 20]} for n in range(60)]
    labels = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    cats = open_dataset(f"coco:{tmp_path / 'labels.json'}?only=cat")
    assert sum(len(sample.labels) > 0 for sample in iter(cats)) == 30
    assert sum(len(sample.labels) == 0 for sample in iter(cats)) == 3


@pytest.mark.parametrize("wrong", ["?only=cow", "?only=", "?only=cat,cow"])
def test_unknown_classes_of_only_name_those_that_exist(tmp_path: Path, wrong: str) -> None:
    make_coco(tmp_path)
    with pytest.raises(DataError, match="expected some of cat, dog"):
        open_dataset(f"coco:{tmp_path / 'labels.json'}{wrong}")
