"""Labels by teachers: each looks once at a frame and is remembered; several vote. N M objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.boxes import iou
from edge.errors import DataError, ModelError
from edge.files import sha256_of
from edge.model import open_model
from edge.types import Bool, Detections, UInt8
from export.evaluate.names import match_classes

# from the first score on a box is a label, from the second on it is neither learned nor counted
KEEP, DOUBT = 0.5, 0.15
SAME_IOU = 0.5
BATCH = 4


class Remembered:
    """What one teacher saw, frame by frame, over all nights: a line per frame, written as it comes.

    Args:
        folder: of all teachers' notes.
        teacher: the model file.
        classes: of the pupil.

    Raises:
        ModelError: the teacher is no detector.
        DataError: it knows none of the pupil's classes.
    """

    def __init__(self, folder: Path, teacher: Path, classes: Sequence[str], threads: int) -> None:
        self._teacher, self._classes, self._threads = teacher, tuple(classes), threads
        self._path = folder / f"{sha256_of(teacher)[:24]}.jsonl"
        self._known = dict(_whole_lines(self._path))

    def look(self, frames: Mapping[str, Path]) -> dict[str, Detections]:
        """What it sees in these frames, in classes of the pupil, boxes from ``DOUBT`` on."""
        missing = [name for name in frames if name not in self._known]
        if missing:
            self._ask(missing, frames)
        return {name: self._found(self._known[name]) for name in frames}

    def _ask(self, names: Sequence[str], frames: Mapping[str, Path]) -> None:
        with (
            closing(open_model(self._teacher, engine="ort", threads=self._threads, score=DOUBT)) as model,
            self._path.open("a", encoding="utf-8") as file,
        ):
            self._path.chmod(0o600)
            for start in range(0, len(names), BATCH):
                part = names[start : start + BATCH]
                for name, found in zip(part, model.predict([read(frames[name]) for name in part]), strict=True):
                    if not isinstance(found, Detections):
                        raise ModelError(f"{self._teacher.name}: a teacher is a detector, this one is none")
                    self._known[name] = _note(found, model.manifest.classes)
                    file.write(json.dumps([name, self._known[name]], separators=(",", ":")) + "\n")
                file.flush()

    def _found(self, note: Mapping[str, Any]) -> Detections:
        match = match_classes(note["classes"], self._classes)
        labels = match.labels(np.array(note["labels"], np.int32))
        boxes = np.array(note["boxes"], np.float32).reshape(-1, 4)
        return Detections(boxes, np.array(note["scores"], np.float32), labels)[labels >= 0]

    def forget(self, keep: Mapping[str, Path]) -> None:
        """Leave only the notes of frames that are still there."""
        if set(self._known) <= set(keep) or not self._path.is_file():
            return
        self._known = {name: note for name, note in self._known.items() if name in keep}
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in self._known.items())
        temporary = self._path.with_suffix(".new")
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o600)
        temporary.replace(self._path)


def _note(found: Detections, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "boxes": [[round(float(side), 1) for side in box] for box in found.xyxy],
        "labels": found.class_id.tolist(),
        "scores": [round(float(score), 3) for score in found.score],
        "classes": list(classes),
    }


def _whole_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Notes of earlier runs; what a kill left of the last line is not one, and is cut off."""
    if not path.is_file():
        return
    lines = path.read_bytes().split(b"\n")
    if lines[-1]:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - len(lines[-1]))
    for line in lines[:-1]:
        name, note = json.loads(line)
        yield name, note


def read(path: Path) -> UInt8:
    """(H, W, 3) uint8 BGR. Raises: DataError: it is gone, or no picture."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path.name}: a kept frame is gone or damaged; the next shift goes on without it")
    return np.asarray(image, np.uint8)


def vote(seen: Sequence[Detections]) -> tuple[Detections, Bool]:
    """What more than half of the teachers see surely; what some see is doubtful.

    Returns:
        The objects, scores being the mean over all teachers; (N,) bool which of them are too doubtful for a label.
    """
    if len(seen) == 1:
        return seen[0], seen[0].score < KEEP
    everything = Detections.concatenate(seen)
    teacher = np.repeat(np.arange(len(seen)), [len(one) for one in seen])
    order = np.argsort(-everything.score, kind="stable")
    overlap = iou(everything.xyxy, everything.xyxy)
    is_free = np.ones(len(everything), np.bool_)
    kept, scores, doubtful = [], [], []
    for row in order.tolist():
        if not is_free[row]:
            continue
        same = is_free & (overlap[row] >= SAME_IOU) & (everything.class_id == everything.class_id[row])
        is_free[same] = False
        best = [float(everything.score[same & (teacher == one)].max(initial=0.0)) for one in range(len(seen))]
        kept.append(row)
        scores.append(sum(best) / len(best))
        doubtful.append(sum(score >= KEEP for score in best) * 2 <= len(seen))
    found = everything[np.array(kept, np.int64)]
    return Detections(found.xyxy, np.array(scores, np.float32), found.class_id), np.array(doubtful, np.bool_)
