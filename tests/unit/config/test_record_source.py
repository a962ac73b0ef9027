"""The large picture of a camera next to the one that is analysed: what the configuration lets pass."""

from __future__ import annotations

from typing import Any

import pytest

from edge.config.load import parse_config
from edge.daemon.credentials import with_secrets
from edge.errors import ConfigError

RECORD = {"folder": "/tmp/x", "content": "source"}
STREAM = {"name": "door", "source": "rtsp://camera/sub", "record_source": "rtsp://camera/main"}


def parsed(**stream: Any) -> Any:
    config = parse_config({"model": {"path": "x.onnx"}, "streams": [{**STREAM, **stream}]}, where="test")
    return with_secrets(config).streams[0]


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        ({}, r"expected \[streams.record\]"),
        ({"record": {"folder": "/tmp/x"}}, 'with content = "source"'),
        ({"record": RECORD, "record_source": "film.mp4"}, "needs a network address"),
        ({"record": RECORD, "source": "film.mp4"}, "next to a source that is a camera"),
        ({"record": RECORD, "record_open": "needed"}, 'mode = "continuous" always needs it'),
        ({"record": RECORD, "record_source": None, "record_open": "needed"}, "set that too"),
        ({"record": RECORD, "masks": [[[0, 0], [1, 0], [1, 1]]]}, "without its masks"),
        ({"record": RECORD, "rotate": 90}, "without its rotate"),
    ],
)
def test_what_cannot_be_recorded_is_refused_in_words(stream: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parsed(**stream)


def test_both_pictures_take_the_cameras_password(tmp_path: Any) -> None:
    (tmp_path / "password").write_text("canary word")
    stream = parsed(record=RECORD, username="admin", password_file=tmp_path / "password")
    assert stream.source == "rtsp://admin:canary%20word@camera/sub"
    assert stream.record_source == "rtsp://admin:canary%20word@camera/main"


def test_what_is_analysed_may_be_no_network_camera() -> None:
    assert parsed(record=RECORD, source="/dev/video0").record_source == "rtsp://camera/main"
