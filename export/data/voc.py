"""Pascal VOC folders: ``Annotations/*.xml``, ``JPEGImages/``, ``ImageSets/Main/*.txt``. N objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from edge.errors import DataError
from export.data.checks import Problems
from export.data.class_list import read_class_list
from export.data.entries import Entry, Reading


@dataclass(frozen=True, slots=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]
    is_difficult: bool


@dataclass(frozen=True, slots=True)
class _Annotation:
    """One file. Attributes: ``size`` width and height of the picture; ``file_name`` of the picture."""

    path: Path
    things: Sequence[_Object]
    size: tuple[int, int] | None
    file_name: str


def read_voc(folder: Path, problems: Problems, split: str | None = None) -> Reading:
    """Read a VOC folder.

    Args:
        folder: has ``Annotations`` and ``JPEGImages``.
        problems: faults of single files are added to it.
        split: a list of ``ImageSets/Main``, without ``.txt``; None takes every annotation.

    Raises:
        DataError: the folder has no annotations, or no such split.
    """
    files = _annotation_files(folder, split)
    # without its labels a picture would teach that all in it is background, so it is left out
    parsed = [found for path in files if (found := _parse(path, problems)) is not None]
    declared = read_class_list(folder)
    names = sorted({thing.name for annotation in parsed for thing in annotation.things})
    classes = tuple(declared or names)
    for annotation in parsed:
        for thing in annotation.things:
            if thing.name not in classes:
                problems.add("unknown class", f"{annotation.path.name} ({thing.name!r})")
    entries = [_entry(folder, annotation, classes) for annotation in parsed]
    name = folder.name if split is None else f"{folder.name}/{split}"
    return Reading(name, "detect", classes, entries)


def _annotation_files(folder: Path, split: str | None) -> list[Path]:
    annotations = folder / "Annotations"
    if split is None:
        files = sorted(annotations.glob("*.xml"))
    else:
        chosen = folder / "ImageSets" / "Main" / f"{split}.txt"
        if not chosen.is_file():
            known = ", ".join(sorted(path.stem for path in chosen.parent.glob("*.txt"))) or "none"
            raise DataError(f"{folder}: no split {split!r} in ImageSets/Main; found: {known}")
        files = [
            annotations / f"{line.split()[0]}.xml"
            for line in chosen.read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
    if not files:
        raise DataError(f"{annotations}: expected VOC annotations (*.xml), found none")
    return files


def _parse(path: Path, problems: Problems) -> _Annotation | None:
    """One annotation file, None where it cannot be read."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        problems.add("unreadable label file", f"{path} ({error})")
        return None
    things = []
    for number, element in enumerate(root.iter("object")):
        thing = _object(element)
        if thing is None:
            problems.add("box is not a number", f"{path.name} (object {number})")
        else:
            things.append(thing)
    width, height = (int(float(root.findtext(f"size/{key}") or 0)) for key in ("width", "height"))
    size = (width, height) if width and height else None
    return _Annotation(path, things, size, root.findtext("filename") or f"{path.stem}.jpg")


def _object(element: ElementTree.Element) -> _Object | None:
    """One object; VOC counts pixels from 1 and includes the last one (VOC development kit, section 3)."""
    try:
        x1, y1, x2, y2 = (float(element.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        return None
    is_difficult = (element.findtext("difficult") or "0").strip() == "1"
    return _Object((element.findtext("name") or "").strip(), (x1 - 1, y1 - 1, x2, y2), is_difficult)


def _entry(folder: Path, annotation: _Annotation, classes: tuple[str, ...]) -> Entry:
    things = [thing for thing in annotation.things if thing.name in classes]
    image = folder / "JPEGImages" / Path(annotation.file_name).name
    if not image.is_file():
        image = image.with_name(f"{annotation.path.stem}{image.suffix}")
    return Entry(
        path=image,
        image_id=image.name,
        boxes=np.array([thing.box for thing in things], np.float32).reshape(-1, 4),
        labels=np.array([classes.index(thing.name) for thing in things], np.int32),
        ignore=np.array([thing.is_difficult for thing in things], np.bool_),
        weight=np.ones(len(things), np.float32),
        size=annotation.size,
    )
