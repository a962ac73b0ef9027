"""What every source promises, whatever it reads from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import SourceError
from edge.interfaces import Source
from edge.sources.choose import open_source
from edge.sources.direct import Decoding
from edge.sources.replay import RawWriter

NUM_FRAMES = 6


def write_video(folder: Path) -> str:
    path = folder / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for index in range(NUM_FRAMES):
        writer.write(np.full((64, 96, 3), index * 30, np.uint8))
    writer.release()
    return str(path)


def write_pictures(folder: Path) -> str:
    for index in range(NUM_FRAMES):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((64, 96, 3), index * 30, np.uint8))
    return str(folder)


def write_recording(folder: Path) -> str:
    writer = RawWriter(folder / "raw")
    for index in range(NUM_FRAMES):
        writer.write(np.full((64, 96, 3), index * 30, np.uint8), 0, index, 5000 + index * 1000, index * 1000)
    writer.close()
    return str(folder / "raw")


SOURCES: dict[str, Callable[[Path], Source]] = {
    "opencv file": lambda folder: open_source(write_video(folder)),
    "image folder": lambda folder: open_source(write_pictures(folder)),
    "synthetic": lambda folder: open_source(f"synthetic://street?seed=1&size=96x64&objects=2&frames={NUM_FRAMES}"),
    "PyAV file": lambda folder: open_source(write_video(folder), decoding=Decoding("av")),
    "isolated PyAV file": lambda folder: open_source(write_video(folder), decoding=Decoding("av"), is_isolated=True),
    "raw capture": lambda folder: open_source(write_recording(folder)),
    "isolated file": lambda folder: open_source(write_video(folder), is_isolated=True),
}


# a process each: the same contract holds in tests/integration/test_isolated_sources.py
ISOLATED = [name for name in SOURCES if name.startswith("isolated")]


@pytest.fixture(params=[name for name in SOURCES if name not in ISOLATED])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    opened = SOURCES[request.param](tmp_path)
    request.addfinalizer(opened.close)
    return opened


def test_it_says_what_it_is(source: Source) -> None:
    info = source.info
    assert (info.width, info.height, info.num_frames) == (96, 64, NUM_FRAMES)
    assert not info.is_live
    assert info.fps > 0 or info.decoder == "raw capture"
    assert info.decoder


def test_it_gives_every_picture_once_and_then_none(source: Source) -> None:
    pictures = []
    while (picture := source.read()) is not None:
        pictures.append(picture)
    assert len(pictures) == NUM_FRAMES
    assert source.read() is None
    assert all(image.shape == (64, 96, 3) and image.dtype == np.uint8 for image, _ in pictures)
    times = [pts_ns for _, pts_ns in pictures]
    assert times[0] == 0
    assert times == sorted({time_ns for time_ns in times if time_ns is not None})


def test_a_picture_is_not_written_to_after_it_was_given(source: Source) -> None:
    first = source.read()
    assert first is not None
    copy = first[0].copy()
    source.read()
    source.read()
    assert (first[0] == copy).all()


def test_closing_twice_is_fine(source: Source) -> None:
    source.close()
    source.close()


NO_SOURCES = [
    (None, "nowhere.mp4", "no such file; expected a video"),
    (b"this is no film" * 50, "text.mp4", "cannot be opened; is it a video file"),
    (b"", "empty.mp4", "cannot be opened; is it a video file"),
    (b"no picture", "broken.jpg", "not a picture that OpenCV can read"),
]


def no_source(folder: Path, content: bytes | None, name: str) -> str:
    path = folder / name
    if content is not None:
        path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(("content", "name", "expected"), NO_SOURCES)
def test_what_is_no_source_is_one_sentence(tmp_path: Path, content: bytes | None, name: str, expected: str) -> None:
    with pytest.raises(SourceError, match=expected):
        open_source(no_source(tmp_path, content, name))


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no pictures in this folder"):
        open_source(str(tmp_path))
