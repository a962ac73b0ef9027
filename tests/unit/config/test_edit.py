"""Lines, zones and masks written into a configuration: what was asked stands in it, and nothing else has changed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.edit import Drawn, drawn_in, parse_drawn, with_drawn
from edge.config.load import parse_config
from edge.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).parents[3] / "edge" / "systemd" / "edge.toml"
TEXT = """# our two cameras
version = 1
model.path = "m.onnx"

[[streams]]
name = "door"  # by the lift
source = "0"
masks = [
  [[0, 0], [0.1, 0], [0.1, 0.1]],  # the neighbour's window
]

# who comes in
[[streams.analytics.lines]]
name = "gate"  # the old one
points_px = [[10, 200], [600, 200]]
band_px = 4.0

[[streams.analytics.zones]]
name = "yard"
points_share = [[0.2, 0.6], [0.8, 0.6], [0.5, 0.9]]
loiter_s = 30
[[streams.analytics.zones.schedules]]
days = ["mon", "tue"]
start_at = "22:00"

[streams.track]
method = "edge"

[[streams]]
name = "hall"
source = "1"

[log]
level = "info"
"""
INLINE = """version = 1
model = { path = "m.onnx" }
streams = [{ name = "door", source = "0", analytics = { lines = [{ name = "gate", points_px = [[0, 0], [1, 1]] }] } }]
"""
LINE = {"name": "gate", "points_share": [[0.1, 0.5], [0.9, 0.5]]}
ZONE = {"name": "yard", "points_share": [[0.2, 0.6], [0.8, 0.6], [0.5, 0.9]]}
MASK = [[0, 0], [0.1, 0], [0.1, 0.1]]


def edited(text: str = TEXT, stream: str = "door", **drawn: Any) -> str:
    return with_drawn(text, stream, parse_drawn(drawn))


def table(text: str, stream: str = "door") -> Any:
    return next(one for one in tomllib.loads(text)["streams"] if one["name"] == stream)


def test_a_line_that_is_moved_keeps_its_other_keys_and_comments() -> None:
    text = edited(
        lines=[LINE], zones=[{**ZONE, "schedules": [{"days": ["mon", "tue"], "start_at": "22:00"}]}], masks=[MASK]
    )
    assert table(text)["analytics"]["lines"] == [{**LINE, "band_px": 4.0}]
    assert "# who comes in" in text and "# the old one" in text and "# the neighbour's window" in text
    assert text.split("[[streams.analytics.zones]]")[1] == TEXT.split("[[streams.analytics.zones]]")[1]


def test_a_renamed_zone_keeps_its_keys() -> None:
    text = edited(zones=[{**ZONE, "name": "court", "was": "yard"}])
    (zone,) = table(text)["analytics"]["zones"]
    assert zone == {**ZONE, "name": "court", "loiter_s": 30}, "its schedule was taken away"


def test_what_is_not_named_is_gone() -> None:
    text = edited()
    assert "masks" not in table(text)
    assert "analytics" not in table(text)
    assert table(text)["track"] == {"method": "edge"}
    assert table(text, "hall") == table(TEXT, "hall")


def test_the_first_shapes_of_a_stream_make_its_tables() -> None:
    text = edited(stream="hall", lines=[LINE], zones=[{**ZONE, "classes": ["person"]}], masks=[MASK])
    hall = table(text, "hall")
    assert hall["analytics"] == {"lines": [LINE], "zones": [{**ZONE, "classes": ["person"]}]}
    assert hall["masks"] == [MASK]
    assert tomllib.loads(text)["log"] == {"level": "info"}


def test_inline_tables_are_edited_or_refused_but_never_damaged() -> None:
    moved = edited(INLINE, lines=[LINE])
    assert table(moved)["analytics"]["lines"] == [LINE]


def test_what_is_read_is_what_was_written() -> None:
    text = edited(lines=[LINE], zones=[ZONE], masks=[MASK])
    assert drawn_in(text, "door") == {
        "lines": [{**LINE, "band_px": 4.0}],
        "zones": [{**ZONE, "loiter_s": 30}],
        "masks": [MASK],
        "score": None,
    }


@pytest.mark.parametrize("text", [TEXT, INLINE])
def test_a_score_is_set_kept_and_taken_away(text: str) -> None:
    with_score = edited(text, score=0.4)
    assert drawn_in(with_score, "door")["score"] == 0.4
    assert table(edited(with_score, lines=[LINE]))["score"] == 0.4, "what is not named stays"
    assert "score" not in table(edited(with_score, score=None))


def test_the_shipped_file_takes_shapes_and_keeps_its_comments() -> None:
    text = SHIPPED.read_text()
    name = tomllib.loads(text)["streams"][0]["name"]
    after = edited(text, name, lines=[LINE], masks=[MASK])
    parse_config(tomllib.loads(after), where="edge.toml", text=after)
    assert [line for line in text.splitlines() if line not in after.splitlines()] == []


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ([], "drawn"),
        ({"lines": [{"name": "a"}]}, "lines.0.points_share"),
        ({"lines": [{**LINE, "points_share": [[0, 2], [1, 1]]}]}, "lines.0.points_share"),
        ({"zones": [{**ZONE, "schedules": [{"days": ["someday"]}]}]}, "zones.0.schedules"),
        ({"masks": [[[0, 0], [1, 1], [1, 0], [0, 1]]]}, "masks.0.*cross"),
        ({"circles": []}, "circles"),
    ],
)
def test_what_is_not_understood_is_refused(drawn: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_drawn(drawn)


def test_a_stream_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="no stream called 'attic'"):
        edited(stream="attic")


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
shares = st.floats(0, 1, width=32)
points = st.tuples(shares, shares)
shapes = st.builds(
    dict,
    name=names,
    points_share=st.lists(points, min_size=2, max_size=5),
    classes=st.lists(names, max_size=2),
    schedules=st.lists(st.fixed_dictionaries({"days": st.just(["sat"]), "end_at": st.just("06:30")}), max_size=2),
)
several = st.lists(shapes, max_size=4, unique_by=lambda shape: shape["name"])


@settings(max_examples=60, deadline=None)
@given(lines=several, zones=several, text=st.sampled_from([TEXT, INLINE]), twice=several)
def test_any_drawing_stands_in_the_file_and_nothing_else_has_changed(
    lines: list[Any], zones: list[Any], text: str, twice: list[Any]
) -> None:
    """An edit is right or refused; a second one on top of it as well."""
    for drawn in (Drawn.model_validate({"lines": lines, "zones": zones}), Drawn.model_validate({"lines": twice})):
        before = tomllib.loads(text)
        text = with_drawn(text, "door", drawn)
        after = tomllib.loads(text)
        found = drawn_in(text, "door")
        assert [part["name"] for part in found["lines"]] == [shape.name for shape in drawn.lines] or text is INLINE
        assert {part["name"] for part in found["zones"]} == {shape.name for shape in drawn.zones}
        for one in (before, after):
            for stream in one["streams"]:
                stream.pop("analytics", None)
                stream.pop("masks", None)
        assert before == after


def test_what_is_watched_in_a_zone_is_changed_taken_out_and_otherwise_kept() -> None:
    schedules = [{"days": ["mon", "tue"], "start_at": "22:00"}]
    same = edited(lines=[LINE], zones=[{**ZONE, "schedules": schedules}], masks=[MASK])
    assert table(same)["analytics"]["zones"][0]["loiter_s"] == 30
    other = edited(lines=[LINE], zones=[{**ZONE, "loiter_s": 5, "crowd_count": 4, "stopped_s": None}])
    assert table(other)["analytics"]["zones"] == [{**ZONE, "loiter_s": 5, "crowd_count": 4}]
    gone = edited(lines=[LINE], zones=[{**ZONE, "loiter_s": None}])
    assert table(gone)["analytics"]["zones"] == [ZONE]
    parse_config(tomllib.loads(other), where="edited")


@pytest.mark.parametrize("key", ["loiter_s", "stopped_s", "crowd_count"])
def test_what_cannot_be_watched_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_drawn({"zones": [{**ZONE, key: -1}]})
    with pytest.raises(ConfigError, match="lines"):
        parse_drawn({"lines": [{**LINE, key: 1}]})
