"""Cameras are added to a file without touching the rest of it, whatever they are called and however it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.commands.init import TEMPLATE
from edge.config.camera import Camera, free_name, named, streams_in, toml_text, with_cameras
from edge.config.load import parse_text
from edge.errors import ConfigError

YARD = Camera("yard", "rtsp://10.0.0.3/sub", "rtsp://10.0.0.3/main", "admin", "canary-31")
FOLDER = Path("/etc/edge")
FILES = {
    "shipped": TEMPLATE.read_text(),
    "short": '[model]\npath = "m.onnx"\n[[streams]]\nname = "door"\nsource = "0"\n',
    "no newline at the end": '[model]\npath = "m.onnx"\n[[streams]]\nname = "door"\nsource = "0"',
    "server last": '[model]\npath = "m.onnx"\n[[streams]]\nname = "door"\nsource = "0"\n[server]\nenabled = true\n',
    "lines of a stream": '[model]\npath = "m.onnx"\n[[streams]]\nname = "door"\nsource = "0"\n'
    '[[streams.analytics.lines]]\nname = "a"\npoints_share = [[0.1, 0.1], [0.9, 0.9]]\n# '
    + "-" * 40
    + "\nband_px = 3.0\n",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_camera_comes_behind_the_others_and_all_else_stays(text: str) -> None:
    edited = with_cameras(text, [YARD], FOLDER)
    before, after = parse_text(text, "t"), parse_text(edited, "t")
    (new,) = [one for one in after.streams if one.name == "yard"]
    assert after.streams[:-1] == before.streams and new is after.streams[-1]
    assert (new.source, new.record_source, new.username) == ("rtsp://10.0.0.3/sub", "rtsp://10.0.0.3/main", "admin")
    assert new.password_file == FOLDER / "yard.password" and "canary-31" not in edited
    assert new.record is not None and (new.record.content, new.record.mode) == ("source", "events")
    assert after.model_copy(update={"streams": before.streams}) == before
    assert [line for line in text.splitlines() if line not in edited.splitlines()] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('streams = [{ name = "a", source = "0" }]\n[model]\npath = "m"\n', "take no"),
        ("streams = 3", "no .* tables"),
        ("streams = [3]", "no .* tables"),
        ("[[", "no TOML"),
    ],
)
def test_a_file_that_takes_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        with_cameras(text, [YARD], FOLDER)


@given(st.text(max_size=40))
def test_any_text_is_what_it_was(text: str) -> None:
    clean = text.encode("utf-8", "ignore").decode()
    (stream,) = streams_in(f"[[streams]]\nname = {toml_text(clean)}\n")
    assert stream["name"] == clean


def test_names_differ() -> None:
    cameras = named(["rtsp://a:b@10.0.0.2/x", "0", "rtsp://10.0.0.2/y", "rtsp://10.0.0.2/z"])
    assert [one.name for one in cameras] == ["10-0-0-2", "camera0", "10-0-0-2-3", "10-0-0-2-4"]
    assert cameras[0].source == "rtsp://10.0.0.2/x" and cameras[0].password == "b"
    assert free_name("0", ["camera0", "camera0-3"]) not in ("camera0", "camera0-3")
