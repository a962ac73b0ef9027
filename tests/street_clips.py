"""Video files of the synthetic street, as a camera would write them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import av

from edge.sources.synthetic import open_synthetic
from edge.types import UInt8

FPS = 12


def write_clip(path: Path, *, seed: int, frames: int, size: str = "320x180", fps: int = FPS, **options: str) -> Path:
    """A film in H.264. Args: options: of x264, such as ``g="25"`` for a key frame at least so often."""
    return encode(path, street(seed=seed, frames=frames, size=size, fps=fps), size=size, fps=fps, **options)


def street(*, seed: int, frames: int, size: str, fps: int = FPS) -> Iterator[UInt8]:
    source = open_synthetic(f"synthetic://street?seed={seed}&size={size}&frames={frames}&fps={fps}")
    while (picture := source.read()) is not None:
        yield picture[0]


def encode(path: Path, pictures: Iterable[UInt8], *, size: str, fps: int = FPS, **options: str) -> Path:
    """The pictures as a film. Args: options: as of ``write_clip``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = (int(side) for side in size.split("x"))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "g": "25", **options}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path
