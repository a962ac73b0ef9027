"""What lies in a recording's folder under the name of a recording, and is none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from edge.recording.index import described


def video(path: Path, kind: str) -> Path:
    """A video of ten pictures in this container."""
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")))
        container.mux(stream.encode(None))
    return path


def test_a_recording_that_the_index_lost_is_found_again(tmp_path: Path) -> None:
    found = described(video(tmp_path / "20260101T000000Z.mp4", "mp4"))
    assert found is not None
    assert (found.width, found.height, found.num_frames) == (64, 48, 10)


@pytest.mark.parametrize("kind", ["matroska", "avi", "mpegts"])
def test_another_container_under_its_name_is_left_alone(kind: str, tmp_path: Path) -> None:
    assert described(video(tmp_path / "20260101T000000Z.mp4", kind)) is None


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {other}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    ],
    ids=["hls", "concat", "sdp"],
)
def test_a_playlist_under_its_name_opens_no_other_file(text: str, tmp_path: Path) -> None:
    other = video(tmp_path / "other.mp4", "mp4")
    named = tmp_path / "20260101T000000Z.mp4"
    named.write_text(text.format(other=other.name))
    assert described(named) is None
