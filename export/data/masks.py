"""Mask folders for segmentation: ``images/`` and, under the same names, ``masks/`` with 8-bit PNGs of class ids."""

from __future__ import annotations

from pathlib import Path

from edge.errors import DataError
from export.data.checks import Problems
from export.data.class_list import ignore_index, read_class_list
from export.data.entries import Entry, Reading
from export.data.image_file import list_images


def read_masks(folder: Path, problems: Problems) -> Reading:
    """Read a mask folder. Class names stand in ``classes.json`` or ``classes.txt``, in the folder or above it.

    Raises:
        DataError: there are no class names or no pictures.
    """
    classes = read_class_list(folder)
    if not classes:
        raise DataError(f"{folder}: expected the class names in classes.json or classes.txt, found neither")
    images, masks = folder / "images", folder / "masks"
    paths = list_images(images, deep=True)
    if not paths:
        raise DataError(f"{images}: expected pictures, found none")
    entries = []
    for path in paths:
        image_id = path.relative_to(images).as_posix()
        entries.append(Entry(path, image_id, mask_path=(masks / image_id).with_suffix(".png")))
    known = {entry.mask_path for entry in entries}
    for mask in sorted(masks.rglob("*.png")):
        if mask not in known:
            problems.add("mask without image", str(mask))
    return Reading(f"{folder.parent.name}/{folder.name}", "segment", tuple(classes), entries, ignore_index(folder))
