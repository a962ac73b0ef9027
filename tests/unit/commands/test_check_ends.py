"""What ``edge check`` says of the places that results go to."""

from __future__ import annotations

import pytest

from edge.commands.check_ends import check_ends
from edge.config.load import parse_config


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "/NAME, and /NAME/source of network cameras"),
        (2, "no /NAME/source: with [workers] a camera's own packets stay in the process that records them"),
    ],
)
def test_what_rtsp_serves_is_said_before_it_is_missed(count: int, words: str) -> None:
    streams = [{"name": name, "source": f"rtsp://10.0.0.9/{name}"} for name in ("door", "yard")]
    tables = {"model": {"path": "street.onnx"}, "streams": streams, "rtsp": {"enabled": True}}
    config = parse_config({**tables, "workers": {"count": count}}, where="test")
    (row,) = [row for row in check_ends(config) if row["kind"] == "rtsp"]
    assert row["result"] == "ok" and words in row["detail"]
