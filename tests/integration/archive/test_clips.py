"""A video cut into parts gives the pictures and times that it gives as a whole, whatever its encoder did."""

from __future__ import annotations

import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from street_clips import encode, street

from edge.archive.clips import Split, find_clips, read_part, split
from edge.errors import MissingError, SourceError, UsageError
from edge.sources.av import AvSource
from edge.types import UInt8
from edge.video.media_time import MediaTime


@pytest.fixture(scope="module")
def pictures() -> list[UInt8]:
    """Ninety of a street, (96, 160, 3)."""
    return list(street(seed=3, frames=90, size="160x96"))


def whole(path: Path) -> list[tuple[UInt8, int | None]]:
    """Pictures and times as the loop reads them."""
    source = AvSource(str(path))
    pictures = []
    while (picture := source.read()) is not None:
        pictures.append(picture)
    source.close()
    return pictures


def in_parts(path: Path, cut: Split) -> list[tuple[UInt8, int | None]]:
    time = MediaTime(cut.fps)
    base = Fraction(*cut.time_base) if cut.time_base else None
    return [(image.bgr, time.next_ns(pts, base)) for part in cut.parts for pts, image in read_part(str(path), part)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {"bf": "0"}),
        ("b-frames.mp4", {"bf": "3", "b-pyramid": "normal"}),
        ("open-gop.mkv", {"bf": "3", "x264-params": "open-gop=1"}),
        ("open-gop.ts", {"bf": "2", "x264-params": "open-gop=1:keyint=20"}),
        ("one-gop.mp4", {"g": "1000"}),
        ("times-start-late.ts", {"bf": "2"}),
        ("no-times.h264", {"bf": "2"}),
    ],
)
def test_parts_together_are_the_whole_video(
    tmp_path: Path, pictures: list[UInt8], name: str, options: dict[str, Any]
) -> None:
    path = encode(tmp_path / name, pictures, size="160x96", **options)
    cut = split(str(path), part_frames=20)
    expected, found = whole(path), in_parts(path, cut)
    assert [time for _, time in found] == [time for _, time in expected]
    assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(found, expected, strict=True))
    assert len(found) == 90 == sum(part.num_frames for part in cut.parts)
    # times that no key frame has, or no key frames, leave a video in one piece
    assert len(cut.parts) == (1 if name in ("one-gop.mp4", "no-times.h264") else len(cut.parts)) >= 1
    if name in ("plain.mp4", "b-frames.mp4", "open-gop.mkv"):
        assert len(cut.parts) >= 3


def test_a_pattern_finds_files_at_every_depth(tmp_path: Path) -> None:
    for name in ("a.mp4", "north/b.mp4", "north/deep/c.mp4", "north/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"-")
    keys = [clip.key for clip in find_clips([f"{tmp_path}/**/*.mp4"])]
    assert keys == ["a.mp4", "north/b.mp4", "north/deep/c.mp4"]


def test_videos_are_read_where_fsspec_finds_them(tmp_path: Path, pictures: list[UInt8]) -> None:
    path = encode(tmp_path / "north" / "clip.mkv", pictures[:40], size="160x96")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(path, "north/clip.mkv")
    (clip,) = find_clips([f"zip://**/*.mkv::{tmp_path}/all.zip"])
    assert clip.key == "north/clip.mkv"
    cut = split(clip.address, part_frames=10)
    found = [image.bgr for part in cut.parts for _, image in read_part(clip.address, part)]
    assert len(cut.parts) > 1
    assert all(np.array_equal(one, other) for one, (other, _) in zip(found, whole(path), strict=True))


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("north", "south"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.mp4").write_bytes(b"-")
    with pytest.raises(UsageError, match=r"would both be 'a\.mp4'"):
        find_clips([f"{tmp_path}/north/*.mp4", f"{tmp_path}/south/*.mp4"])


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such files"):
        find_clips([f"{tmp_path}/**/*.mp4"])
    with pytest.raises(UsageError, match="no such files"):
        find_clips([f"{tmp_path}/clip.mp4"])
    with pytest.raises((MissingError, SourceError), match="s3"):
        find_clips(["s3://no-such-bucket-of-ours/*.mp4"])


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\0" * 5000])
def test_what_is_no_video_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"clip\.mp4"):
        split(str(path))
