"""What a teacher saw, a line per frame, so that a run can go on where it was broken off; and COCO JSON made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.errors import UsageError


@dataclass(frozen=True, slots=True)
class Note:
    """One frame that the teacher looked at.

    Attributes:
        source: number of the source.
        frame: number of the frame within it.
        file: the picture, relative to the folder; None where it was not written.
        size: width and height in pixels.
        boxes, labels, scores: what the teacher saw; boxes are x1 y1 x2 y2.
        doubtful: which of them are too uncertain for a label.
    """

    source: int
    frame: int
    file: str | None
    size: tuple[int, int]
    boxes: list[list[float]]
    labels: list[int]
    scores: list[float]
    doubtful: list[bool]

    @property
    def is_empty(self) -> bool:
        return not self.boxes


class Notebook:
    """An append-only file of notes, opened with those of earlier runs."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open or begin it.

        Raises:
            UsageError: it belongs to another teacher, other settings or other sources.
        """
        self.notes: list[Note] = []
        # JSON knows no tuples, so both sides are compared as JSON
        wanted = json.loads(json.dumps(header))
        lines = _whole_lines(path)
        if lines:
            _check_header(json.loads(lines[0]), wanted, path)
            self.notes = [_parse(line) for line in lines[1:]]
        self._file = path.open("r+b" if path.is_file() else "w+b")
        # what a broken-off run left of its last line goes
        self._file.truncate(sum(len(line) + 1 for line in lines))
        self._file.seek(0, 2)
        if not lines:
            self._append(wanted)

    def add(self, note: Note) -> None:
        """Note one frame; it is in the file when this returns."""
        self.notes.append(note)
        self._append(asdict(note))

    def close(self) -> None:
        self._file.close()

    def _append(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        self._file.flush()


def to_coco(notes: Sequence[Note], names: Sequence[str], header: Mapping[str, Any]) -> str:
    """COCO JSON of the written pictures: ``score`` per annotation, ``ignore`` for doubtful ones."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for note in sorted(notes, key=lambda note: (note.source, note.frame)):
        if note.file is None:
            continue
        width, height = note.size
        images.append({"id": len(images) + 1, "file_name": note.file, "width": width, "height": height})
        for box, label, score, unsure in zip(note.boxes, note.labels, note.scores, note.doubtful, strict=True):
            annotations.append(_annotation(len(annotations) + 1, len(images), box, label, score, unsure))
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(names)]
    info = {"description": "labels made by a teacher model, not by people", **header}
    return json.dumps({"info": info, "images": images, "annotations": annotations, "categories": categories})


def _annotation(
    number: int, image_id: int, box: Sequence[float], label: int, score: float, unsure: bool
) -> dict[str, Any]:
    width, height = round(box[2] - box[0], 2), round(box[3] - box[1], 2)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": label + 1,
        "bbox": [box[0], box[1], width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
        "ignore": int(unsure),
        "score": score,
    }


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def _parse(line: bytes) -> Note:
    raw = json.loads(line)
    return Note(**{**raw, "size": tuple(raw["size"])})


def _check_header(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    for key, value in wanted.items():
        if found.get(key) != value:
            raise UsageError(
                f"{path}: made with another {key} ({found.get(key)!s:.120}), now {value!s:.120}; choose another --out"
            )
