"""Sound is kept unless it is muted, or a part of the picture is masked."""

from __future__ import annotations

from typing import Any

import pytest

from edge.config.load import parse_config
from edge.errors import ConfigError

MASKS = [[[0, 0], [1, 0], [1, 1]]]


def parsed(**stream: Any) -> Any:
    streams = [{"name": "door", "source": "rtsp://camera/live", **stream}]
    return parse_config({"model": {"path": "x.onnx"}, "streams": streams}, where="test").streams[0]


@pytest.mark.parametrize(
    ("stream", "has_sound"),
    [({}, True), ({"audio": True}, True), ({"audio": False}, False), ({"masks": MASKS}, False)],
)
def test_sound_is_kept_where_nothing_forbids_it(stream: dict[str, Any], has_sound: bool) -> None:
    assert parsed(**stream).has_sound is has_sound


def test_sound_behind_a_mask_cannot_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="where masks forbid to look"):
        parsed(audio=True, masks=MASKS)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"audio": False}, "loud listens to the camera, and audio = false mutes it; remove one of the two"),
        ({"masks": MASKS}, "masks forbid to listen as they forbid to look"),
        ({"source": "synthetic://street?live=1"}, "loud needs a network address or a video file that PyAV reads"),
        ({"decoder": "opencv"}, "loud needs a network address or a video file that PyAV reads"),
    ],
)
def test_what_may_not_be_heard_is_not_measured(stream: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed(loud={}, **stream)
    assert parsed(loud={"dbfs": -30}).loud is not None
