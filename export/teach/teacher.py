"""Labels for one's own scene without labelling: a detector that exists teaches a smaller one.

It looks through pictures, videos or cameras, writes new-looking frames as JPEG and what it sees as COCO JSON: sure ones
as labels with its score as their weight, doubtful boxes as ``ignore``, so that they are neither learned nor
counted as background. N objects, H W frame pixels.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from edge.addresses.uris import is_live, masked, short_name
from edge.errors import DataError, UsageError
from edge.files import write_atomic
from edge.interfaces import Source
from edge.sources.choose import open_source
from edge.types import Detections, Float32, Prediction, UInt8
from export.evaluate.names import ClassMatch, match_classes
from export.teach.labels import Note, Notebook, to_coco

log = logging.getLogger(__name__)

LABELS = "labels.json"
NOTES = "notes.jsonl"
_THUMB_SIZE = (32, 24)
_BATCH_SIZE = 8


@dataclass(frozen=True, slots=True)
class TeachSettings:
    """What is kept.

    Attributes:
        keep: from this score on a box is a label.
        doubt: from this score on, up to ``keep``, it is ``ignore``; below, it is nothing.
        every_s: seconds between two frames of a video or camera that are looked at; every picture of a folder is.
        difference: grey levels by which some part of a frame must differ from the frames looked at before it.
        memory: how many earlier frames it is compared with.
        limit: pictures to write.
        empty_share: most pictures without any box, as a share of all: they teach what is background.
        classes: names to keep, as the pupil will call them; empty keeps all of the teacher's.
        jpeg_quality: of the pictures.
    """

    keep: float = 0.5
    doubt: float = 0.15
    every_s: float = 1.0
    difference: float = 14.0
    memory: int = 8
    limit: int = 1000
    empty_share: float = 0.1
    classes: tuple[str, ...] = ()
    jpeg_quality: int = 92

    def __post_init__(self) -> None:
        if not 0 <= self.doubt <= self.keep <= 1:
            raise ValueError(f"expected 0 <= doubt <= keep <= 1, found {self.doubt} and {self.keep}")


@dataclass(frozen=True, slots=True)
class Teacher:
    """A detector and its class names. ``identity`` is the hash of its file."""

    predict: Callable[[Sequence[UInt8]], Sequence[Prediction]]
    classes: tuple[str, ...]
    identity: str


@dataclass
class TeachReport:
    """What a run did, earlier runs into the same folder included."""

    num_pictures: int = 0
    num_labels: int = 0
    num_doubtful: int = 0
    num_empty: int = 0
    num_alike: int = 0
    per_class: dict[str, int] = field(default_factory=dict)


def teach(
    teacher: Teacher,
    sources: Sequence[str],
    folder: Path,
    settings: TeachSettings,
    on_picture: Callable[[int], None] = lambda count: None,
) -> TeachReport:
    """Write ``images/``, ``notes.jsonl`` (a line per frame that was looked at) and ``labels.json`` into ``folder``.

    The same files give the same result; a run that was broken off goes on where it stopped.

    Args:
        teacher: the detector.
        sources: addresses: folders, videos, cameras.
        folder: is made if it is missing.
        settings: what is kept.
        on_picture: told the number of pictures after each.

    Raises:
        SourceError: a source cannot be read; what was found so far is written.
        UsageError: the folder holds the result of another teacher or other settings.
        DataError: the teacher knows none of the classes.
    """
    names = settings.classes or teacher.classes
    match = match_classes(teacher.classes, names)
    if unknown := match.only_data:
        raise DataError(f"the teacher does not know {', '.join(unknown)}; it knows {', '.join(teacher.classes)}")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    header = {
        "teacher": teacher.identity,
        "settings": {key: value for key, value in asdict(settings).items() if key != "limit"},
        "sources": [masked(uri) for uri in sources],
    }
    with closing(Notebook(folder / NOTES, header)) as notebook:
        run = _Run(teacher, match, folder, settings, notebook, on_picture)
        try:
            for number, uri in enumerate(sources):
                run.watch(number, uri, len(sources))
        finally:
            write_atomic(folder / LABELS, to_coco(notebook.notes, names, header))
        return _report(notebook.notes, names, run.num_alike)


class Novelty:
    """Tells frames in which something changed from near-duplicates, by the most changed cell of a small grid.

    The mean over the picture would miss a person who walks through the picture of a camera that stands still.
    """

    def __init__(self, difference: float, memory: int) -> None:
        self._difference = difference
        self._seen: deque[Float32] = deque(maxlen=memory)

    def is_new(self, image: UInt8) -> bool:
        """Whether an (H, W, 3) image differs from all that are remembered; if so it is remembered."""
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        thumb: Float32 = np.asarray(cv2.resize(grey, _THUMB_SIZE, interpolation=cv2.INTER_AREA), np.float32)
        if any(float(np.abs(thumb - other).max()) < self._difference for other in self._seen):
            return False
        self._seen.append(thumb)
        return True


class _Run:
    """One pass over the sources."""

    def __init__(
        self,
        teacher: Teacher,
        match: ClassMatch,
        folder: Path,
        settings: TeachSettings,
        notebook: Notebook,
        on_picture: Callable[[int], None],
    ) -> None:
        self._teacher = teacher
        self._match = match
        self._folder = folder
        self._settings = settings
        self._notebook = notebook
        self._on_picture = on_picture
        self._num_pictures = sum(note.file is not None for note in notebook.notes)
        self._num_empty = sum(note.is_empty for note in notebook.notes if note.file is not None)
        self.num_alike = 0

    def watch(self, number: int, uri: str, num_sources: int) -> None:
        """Look through one source; frames that were noted by an earlier run are not looked at again."""
        done = {note.frame for note in self._notebook.notes if note.source == number}
        start = max(done, default=-1) + 1 if is_live(uri) else 0
        stem = short_name(uri) if num_sources == 1 else f"{number}-{short_name(uri)}"
        novelty = Novelty(self._settings.difference, self._settings.memory)
        waiting: list[tuple[int, UInt8]] = []
        with closing(open_source(uri)) as source:
            every_s = 0.0 if Path(uri).is_dir() else self._settings.every_s
            for frame, image in _spaced(source, every_s, start):
                if not novelty.is_new(image):
                    self.num_alike += 1
                    continue
                if frame not in done:
                    waiting.append((frame, image))
                if len(waiting) == _BATCH_SIZE:
                    self._look(number, stem, waiting)
                    waiting = []
                if self._is_full():
                    return
        self._look(number, stem, waiting)

    def _is_full(self) -> bool:
        return self._num_pictures >= self._settings.limit

    def _look(self, number: int, stem: str, frames: Sequence[tuple[int, UInt8]]) -> None:
        predictions = self._teacher.predict([image for _, image in frames]) if frames else []
        for (frame, image), prediction in zip(frames, predictions, strict=True):
            if self._is_full():
                return
            if not isinstance(prediction, Detections):
                raise UsageError(f"a teacher is a detector; this model gives {type(prediction).__name__.lower()}")
            self._take(number, frame, f"images/{stem}-{frame:07d}.jpg", image, self._sorted_out(prediction))

    def _sorted_out(self, found: Detections) -> Detections:
        """What may be written, in classes of the pupil."""
        labels = self._match.labels(found.class_id)
        keep = (labels >= 0) & (found.score >= self._settings.doubt)
        return Detections(found.xyxy[keep], found.score[keep], labels[keep])

    def _take(self, number: int, frame: int, file: str, image: UInt8, found: Detections) -> None:
        """Write the picture (unless enough empty ones were), then note it."""
        is_empty = len(found) == 0
        allowed = self._settings.empty_share * (self._num_pictures + 1)
        is_written = not is_empty or self._num_empty + 1 <= allowed
        if is_written:
            _write_jpeg(image, self._folder / file, self._settings.jpeg_quality)
            self._num_pictures += 1
            self._num_empty += is_empty
        self._notebook.add(
            Note(
                source=number,
                frame=frame,
                file=file if is_written else None,
                size=(image.shape[1], image.shape[0]),
                boxes=[[round(float(side), 2) for side in box] for box in found.xyxy],
                labels=found.class_id.tolist(),
                scores=[round(float(score), 4) for score in found.score],
                doubtful=[float(score) < self._settings.keep for score in found.score],
            )
        )
        self._on_picture(self._num_pictures)


def _spaced(source: Source, every_s: float, start: int) -> Iterator[tuple[int, UInt8]]:
    """Frame numbers and frames that are at least ``every_s`` apart, by media time where there is one."""
    next_ns: int | None = None
    number = start
    while (got := source.read()) is not None:
        image, pts_ns = got
        now_ns = time.monotonic_ns() if pts_ns is None else pts_ns
        if next_ns is None or now_ns >= next_ns:
            yield number, image
            # half a millisecond early: rounded media times must not lose every second frame
            next_ns = now_ns + max(0, round(every_s * 1e9) - 500_000)
        number += 1


def _write_jpeg(image: UInt8, path: Path, quality: int) -> None:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    # not atomic_path: a torn picture has no note and is written again, and syncing each costs more than looking
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data.tobytes())
    temporary.replace(path)


def _report(notes: Sequence[Note], names: Sequence[str], num_alike: int) -> TeachReport:
    written = [note for note in notes if note.file is not None]
    sure = [label for note in written for label, unsure in zip(note.labels, note.doubtful, strict=True) if not unsure]
    counts = np.bincount(np.array(sure, np.int64), minlength=len(names))
    return TeachReport(
        num_pictures=len(written),
        num_labels=len(sure),
        num_doubtful=sum(sum(note.doubtful) for note in written),
        num_empty=sum(note.is_empty for note in written),
        num_alike=num_alike,
        per_class={name: int(count) for name, count in zip(names, counts, strict=True) if count},
    )
