"""COCO detection files: one JSON with ``images``, ``annotations`` and ``categories``. N objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import DataError
from edge.files import parse_json
from export.data.checks import Problems
from export.data.entries import Entry, Reading
from export.data.outlines import MAX_COORDINATE
from export.data.sample import Outlines

Annotation = dict[str, Any]


def read_coco(path: Path, problems: Problems) -> Reading:
    """Read a COCO JSON, with the masks and key points that it has.

    File names are relative to its folder (or to ``images/`` or ``../`` next to it).

    ``iscrowd``, ``ignore`` and ``difficult`` mark boxes that are neither learned nor counted; ``score`` is taken as
    the label's weight. Classes keep the order of their category ids.

    Raises:
        DataError: the file is no COCO JSON.
    """
    raw = _load(path)
    categories = sorted(raw["categories"], key=lambda category: int(category["id"]))
    class_of = {int(category["id"]): number for number, category in enumerate(categories)}
    folder = _image_folder(path, raw["images"])
    images: dict[int, dict[str, Any]] = {}
    for image in raw["images"]:
        if image["id"] in images:
            problems.add("duplicated image id", f"{path.name} (id {image['id']}, {image['file_name']})")
        else:
            images[image["id"]] = image
    by_image = _group(raw["annotations"], images, class_of, path.name, problems)
    names = _keypoint_names(categories)
    rows = {key: by_image.get(key, []) for key in images}
    entries = [_entry(folder, image, rows[key], class_of, names, problems) for key, image in images.items()]
    return Reading(_name(path), "detect", tuple(str(category["name"]) for category in categories), entries)


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = parse_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"{path}: no valid JSON ({error})") from None
    keys = ("images", "annotations", "categories")
    if not isinstance(raw, dict) or any(not isinstance(raw.get(key), list) for key in keys):
        raise DataError(f"{path}: expected a COCO file with the lists images, annotations and categories")
    needed = {
        "images": ("id", "file_name"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }
    for key, fields in needed.items():
        for number, item in enumerate(raw[key]):
            missing = [name for name in fields if not isinstance(item, dict) or name not in item]
            if missing:
                raise DataError(f"{path}: {key}[{number}] has no {missing[0]!r}")
    _refuse_outside(path, raw["images"])
    return raw


def _refuse_outside(path: Path, images: list[dict[str, Any]]) -> None:
    """A data set names its own pictures, none of the rest of the machine."""
    for image in images:
        name = Path(str(image["file_name"]))
        if name.is_absolute() or ".." in name.parts:
            raise DataError(
                f"{path}: {image['file_name']!r:.200} lies outside of the data set; expected names below it"
            )


def _image_folder(path: Path, images: list[dict[str, Any]]) -> Path:
    """Where file names count from: the usual layouts are tried with the first names."""
    candidates = [path.parent, path.parent / "images", path.parent.parent, path.parent / path.stem]
    for image in images[:5]:
        for folder in candidates:
            if (folder / str(image["file_name"])).is_file():
                return folder
    return path.parent


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _group(
    annotations: list[Annotation],
    images: dict[int, dict[str, Any]],
    class_of: dict[int, int],
    where: str,
    problems: Problems,
) -> dict[int, list[Annotation]]:
    """Image id → its annotations; those without picture, class or four numbers are noted and left out."""
    groups: dict[int, list[Annotation]] = {}
    for number, annotation in enumerate(annotations):
        image = images.get(annotation["image_id"])
        box = annotation["bbox"]
        if image is None:
            problems.add("label without image", f"{where} (annotation {number}, image id {annotation['image_id']})")
        elif annotation["category_id"] not in class_of:
            problems.add("class id out of range", f"{image['file_name']} (category {annotation['category_id']})")
        elif not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, (int, float)) for side in box):
            problems.add("box is not a number", f"{image['file_name']} (bbox {box!r:.60})")
        else:
            groups.setdefault(annotation["image_id"], []).append(annotation)
    return groups


def _keypoint_names(categories: list[dict[str, Any]]) -> tuple[str, ...]:
    """Those of the only class that has some; none where classes differ."""
    named = {tuple(map(str, names)) for category in categories if isinstance(names := category.get("keypoints"), list)}
    return named.pop() if len(named) == 1 else ()


def _entry(
    folder: Path,
    image: dict[str, Any],
    rows: list[Annotation],
    class_of: dict[int, int],
    names: tuple[str, ...],
    problems: Problems,
) -> Entry:
    boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    size = (int(image["width"]), int(image["height"])) if "width" in image and "height" in image else None
    return Entry(
        path=folder / str(image["file_name"]),
        image_id=str(image["file_name"]),
        boxes=boxes,
        labels=np.array([class_of[row["category_id"]] for row in rows], np.int32),
        ignore=np.array([any(row.get(key) for key in ("iscrowd", "ignore", "difficult")) for row in rows], np.bool_),
        weight=np.clip(np.array([row.get("score", 1.0) for row in rows], np.float32), 0, 1),
        size=size,
        outlines=_outlines(rows, names, str(image["file_name"]), problems),
    )


def _outlines(rows: list[Annotation], names: tuple[str, ...], where: str, problems: Problems) -> Outlines | None:
    """Masks and key points, None where no object of the picture has any."""
    shapes = tuple(row.get("segmentation") or None for row in rows)
    points = [_points(row.get("keypoints"), names, where, problems) for row in rows]
    counts = {len(numbers) for numbers in points if numbers}
    if len(counts) > 1:
        problems.add("faulty key points", f"{where} ({' and '.join(map(str, sorted(counts)))} numbers an object)")
    keypoints = None
    if len(counts) == 1:
        # a crowd has none of its own
        filled = [numbers or [0.0] * max(counts) for numbers in points]
        keypoints = np.array(filled, np.float32).reshape(len(rows), -1, 3)
    return Outlines(shapes, keypoints, names) if keypoints is not None or any(shapes) else None


def _points(found: Any, names: tuple[str, ...], where: str, problems: Problems) -> list[float]:
    """x, y and 0, 1 or 2 of each key point; none where there are none, or faulty ones, which are noted."""
    if found is None or found == []:
        return []
    fault = ""
    if not isinstance(found, list) or len(found) % 3 or not all(map(_is_number, found)):
        fault = "expected x, y and 0, 1 or 2 of each"
    elif names and len(found) != 3 * len(names):
        fault = f"{len(found)} numbers for {len(names)} points"
    elif not set(found[2::3]) <= {0, 1, 2}:
        fault = f"visibility {next(value for value in found[2::3] if value not in (0, 1, 2)):g}"
    if fault:
        problems.add("faulty key points", f"{where} ({fault})")
        return []
    return [float(value) for value in found]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_COORDINATE
