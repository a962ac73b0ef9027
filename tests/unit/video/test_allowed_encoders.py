"""``encoder`` in edge.toml: who wants no code under the GPL gets another encoder, or a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from edge.errors import MissingError
from edge.sinks import mp4
from edge.video.allowed import CHOICES, allow_encoders
from edge.video.encoder import VideoEncoder, find_encoder


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    allow_encoders("auto")


@pytest.mark.parametrize(("choice", "name"), [("auto", "libx264"), ("x264", "libx264"), ("openh264", "libopenh264")])
def test_the_encoder_that_was_chosen_is_used(choice: str, name: str) -> None:
    allow_encoders(choice)
    if name not in av.codecs_available:
        # as in PyAV's own package, which has libx264 in its place
        with pytest.raises(MissingError, match=name):
            find_encoder()
        return
    assert find_encoder() == mp4.find_encoder() == name
    assert find_encoder(is_hardware_wanted=True) in CHOICES[choice]
    VideoEncoder(name, 64, 48, fps=10, key_every_s=1)


def test_where_only_hardware_may_encode_and_there_is_none_it_is_said() -> None:
    allow_encoders("hardware")
    if any(Path(node).exists() for node in ("/dev/nvidia0", "/dev/video11", "/dev/v4l2-nvenc")):
        pytest.skip("this machine has an encoder")
    with pytest.raises(MissingError, match="none of the encoders h264_nvenc, h264_v4l2m2m works here"):
        find_encoder()
