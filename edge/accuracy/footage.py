"""What is stored of a camera: its films, moments drawn from them, and the pictures of those moments.

Recordings with boxes drawn into them are of no use here: whoever looks would only see what the detector saw.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from edge.errors import DataError, UsageError
from edge.pictures.planes import Planes
from edge.recording.index import RecordingIndex, described
from edge.sources.picture import PicturePreparer

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings
    from edge.types import UInt8

NS_PER_S = 1_000_000_000
# what a film may lack at its end, by its own index
END_S = 0.5


@dataclass(frozen=True, slots=True)
class Film:
    """A stored film. ``start_ns`` is the wall clock at its first picture; ``is_prepared``: masked and cut already."""

    path: Path
    start_ns: int
    length_s: float
    is_prepared: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """A time within a film, in seconds."""

    film: Film
    at_s: float

    @property
    def wall_ns(self) -> int:
        return self.film.start_ns + round(self.at_s * NS_PER_S)


def recorded_films(stream: StreamSettings, since_ns: int) -> list[Film]:
    """The recordings of a stream that ended since a moment, oldest first.

    Raises:
        DataError: there are none, or boxes are drawn into them.
    """
    record = stream.record
    if record is None:
        raise DataError(f"stream {stream.name!r} records nothing; set [streams.record], or give --footage")
    if record.content == "annotated":
        raise DataError(f'stream {stream.name!r}: record.content = "annotated" shows what was seen; record "plain"')
    index = RecordingIndex(record.folder / stream.name)
    index.load()
    films = [
        Film(record.folder / stream.name / one.file, one.start_ns, _length(one.start_ns, one.end_ns), True)
        for one in index.entries
        if one.end_ns >= since_ns and one.num_frames
    ]
    if not films:
        raise DataError(f"{record.folder / stream.name}: holds no recording of that time")
    return films


def given_films(paths: Sequence[Path]) -> list[Film]:
    """Films that somebody names. Raises: UsageError: one is no film."""
    films = []
    for path in paths:
        entry = described(path) if path.is_file() else None
        if entry is None or not entry.num_frames:
            raise UsageError(f"--footage {path}: expected a film (MP4)")
        films.append(Film(path, entry.start_ns, _length(entry.start_ns, entry.end_ns), False))
    return films


def _length(start_ns: int, end_ns: int) -> float:
    return max(0.0, (end_ns - start_ns) / NS_PER_S)


def moments_of(films: Sequence[Film], count: int, margin_s: float, rng: np.random.Generator) -> list[Moment]:
    """So many moments, each second of the footage with the same chance, in order of time.

    Args:
        films: where from.
        count: how many.
        margin_s: as much is left free at the end of each film.
        rng: draws.
    """
    lengths = np.array([max(0.0, film.length_s - max(margin_s, END_S)) for film in films])
    if lengths.sum() <= 0:
        raise DataError("the footage is too short to draw pictures from it")
    ends = np.cumsum(lengths)
    places = np.sort(rng.uniform(0, ends[-1], count))
    rows = np.minimum(np.searchsorted(ends, places, side="right"), len(films) - 1)
    return [
        Moment(films[row], float(place - (ends[row] - lengths[row])))
        for row, place in zip(rows.tolist(), places.tolist(), strict=True)
    ]


def pictures_at(moments: Sequence[Moment], stream: StreamSettings, config: Config) -> Iterator[UInt8]:
    """The picture of each moment, prepared as the model sees it: (H, W, 3) uint8 BGR.

    Raises:
        DataError: a film cannot be read.
    """
    from edge.pipeline.build import preparation_of

    preparer = PicturePreparer(preparation_of(stream, config).picture)
    for film, group in itertools.groupby(moments, key=lambda moment: moment.film):
        try:
            with closing(av.open(str(film.path), format="mp4")) as container:
                for moment in group:
                    image = _picture_at(container, moment.at_s)
                    yield image if film.is_prepared else preparer.prepare(Planes.of(image)).bgr
        except (av.error.FFmpegError, OSError, IndexError) as error:
            raise DataError(f"{film.path}: cannot be read ({error})") from None


def _picture_at(container: av.container.InputContainer, at_s: float) -> UInt8:
    """The first picture from a moment on, the last one where there is none."""
    stream = container.streams.video[0]
    assert stream.time_base is not None
    begin = stream.start_time or 0
    wanted = begin + int(at_s / stream.time_base)
    container.seek(wanted, stream=stream)
    found = None
    for frame in container.decode(stream):
        found = frame
        if frame.pts is not None and frame.pts >= wanted:
            break
    if found is None:
        raise IndexError("no picture at that time")
    image: UInt8 = found.to_ndarray(format="bgr24")
    return image
