"""A raw capture as a source: the pictures of one stream exactly as they were, with the times at which they came.

A recorded stream is a folder with ``index.jsonl``, one line per picture, and lossless FFV1 films ``NNNN.mkv``, a new
one for each size and every so many pictures, so that a capture that was cut off is whole except for its last film.
Shape letters: H W picture pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import av
import av.error
import numpy as np

from edge.errors import SourceError
from edge.files import parse_json
from edge.interfaces import SourceInfo
from edge.pictures.frames import frame_of, planes_of, set_colour
from edge.pictures.planes import PlaneForm, Planes
from edge.types import UInt8

INDEX = "index.jsonl"
PICTURES_PER_FILM = 300
# the films' own clock says nothing: the times stand in the index
FILM_FPS = 25


@dataclass(frozen=True, slots=True)
class RecordedPicture:
    """One line of the index: which picture of which film, and what ``edge.types.Frame`` says of it.

    Attributes:
        events: kind and data of what the camera told with this picture.
    """

    film: int
    epoch: int
    seq: int
    captured_ns: int
    pts_ns: int | None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class RawWriter:
    """Writes one stream's pictures without loss. Used by one thread."""

    def __init__(self, folder: Path) -> None:
        """Args: an empty or new folder for this stream."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._index: TextIO = (folder / INDEX).open("w", encoding="utf-8")
        self._film = -1
        self._container: Any = None
        self._stream: Any = None
        self._form: PlaneForm | None = None
        self._num_in_film = 0
        self.num_pictures = 0

    def write(
        self,
        image: UInt8 | Planes,
        epoch: int,
        seq: int,
        captured_ns: int,
        pts_ns: int | None,
        events: Any = (),
    ) -> None:
        """Add a picture, (H, W, 3) uint8 BGR or planes."""
        picture = Planes.of(image)
        if self._container is None or self._num_in_film >= PICTURES_PER_FILM or picture.form != self._form:
            self._begin_film(picture.form)
        frame = _bgr0(picture.bgr) if picture.is_bgr else frame_of(picture)
        frame.pts = self._num_in_film
        self._container.mux(self._stream.encode(frame))
        line = RecordedPicture(self._film, epoch, seq, captured_ns, pts_ns, list(events))
        self._index.write(json.dumps(asdict(line)) + "\n")
        self._num_in_film += 1
        self.num_pictures += 1

    def close(self) -> None:
        self._end_film()
        self._index.close()

    def _begin_film(self, form: PlaneForm) -> None:
        self._end_film()
        self._film += 1
        self._form = form
        self._container = av.open(str(film_path(self._folder, self._film)), "w")
        self._stream = self._container.add_stream("ffv1", rate=FILM_FPS)
        self._stream.width, self._stream.height = form.width, form.height
        self._stream.pix_fmt = "bgr0" if form.format == "bgr" else "yuv420p"
        if form.format != "bgr":
            set_colour(self._stream.codec_context, form.colour)
        self._num_in_film = 0

    def _end_film(self) -> None:
        if self._container is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
            self._container = None


class ReplaySource:
    """Gives the pictures of a recorded stream, as fast as they are read; see ``edge.interfaces.PlaneSource``.

    Attributes:
        last: the index line of the picture that was grabbed last.
    """

    def __init__(self, folder: Path) -> None:
        """Raises: SourceError: there is no capture, or it is damaged."""
        self._folder = folder
        self._lines = _index(folder)
        if not self._lines:
            raise SourceError(f"{folder}: the capture holds no picture")
        self._frames: Iterator[Any] = iter(())
        self._film = -1
        self._next = 0
        self.last = self._lines[0]
        first = self._decoded(self._lines[0])
        self._current, self._first = first, first
        self.pts_ns: int | None = None
        self.info = SourceInfo(first.width, first.height, 0.0, False, len(self._lines), "raw capture")

    def grab(self) -> bool:
        if self._next >= len(self._lines):
            return False
        self.last = self._lines[self._next]
        self._current, self._first = self._first or self._decoded(self.last), None
        self._next += 1
        self.pts_ns = self.last.pts_ns
        if self.pts_ns is None:
            # what was live then has no media time; now its capture time stands for it
            self.pts_ns = self.last.captured_ns - self._lines[0].captured_ns
        return True

    def retrieve(self) -> Planes:
        return planes_of(self._current)

    def read(self) -> tuple[UInt8, int | None] | None:
        return (self.retrieve().bgr, self.pts_ns) if self.grab() else None

    def close(self) -> None:
        self._next = len(self._lines)
        self._frames = iter(())
        self._current = self._first = None

    def _decoded(self, line: RecordedPicture) -> Any:
        try:
            if line.film != self._film:
                self._film = line.film
                self._frames = _film(film_path(self._folder, line.film))
            frame = next(self._frames, None)
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(f"{film_path(self._folder, line.film)}: cannot be read: {error}") from None
        if frame is None:
            raise SourceError(f"{film_path(self._folder, line.film)}: ends before its index does; it was cut off")
        return frame


def _bgr0(image: UInt8) -> Any:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24").reformat(format="bgr0")


def film_path(folder: Path, number: int) -> Path:
    """Where the film of this number lies."""
    return folder / f"{number:04d}.mkv"


def _film(path: Path) -> Iterator[Any]:
    with av.open(str(path)) as container:
        yield from container.decode(video=0)


def _index(folder: Path) -> list[RecordedPicture]:
    path = folder / INDEX
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be read ({error.strerror}); expected a folder made by: edge capture"
        ) from None
    try:
        # a line without its end was being written when the capture was cut off
        return [RecordedPicture(**parse_json(line)) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]
    except (ValueError, TypeError) as error:
        raise SourceError(f"{path}: not an index of a capture: {error}") from None
