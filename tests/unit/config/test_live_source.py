"""The large picture for who looks: what the configuration lets pass."""

from __future__ import annotations

from typing import Any

import pytest

from edge.config.load import parse_config
from edge.daemon.credentials import with_secrets
from edge.errors import ConfigError

STREAM = {"name": "door", "source": "rtsp://camera/sub", "live_source": "rtsp://camera/main"}


def parsed(**stream: Any) -> Any:
    config = parse_config({"model": {"path": "x.onnx"}, "streams": [{**STREAM, **stream}]}, where="test")
    return with_secrets(config).streams[0]


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        ({"live_source": "film.mp4"}, "live_source needs a network address"),
        ({"source": "film.mp4"}, "next to a source that is a camera"),
        ({"decoder": "opencv"}, "live_source is read by PyAV"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_words(stream: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parsed(**stream)


def test_it_takes_the_cameras_password_and_its_masks(tmp_path: Any) -> None:
    (tmp_path / "password").write_text("canary word")
    masks = [[[0, 0], [1, 0], [1, 1]]]
    stream = parsed(username="admin", password_file=tmp_path / "password", masks=masks)
    assert stream.live_source == "rtsp://admin:canary%20word@camera/main"
