from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from edge.config.load import config_from_arguments, load_config, parse_config
from edge.errors import ConfigError

GOOD = """
[model]
path = "m.onnx"

[[streams]]
name = "door"
source = "rtsp://user:secret@cam/1"
"""


def load(tmp_path: Path, text: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "edge.toml"
    path.write_text(text)
    return load_config(path)


def test_one_model_and_one_stream_is_a_whole_configuration(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.model_of(config.streams[0]).path == Path("m.onnx")
    assert not config.streams[0].is_lossless
    assert not config.server.enabled
    assert config.server.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("path = ", "max_bach = 4\npath = "),
            "edge.toml, line 3: unknown key 'model.max_bach'; did you mean 'model.max_batch'?",
        ),
        (
            ('name = "door"', 'name = "door"\nsinks_ = []'),
            "unknown key 'streams.0.sinks_'; did you mean 'streams.0.sinks'?",
        ),
        (("source = ", "score = 7\nsource = "), "streams.0.score = 7: input should be less than or equal to 1"),
        (('name = "door"', ""), "key 'streams.0.name' is missing"),
        (('name = "door"', 'name = "a door"'), "streams.0.name = 'a door': expected 1 to 64 letters, digits, - and _"),
        (("[model]", "[modell]"), "unknown key 'modell'; did you mean 'model'?"),
        (('name = "door"', 'name = "door"\nmodel = "other"'), "stream 'door' asks for model 'other'; known: model"),
        (("[model]", "[model"), "no valid TOML"),
        (("[model]", "version = 2\n[model]"), "version = 2: input should be 1"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_was_expected(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace(*change))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_two_streams_of_one_name_are_refused(tmp_path: Path) -> None:
    twin = GOOD[GOOD.index("[[streams]]") :]
    with pytest.raises(ConfigError, match="two streams are called 'door'"):
        load(tmp_path, GOOD + twin)


def test_a_missing_file_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        load_config(tmp_path / "nowhere.toml")


def test_arguments_name_streams_after_their_sources_without_secrets() -> None:
    config = config_from_arguments(
        ["rtsp://u:p@10.0.0.5/live", "clip one.mp4", "clip one.mp4", "0"],
        Path("m.onnx"),
        ["jsonl:-", "http:0"],
        for_model={},
        for_stream={},
    )
    assert [stream.name for stream in config.streams] == ["10-0-0-5", "clip-one", "clip-one-3", "camera0"]
    assert config.server.enabled
    assert config.server.port == 0
    assert config.streams[0].sinks == ("jsonl:-",)


@pytest.mark.parametrize(
    ("source", "frames", "is_lossless"),
    [
        ("a.mp4", "auto", True),
        ("a.mp4", "newest", False),
        ("rtsp://cam/1", "auto", False),
        ("rtsp://cam/1", "every", True),
        ("synthetic://street", "auto", True),
        ("synthetic://street?live=1", "auto", False),
    ],
)
def test_files_give_every_frame_and_cameras_the_newest(source: str, frames: str, is_lossless: bool) -> None:
    config = config_from_arguments([source], Path("m.onnx"), [], for_model={}, for_stream={"frames": frames})
    assert config.streams[0].is_lossless is is_lossless


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[streams.lines]]\nname = "x"\n', "did you mean 'streams.0.analytics.lines'?"),
        ("[streams.heatmap]\ncell_px = 8\n", "did you mean 'streams.0.analytics.heatmap'?"),
        ("max_fsp = 3\n", "did you mean 'streams.0.max_fps'?"),
    ],
)
def test_a_key_that_stands_one_table_further_down_is_named(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(f'[model]\npath = "m.onnx"\n[[streams]]\nname = "a"\nsource = "0"\n{text}')
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_config(path)


def test_a_name_with_a_space_is_told_what_a_name_may_be(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text('[model]\npath = "m.onnx"\n[[streams]]\nname = "front door"\nsource = "0"\n')
    with pytest.raises(ConfigError, match="expected 1 to 64 letters, digits, - and _, no spaces"):
        load_config(path)


@pytest.mark.parametrize(
    ("table", "points"),
    [
        ("lines", {"points_px": [[100, 100], [float("nan"), 100]]}),
        ("zones", {"points_px": [[0, 0], [9, float("inf")], [9, 9]]}),
    ],
)
def test_a_corner_that_is_no_number_is_refused_where_it_is_written(table: str, points: dict[str, Any]) -> None:
    stream = {"name": "a", "source": "0", "analytics": {table: [{"name": "x", **points}]}}
    with pytest.raises(ConfigError, match="finite number"):
        parse_config({"model": {"path": "m.onnx"}, "streams": [stream]}, where="test")
