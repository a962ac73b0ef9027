"""Drawing a round of questions from what is stored of a camera: the detector looks first, a teacher where there is one.

Two steps: many moments at random, of which the detector and the teacher say how doubtful they are; and of these the
few that a person looks at, more of the doubtful ones. H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edge.accuracy.cards import Box, Card, boxes_of, doubts_of
from edge.accuracy.footage import NS_PER_S, Film, Moment, moments_of, pictures_at
from edge.accuracy.sample import draw, strata_of_pictures, strata_of_segments
from edge.accuracy.session import Round
from edge.errors import UsageError
from edge.types import Detections

if TYPE_CHECKING:
    from edge.config.analytics import LineSettings
    from edge.config.schema import Config, StreamSettings
    from edge.model import Model
    from edge.types import UInt8

# moments that the detector looks at, for each that a person does
LOOKS = 8
SEGMENT_S = 5.0
SHOTS = 6
STRIP_PX = (480, 270)
# of the picture's width: nobody farther from a line crosses it within a segment
NEAR_SHARE = 0.15
TEACHER_SCORE = 0.4
LINE_BGR = (0, 200, 255)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to draw.

    Attributes:
        stream: its name.
        films: what is stored.
        crossings: line → wall clock of each reported crossing; only these lines get strips.
        teacher: a better model, None for none.
        pictures, strips: how many of each (strips: of each line).
        looks: moments that the detector looks at, for each that a person does.
        seed: of the draw.
    """

    stream: str
    films: Sequence[Film]
    crossings: Mapping[str, Sequence[int]]
    teacher: Path | None = None
    pictures: int = 60
    strips: int = 24
    looks: int = LOOKS
    seed: int = 1


def draw_round(config: Config, wanted: Wanted) -> tuple[Round, list[UInt8]]:
    """The cards and their pictures.

    Raises:
        EdgeError: a model cannot be loaded, or the footage cannot be read.
    """
    from edge.model import load_model, open_model

    stream = next((one for one in config.streams if one.name == wanted.stream), None)
    if stream is None:
        raise UsageError(
            f"there is no stream {wanted.stream!r}; there are: {', '.join(s.name for s in config.streams)}"
        )
    chosen = config.model_of(stream)
    model = load_model(chosen.model_copy(update={"max_batch": 1}))
    teacher = None if wanted.teacher is None else open_model(wanted.teacher)
    try:
        if model.manifest.task != "detect":
            raise UsageError(f"{chosen.path.name} is made to {model.manifest.task}; expected a detector")
        looker = _Looker(config, stream, model, teacher)
        return _drawn(looker, wanted)
    finally:
        for one in (model, teacher):
            if one is not None:
                one.close()


class _Looker:
    """Says what the detector and the teacher see in a picture."""

    def __init__(self, config: Config, stream: StreamSettings, model: Model, teacher: Model | None) -> None:
        from edge.pipeline.build import score_of

        self.config = config
        self.stream = stream
        self.score = score_of(stream, model.manifest)
        self.classes = model.manifest.classes
        self.sha256 = model.manifest.sha256
        self._model = model
        self._teacher = teacher

    def boxes(self, image: UInt8) -> tuple[tuple[Box, ...], int]:
        """What may be there, and on how much of it one may doubt."""
        from edge.pipeline.swap.agreement import matched

        own = self.detections(image)
        other = None if self._teacher is None else self._taught(self._teacher, image)
        boxes = boxes_of(own, other, self.score, self.classes)
        said = own[own.score >= self.score]
        alone = 0 if other is None else len(said) - len(matched(said, other))
        return boxes, doubts_of(boxes, alone, self.score)

    def detections(self, image: UInt8) -> Detections:
        """All candidates of the detector."""
        from edge.models.tiles import TileGrid

        tiles = self.stream.tiles
        grid = None if tiles is None else TileGrid(*tiles, overlap=self.stream.tile_overlap)
        found = self._model.submit([image], [grid]).wait()[0][0]
        assert isinstance(found, Detections)
        return found

    def _taught(self, teacher: Model, image: UInt8) -> Detections:
        """What the teacher sees, of classes that the detector has."""
        found = teacher.predict([image])[0]
        assert isinstance(found, Detections)
        number_of = {name.casefold(): number for number, name in enumerate(self.classes)}
        table = np.array([number_of.get(name.casefold(), -1) for name in teacher.manifest.classes], np.int32)
        mapped = replace(found, class_id=table[found.class_id])
        return mapped[(mapped.class_id >= 0) & (mapped.score >= max(TEACHER_SCORE, teacher.manifest.thresholds.score))]


