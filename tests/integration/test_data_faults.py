"""Faulty labels that are skipped teach nothing wrong: no picture stays without the labels that it had."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import DataError
from export.data.image_file import image_size, read_image, stored_size
from export.data.open_data import open_dataset

BOX = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>"


def write_voc(folder: Path, names: tuple[str, ...], size: tuple[int, int] = (40, 30)) -> Path:
    """Pictures of 40x30 with one cat each; ``size`` is what the label files say of them."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for name in names:
        assert cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), np.full((30, 40, 3), 90, np.uint8))
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
            f"<object><name>cat</name>{BOX}</object></annotation>"
        )
    (folder / "ImageSets" / "Main" / "val.txt").write_text("\n".join(names) + "\n")
    return folder


def turn(path: Path, orientation: int) -> None:
    """Write the EXIF orientation into a JPEG."""
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + b"\0\0\0\0"
    body, jpeg = b"Exif\0\0" + tiff, path.read_bytes()
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:])


@pytest.mark.parametrize("content", ["<annotation>", None])
def test_a_picture_without_its_label_file_is_left_out(tmp_path: Path, content: str | None) -> None:
    folder = write_voc(tmp_path, ("a", "b"))
    label = folder / "Annotations" / "b.xml"
    if content is None:
        label.unlink()
    else:
        label.write_text(content)
    with pytest.raises(DataError, match=r"unreadable label file: .*b\.xml"):
        open_dataset(f"voc:{folder}?split=val")
    kept = open_dataset(f"voc:{folder}?split=val", on_error="skip")
    assert [(sample.image_id, len(sample.boxes)) for sample in iter(kept)] == [("a.jpg", 1)]


def test_swapped_sides_are_a_fault_where_the_picture_is_not_turned(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, ("a",), size=(30, 40))
    with pytest.raises(DataError, match="label file says 30x40, found 40x30"):
        open_dataset(f"voc:{folder}")


@pytest.mark.parametrize("orientation", [6, 8])
def test_labels_may_speak_of_the_picture_before_it_is_turned(tmp_path: Path, orientation: int) -> None:
    folder = write_voc(tmp_path, ("a",))
    turn(folder / "JPEGImages" / "a.jpg", orientation)
    assert image_size(folder / "JPEGImages" / "a.jpg") == (30, 40)
    sample = open_dataset(f"voc:{folder}")[0]
    assert sample.image.shape == (30, 40, 3) and len(sample.boxes) == 1


def test_upside_down_pictures_keep_their_sides(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, ("a",), size=(30, 40))
    turn(folder / "JPEGImages" / "a.jpg", 3)
    with pytest.raises(DataError, match="label file says 30x40, found 40x30"):
        open_dataset(f"voc:{folder}")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_the_stored_size_is_read_from_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    cv2.imwrite(str(path), np.full((30, 40, 3), 90, np.uint8))
    if suffix == ".jpg":
        turn(path, 6)
        assert read_image(path).shape[:2] == (40, 30)
    assert stored_size(path) == (40, 30)
