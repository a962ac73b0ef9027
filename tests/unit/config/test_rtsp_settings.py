"""RTSP is closed unless asked for, and open to others only with a token or with everybody's leave."""

from __future__ import annotations

from typing import Any

import pytest

from edge.config.load import parse_config
from edge.errors import ConfigError

STREAM = {"name": "door", "source": "rtsp://camera/live"}


def parsed(**more: Any) -> Any:
    return parse_config({"model": {"path": "x.onnx"}, "streams": [STREAM], **more}, where="test")


def test_nothing_is_served_unless_it_is_asked_for() -> None:
    assert parsed().rtsp.enabled is False
    assert parsed().rtsp.host == "127.0.0.1"


def test_other_machines_need_a_token() -> None:
    rtsp = {"enabled": True, "host": "0.0.0.0"}
    with pytest.raises(ConfigError, match=r"server.token_file is expected"):
        parsed(rtsp=rtsp)
    assert parsed(rtsp=rtsp, server={"token_file": "token"}).rtsp.enabled
    assert parsed(rtsp=rtsp, server={"allow_anyone": True}).rtsp.enabled
    assert parsed(rtsp={"enabled": True}).rtsp.enabled


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        ({}, None),
        ({"masks": [[[0, 0], [1, 0], [1, 1]]]}, "without its masks"),
        ({"roi": [0, 0, 1, 0.5]}, "without its roi"),
        ({"rotate": 180}, "without its rotate"),
        ({"decoder": "opencv"}, "PyAV reads"),
        ({"source": "/dev/video0"}, "PyAV reads"),
        ({"source": "film.mp4"}, "PyAV reads"),
    ],
)
def test_packets_that_show_too_much_or_are_not_there_are_not_given(stream: dict[str, Any], reason: str | None) -> None:
    (found,) = parse_config({"model": {"path": "x.onnx"}, "streams": [{**STREAM, **stream}]}, where="test").streams
    assert (found.why_no_packets or "").endswith(reason or "")
    assert (found.why_no_packets is None) == (reason is None)
