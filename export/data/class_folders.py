"""Class folders for classification: one folder of pictures per class."""

from __future__ import annotations

from pathlib import Path

from edge.errors import DataError
from export.data.checks import Problems
from export.data.class_list import read_class_list
from export.data.entries import Entry, Reading
from export.data.image_file import list_images


def read_class_folders(folder: Path, problems: Problems) -> Reading:
    """Read class folders; classes are in the order of ``classes.txt`` if there is one, else sorted by name.

    Raises:
        DataError: there are no folders with pictures.
    """
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    declared = read_class_list(folder)
    # a list above the folder may belong to something else, so it counts only if it names some of these folders
    classes = declared if set(declared) & set(found) else found
    for name in sorted(set(found) - set(classes)):
        problems.add("unknown class", str(folder / name))
    entries = []
    for label, name in enumerate(classes):
        # a class of the list may be missing here: splits keep the same class ids
        paths = list_images(folder / name, deep=True) if name in found else []
        if not paths and name in found:
            problems.add("class without images", str(folder / name))
        entries += [Entry(path, path.relative_to(folder).as_posix(), label=label) for path in paths]
    if not entries:
        raise DataError(f"{folder}: expected one folder of pictures per class, found none")
    return Reading(f"{folder.parent.name}/{folder.name}", "classify", tuple(classes), entries)
