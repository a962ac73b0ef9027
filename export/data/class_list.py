"""Class names that lie next to a data set: ``classes.txt``, ``classes.json`` or the ``names`` of a ``data.yaml``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edge.errors import DataError
from edge.files import parse_json

_TEXT_FILES = ("classes.txt", "labels.txt", "obj.names")
_YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml")


def read_class_list(folder: Path) -> list[str]:
    """The class names in a folder or the one above it, in the order of their ids; empty where no file has them.

    Raises:
        DataError: such a file exists but cannot be understood.
    """
    for place in (folder, folder.parent):
        for name in _TEXT_FILES:
            if (place / name).is_file():
                return [
                    line.strip() for line in (place / name).read_text(encoding="utf-8").splitlines() if line.strip()
                ]
        if (place / "classes.json").is_file():
            return _from_json(place / "classes.json")
        for name in _YAML_FILES:
            if (place / name).is_file():
                return names_of_yaml(place / name)
    return []


def ignore_index(folder: Path) -> int:
    """The mask value that means unlabelled: ``ignore_index`` of ``classes.json``, else 255."""
    for place in (folder, folder.parent):
        path = place / "classes.json"
        if path.is_file():
            raw = parse_json(path.read_text(encoding="utf-8"))
            return int(raw.get("ignore_index", 255)) if isinstance(raw, dict) else 255
    return 255


def names_of_yaml(path: Path) -> list[str]:
    """The ``names`` of a YOLO ``data.yaml``: ``[a, b]``, ``- a`` lines or ``0: a`` lines.

    Raises:
        DataError: there is no such key, or its ids have a gap.
    """
    lines = [re.sub(r"\s+#.*$", "", line.rstrip()) for line in path.read_text(encoding="utf-8").splitlines()]
    starts = [number for number, line in enumerate(lines) if re.match(r"names\s*:", line)]
    if not starts:
        raise DataError(f"{path}: expected the key 'names' with the class names")
    first = lines[starts[0]].split(":", 1)[1].strip()
    body = []
    for line in lines[starts[0] + 1 :]:
        if line and not line[0].isspace() and not line.startswith("-"):
            break
        body.append(line.strip())
    flow = " ".join([first, *body]) if first else ""
    items = _flow_items(flow) if flow else [line.removeprefix("- ").strip() for line in body if line]
    return _in_order(items, path)


def _flow_items(text: str) -> list[str]:
    inner = text.strip().strip("[]{}")
    return [item.strip() for item in re.findall(r"""(?:[^,'"]|'[^']*'|"[^"]*")+""", inner) if item.strip()]


def _in_order(items: Sequence[str], path: Path) -> list[str]:
    """Plain names as they come, ``id: name`` pairs by id."""
    pairs = [re.match(r"(\d+)\s*:\s*(.+)", item) for item in items]
    if not all(pairs) or not pairs:
        return [item.strip("'\"") for item in items]
    names = {int(pair.group(1)): pair.group(2).strip().strip("'\"") for pair in pairs if pair}
    if sorted(names) != list(range(len(names))):
        raise DataError(f"{path}: expected class ids 0 to {len(names) - 1} in 'names', found {sorted(names)}")
    return [names[number] for number in range(len(names))]


def _from_json(path: Path) -> list[str]:
    try:
        raw = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: no valid JSON ({error})") from None
    names = raw.get("names") if isinstance(raw, dict) else raw
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: expected a list of class names, or an object with such a list under 'names'")
    return names
