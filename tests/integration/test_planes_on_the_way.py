"""Planes from the decoder to the pipeline: the same picture on every way, nothing made of what is left out."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from edge.chaos.pictures import transport_stream
from edge.interfaces import CameraSource
from edge.pictures.planes import BT601, Colour, Planes
from edge.sources.av import AvSource, Skipping
from edge.sources.choose import open_source
from edge.sources.direct import Decoding
from edge.sources.isolation.ring import RingWriter
from edge.sources.picture import PictureSettings
from edge.sources.prepared import Preparation, PreparedSource
from edge.sources.replay import RawWriter, ReplaySource

NUM_FRAMES = 12


def write_film(folder: Path, *, size: tuple[int, int] = (96, 64), colour: Colour = BT601) -> Path:
    """Noise, coded without loss in a file that says what its colours mean."""
    path, rng = folder / "film.mkv", np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        context = stream.codec_context
        context.colorspace = {"bt601": 5, "bt709": 1, "bt2020": 9}[colour.matrix]
        context.color_range = 2 if colour.is_full else 1
        for index in range(NUM_FRAMES):
            image = rng.integers(60, 190, (size[1], size[0], 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def opened(path: Path, *, is_isolated: bool) -> CameraSource:
    return open_source(str(path), decoding=Decoding("av"), is_isolated=is_isolated)


def pictures(source: CameraSource) -> list[Planes]:
    """All of them, copied."""
    found = []
    while (picture := source.read_planes()) is not None:
        found.append(picture[0].copy())
    source.close()
    return found


@pytest.mark.parametrize("colour", [Colour(), Colour("bt709"), Colour("bt2020", is_full=True)])
def test_a_picture_is_the_same_through_shared_memory_and_in_bgr(tmp_path: Path, colour: Colour) -> None:
    path = write_film(tmp_path, colour=colour)
    direct = pictures(opened(path, is_isolated=False))
    isolated = pictures(opened(path, is_isolated=True))
    source, bgr = opened(path, is_isolated=True), []
    while (picture := source.read()) is not None:
        bgr.append(picture[0])
    source.close()
    assert len(direct) == len(isolated) == len(bgr) == NUM_FRAMES
    assert {planes.form for planes in (*direct, *isolated)} == {direct[0].form}
    assert (direct[0].form.format, direct[0].form.colour) == ("i420", colour)
    for ours, theirs, image in zip(direct, isolated, bgr, strict=True):
        assert all((one == other).all() for one, other in zip(ours.arrays, theirs.arrays, strict=True))
        assert (ours.bgr == image).all()


def test_bgr_is_what_pyav_makes_of_the_frame(tmp_path: Path) -> None:
    """So nothing changes for who asks for BGR."""
    path = write_film(tmp_path, colour=Colour("bt709"))
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    for planes, image in zip(pictures(opened(path, is_isolated=False)), expected, strict=True):
        assert (planes.bgr == image).all()


def test_shared_memory_holds_half_of_what_bgr_takes(tmp_path: Path) -> None:
    (planes, *_) = pictures(opened(write_film(tmp_path), is_isolated=False))
    ring = RingWriter(planes.form)
    assert ring.put(planes) is not None
    assert planes.form.num_bytes == planes.bgr.nbytes // 2
    ring.close()


def test_a_raw_capture_of_planes_gives_them_back(tmp_path: Path) -> None:
    found = pictures(opened(write_film(tmp_path, colour=Colour("bt709")), is_isolated=False))
    writer = RawWriter(tmp_path / "raw")
    for seq, planes in enumerate(found):
        writer.write(planes, 0, seq, 1000 + seq, None)
    writer.write(found[0].bgr, 0, NUM_FRAMES, 5000, None)
    writer.close()
    source = ReplaySource(tmp_path / "raw")
    for planes in found:
        assert source.grab()
        assert source.retrieve().form == planes.form
        pairs = zip(source.retrieve().arrays, planes.arrays, strict=True)
        assert all((ours == theirs).all() for ours, theirs in pairs)
    assert source.grab()
    assert (source.retrieve().bgr == found[0].bgr).all()
    assert not source.grab()


class Counting(AvSource):
    num_retrieved = 0

    def retrieve(self) -> Planes:
        self.num_retrieved += 1
        return super().retrieve()


def test_nothing_is_made_of_a_picture_that_the_rate_leaves_out(tmp_path: Path) -> None:
    source = Counting(str(write_film(tmp_path)))
    slow = PreparedSource(source, Preparation(PictureSettings(max_fps=2.5)))
    num = 0
    while slow.read_planes() is not None:
        num += 1
    assert num == source.num_retrieved == NUM_FRAMES // 4
    assert slow.take_drops() == {"drop_max_fps": NUM_FRAMES - num}


def test_a_picture_of_a_decoder_is_never_written_to(tmp_path: Path) -> None:
    """Others are predicted from it: a mask painted into it would spread."""
    path = write_film(tmp_path)
    masks = (((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),)
    masked = PreparedSource(AvSource(str(path)), Preparation(PictureSettings(masks=masks)))
    for ours, theirs in zip(pictures(masked), pictures(opened(path, is_isolated=False)), strict=True):
        assert not (ours.arrays[0][:, :46] != 16).any()
        assert (ours.arrays[0][:, 52:] == theirs.arrays[0][:, 52:]).all()


@pytest.mark.parametrize(
    ("max_fps", "key_every", "expected"),
    [
        # key pictures four times a second, of which one in four is wanted: nothing else is decoded any more
        (1.0, 5, {"DEFAULT": (8, 10), "ALL": (170, 190), "NONREF": (8, 16)}),
        # too few key pictures: what others are made of is decoded
        (5.0, 40, {"DEFAULT": (40, 60), "NONREF": (140, 160), "ALL": (0, 0)}),
        # every picture is wanted
        (25.0, 40, {"DEFAULT": (200, 200), "NONREF": (0, 0), "ALL": (0, 0)}),
    ],
)
def test_what_the_decoder_may_leave_out(max_fps: float, key_every: int, expected: dict[str, tuple[int, int]]) -> None:
    skipping = Skipping(max_fps)
    said = [skipping.of(index % key_every == 0, index * 0.05) for index in range(200)]
    for name, (least, most) in expected.items():
        assert least <= said.count(name) <= most, (name, said.count(name))


def test_what_is_decoded_of_key_pictures_alone_is_whole() -> None:
    """MPEG-2 at ten pictures a second, every fifth a key picture, of which two a second are wanted."""
    film = b"".join(transport_stream(10.0, 100, 0.0)[:100])
    with av.open(io.BytesIO(film), format="mpegts") as container:
        whole = {frame.pts: frame.to_ndarray() for frame in container.decode(video=0)}
    skipping, found = Skipping(2.0), {}
    with av.open(io.BytesIO(film), format="mpegts") as container:
        context = container.streams.video[0].codec_context
        for number, packet in enumerate(container.demux(video=0)):
            context.skip_frame = skipping.of(packet.is_keyframe, number / 10)
            found.update({frame.pts: frame.to_ndarray() for frame in packet.decode()})
    assert len(whole) >= 99
    assert 20 <= len(found) <= 30
    assert all((image == whole[pts]).all() for pts, image in found.items())


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((0, 1, -1, 0), cv2.ROTATE_90_CLOCKWISE),
        ((-1, 0, 0, -1), cv2.ROTATE_180),
        ((0, -1, 1, 0), cv2.ROTATE_90_COUNTERCLOCKWISE),
    ],
)
def test_a_film_of_a_telephone_stands_upright(tmp_path: Path, matrix: tuple[int, ...], turned: int) -> None:
    """An MP4 file whose track header holds a rotation (ISO/IEC 14496-12, 8.3.2) is shown as OpenCV shows it."""
    path, rng = tmp_path / "film.mp4", np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        image = cv2.resize(rng.integers(60, 190, (4, 6, 3), dtype=np.uint8), (96, 64))
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    values = (matrix[0], matrix[1], 0, matrix[2], matrix[3], 0, 0, 0, 1 << 14)
    data[place : place + 36] = struct.pack(">9i", *(value << 16 for value in values))
    path.write_bytes(data)
    source = open_source(str(path))
    picture = source.read()
    source.close()
    assert picture is not None
    expected = cv2.rotate(image, turned)
    assert picture[0].shape == expected.shape == (source.info.height, source.info.width, 3)
    assert np.abs(picture[0].astype(int) - expected).mean() < 8
