"""Video files of the synthetic street, as a camera would write them."""

from __future__ import annotations

from pathlib import Path

import av

from edge.sources.synthetic import open_synthetic

FPS = 12


def write_clip(path: Path, *, seed: int, frames: int, size: str = "320x180", fps: int = FPS, **options: str) -> Path:
    """A film in H.264. Args: options: of x264, such as ``g="25"`` for a key frame at least so often."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = open_synthetic(f"synthetic://street?seed={seed}&size={size}&frames={frames}&fps={fps}")
    width, height = (int(side) for side in size.split("x"))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "g": "25", **options}
        while (picture := source.read()) is not None:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture[0], format="bgr24")))
        container.mux(stream.encode())
    return path