def _drawn(looker: _Looker, wanted: Wanted) -> tuple[Round, list[UInt8]]:
    rng = np.random.default_rng(wanted.seed)
    moments = moments_of(wanted.films, wanted.looks * wanted.pictures, 0.0, rng)
    seen = [looker.boxes(image) for image in pictures_at(moments, looker.stream, looker.config)]
    counts = [sum(box.seen for box in boxes) for boxes, _ in seen]
    strata, risk = strata_of_pictures(counts, [doubts for _, doubts in seen])
    chosen = draw(strata, risk, wanted.pictures, rng)
    cards = [
        Card(number, moments[unit].wall_ns, stratum, seen[unit][0])
        for number, (unit, stratum) in enumerate(zip(chosen.units.tolist(), chosen.strata.tolist(), strict=True))
    ]
    pictures = list(pictures_at([moments[unit] for unit in chosen.units], looker.stream, looker.config))
    sizes: dict[str, Sequence[int]] = {"objects": chosen.sizes.tolist()}
    for line in looker.stream.analytics.lines:
        if line.name in wanted.crossings:
            more, strips, line_sizes = _strips(looker, wanted, line, len(cards), rng)
            cards += more
            pictures += strips
            sizes[line.name] = line_sizes
    return Round(wanted.stream, tuple(cards), sizes, _facts(looker, wanted)), pictures


def _facts(looker: _Looker, wanted: Wanted) -> dict[str, Any]:
    hours = sum(film.length_s for film in wanted.films) / 3600
    teacher = "" if wanted.teacher is None else wanted.teacher.name
    return {"model": looker.sha256, "teacher": teacher, "footage_hours": round(hours, 2)}


def _strips(
    looker: _Looker, wanted: Wanted, line: LineSettings, first: int, rng: np.random.Generator
) -> tuple[list[Card], list[UInt8], list[int]]:
    """Cards of segments of time at a line, their pictures, and the size of each stratum."""
    segments = [
        Moment(film, number * SEGMENT_S) for film in wanted.films for number in range(int(film.length_s // SEGMENT_S))
    ]
    times = np.sort(np.array(wanted.crossings[line.name], np.int64))
    counted = np.array([_within(times, one) for one in segments], np.int64)
    quiet = np.flatnonzero(counted == 0)
    asked = np.sort(rng.choice(quiet, min(len(quiet), wanted.looks * wanted.strips), replace=False))
    middles = [replace(segments[unit], at_s=segments[unit].at_s + SEGMENT_S / 2) for unit in asked]
    near = np.array([_num_near(looker, line, image) for image in pictures_at(middles, looker.stream, looker.config)])
    known = np.concatenate([np.flatnonzero(counted > 0), asked]).astype(np.int64)
    strata, risk = strata_of_segments(counted[known], np.concatenate([np.zeros(len(known) - len(asked)), near]))
    chosen = draw(strata, risk, wanted.strips, rng)
    # the quiet segments that were asked stand for all quiet ones
    scale = len(quiet) / len(asked) if len(asked) else 1.0
    sizes = [round(size * scale) for size in chosen.sizes[:2].tolist()] + [int(chosen.sizes[2])]
    units = [segments[unit] for unit in known[chosen.units].tolist()]
    cards = [
        Card(first + number, unit.wall_ns, stratum, line=line.name, counted=int(_within(times, unit)))
        for number, (unit, stratum) in enumerate(zip(units, chosen.strata.tolist(), strict=True))
    ]
    return cards, list(_pictures_of(units, looker, line)), sizes


def _within(times_ns: np.ndarray[Any, np.dtype[np.int64]], segment: Moment) -> int:
    end_ns = segment.wall_ns + round(SEGMENT_S * NS_PER_S)
    return int(np.searchsorted(times_ns, end_ns) - np.searchsorted(times_ns, segment.wall_ns))


def _num_near(looker: _Looker, line: LineSettings, image: UInt8) -> int:
    """How many objects stand so near the line that they may cross it."""
    found = looker.detections(image)
    found = found[found.score >= looker.score * 0.5]
    if not len(found):
        return 0
    height, width = image.shape[:2]
    start, end = (np.array(point) for point in line.pixels(width, height)[:2])
    feet = np.stack([(found.xyxy[:, 0] + found.xyxy[:, 2]) / 2, found.xyxy[:, 3]], axis=1)
    along = end - start
    share = np.clip((feet - start) @ along / max(float(along @ along), 1e-9), 0, 1)
    distance = np.hypot(*(feet - (start + share[:, None] * along)).T)
    return int((distance < NEAR_SHARE * width).sum())


def _pictures_of(segments: Sequence[Moment], looker: _Looker, line: LineSettings) -> Iterator[UInt8]:
    """One picture for each segment: six shots of it, in order, with the line drawn in."""
    for segment in segments:
        step_s = (SEGMENT_S - 0.5) / (SHOTS - 1)
        shots = [replace(segment, at_s=segment.at_s + 0.1 + number * step_s) for number in range(SHOTS)]
        tiles = [_tile(image, line) for image in pictures_at(shots, looker.stream, looker.config)]
        yield np.vstack([np.hstack(tiles[:3]), np.hstack(tiles[3:])])


def _tile(image: UInt8, line: LineSettings) -> UInt8:
    small = cv2.resize(image, STRIP_PX, interpolation=cv2.INTER_AREA)
    start, end = (tuple(round(value) for value in point) for point in line.pixels(*STRIP_PX)[:2])
    if line.points_px is not None:
        scale = np.array(STRIP_PX) / (image.shape[1], image.shape[0])
        start, end = (tuple(np.rint(np.array(point) * scale).astype(int).tolist()) for point in line.points_px[:2])
    cv2.line(small, start, end, LINE_BGR, 2)
    tile: UInt8 = small.astype(np.uint8)
    return tile
