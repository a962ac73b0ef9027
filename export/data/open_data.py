"""Data sets by address: ``coco:``, ``voc:``, ``yolo:``, ``masks:``, ``classes:``, ``synthetic:``, or a bare path."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from edge.errors import DataError, UsageError
from export.data.checks import OnError, Problems, check_entries
from export.data.class_folders import read_class_folders
from export.data.class_subset import only
from export.data.coco import read_coco
from export.data.concat import JoinedDataset, first
from export.data.entries import FileDataset, Reading
from export.data.image_file import list_images
from export.data.masks import read_masks
from export.data.sample import Dataset, DataTask
from export.data.voc import read_voc
from export.data.yolo import read_yolo

__all__ = ["FORMS", "first", "open_dataset"]

log = logging.getLogger(__name__)

FORMS = """  coco:labels.json            COCO detection JSON, pictures next to it
  voc:DIR[?split=val]         Annotations/*.xml and JPEGImages/
  yolo:DIR[?split=val]        images/, labels/, and data.yaml or classes.txt
                              all three: [?only=person,car] these classes and few pictures without them
  masks:DIR                   images/, masks/*.png, and classes.json or classes.txt
  classes:DIR                 one folder of pictures per class
  synthetic:street?count=500&seed=1&size=416x416&task=detect"""
SCHEMES = ("coco", "voc", "yolo", "masks", "classes", "synthetic")
OPTIONS = {"coco": ("only",), "voc": ("split", "only"), "yolo": ("split", "only")}


def open_dataset(uri: str, task: DataTask | None = None, *, on_error: OnError = "refuse") -> Dataset:
    """Open a data set and check all of it.

    Args:
        uri: one of the forms of ``FORMS``; a bare path is recognised by what it contains; several are joined by
            `` + ``, with the classes of the first.
        task: what it is wanted for; None takes what it is made for.
        on_error: ``skip`` leaves bad pictures and boxes out, with a warning; ``refuse`` raises.

    Raises:
        UsageError: the address cannot be understood.
        DataError: the data set is missing or wrong; all faults in one message.
    """
    parts = [part.strip() for part in uri.split(" + ")]
    if len(parts) > 1:
        return JoinedDataset([open_dataset(part, task, on_error=on_error) for part in parts])
    scheme, path, options = _split(uri)
    if scheme == "synthetic":
        return _open_synthetic(path, options, task, uri)
    problems = Problems()
    reading = _read(scheme, Path(path).expanduser(), options, problems, uri)
    if "only" in options:
        reading = only(reading, [name.strip() for name in options["only"].split(",") if name.strip()])
    if task is not None and task != reading.task:
        raise DataError(f"{uri}: labels for the task {reading.task!r}, but {task!r} was asked for")
    entries = check_entries(reading, problems)
    if on_error == "refuse":
        problems.refuse(reading.name)
    elif problems.found:
        log.warning("%s", problems.report(reading.name))
    if not entries:
        raise DataError(f"{uri}: no usable picture")
    return FileDataset(reading, entries)


def _split(uri: str) -> tuple[str, str, dict[str, str]]:
    """Scheme ("" for a bare path), path and options."""
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme not in SCHEMES:
        scheme, rest = "", uri
    path, _, query = rest.partition("?")
    return scheme, path, dict(parse_qsl(query, keep_blank_values=True))


def _recognise(path: Path, uri: str) -> str:
    """What a bare path contains."""
    if path.is_file() and path.suffix == ".json":
        return "coco"
    if not path.exists():
        raise DataError(f"{uri}: no such file or folder; a data set is one of\n{FORMS}")
    if path.is_dir():
        marks = {"voc": ("Annotations",), "masks": ("images", "masks"), "yolo": ("images", "labels")}
        for scheme, folders in marks.items():
            if all((path / folder).is_dir() for folder in folders):
                return scheme
        if any(child.is_dir() and list_images(child) for child in path.iterdir()):
            return "classes"
    raise DataError(f"{uri}: not recognised as a data set; expected one of\n{FORMS}")


def _coco_labels(path: Path, uri: str) -> Path:
    """The labels of a folder: its only JSON file, or the only one of its ``annotations``."""
    if path.is_file():
        return path
    found = [*path.glob("*.json"), *path.glob("annotations/*.json")]
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(file.relative_to(path)) for file in sorted(found)) or "none"
    raise DataError(f"{uri}: expected the JSON file with the labels, or a folder with one; found {names}")


def _read(scheme: str, path: Path, options: dict[str, str], problems: Problems, uri: str) -> Reading:
    scheme = scheme or _recognise(path, uri)
    allowed = OPTIONS.get(scheme, ())
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise UsageError(f"{uri}: unknown option {unknown[0]!r}; {scheme}: takes {', '.join(allowed) or 'none'}")
    if not path.exists():
        raise DataError(f"{uri}: no such file or folder")
    match scheme:
        case "coco":
            return read_coco(_coco_labels(path, uri), problems)
        case "voc":
            return read_voc(path, problems, options.get("split"))
        case "yolo":
            return read_yolo(path, problems, options.get("split"))
        case "masks":
            return read_masks(path, problems)
        case _:
            return read_class_folders(path, problems)


def _open_synthetic(name: str, options: dict[str, str], task: DataTask | None, uri: str) -> Dataset:
    from export.data.synthetic import open_synthetic_dataset

    wanted = options.pop("task", task or "detect")
    if wanted not in ("detect", "segment") or task not in (None, wanted):
        raise UsageError(
            f"{uri}: the synthetic street has labels for the tasks detect and segment, not {task or wanted}"
        )
    query = urlencode(options)
    dataset: Dataset = open_synthetic_dataset(
        f"synthetic:{name}" + (f"?{query}" if query else ""), "detect" if wanted == "detect" else "segment"
    )
    return dataset
