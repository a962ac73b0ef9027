"""A frozen picture is found though a real encoder changes it from frame to frame."""

from __future__ import annotations

import io

import av
import pytest
from unit.sources.test_camera_health import FPS, noisy, told, with_clock


@pytest.mark.parametrize(
    ("codec", "options", "has_clock"),
    [("mjpeg", {}, True), ("libx264", {"g": "25", "qp": "28", "tune": "zerolatency"}, False)],
)
def test_a_frozen_picture_is_found_through_a_real_encoder(codec: str, options: dict[str, str], has_clock: bool) -> None:
    """A camera that codes the same picture again and again, at a steady quality (docs/guarantees.md has the limits)."""
    stream = io.BytesIO()
    with av.open(stream, "w", "matroska") as film:
        video = film.add_stream(codec, rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = 320, 180, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(80):
            image = noisy(min(index, 20))
            image = with_clock(image, index) if has_clock else image
            film.mux(video.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        film.mux(video.encode())
    stream.seek(0)
    with av.open(stream) as film:
        pictures = [frame.to_ndarray(format="bgr24") for frame in film.decode(video=0)]
    assert [kind for _, kind, _ in told(pictures)] == ["camera_frozen"]
