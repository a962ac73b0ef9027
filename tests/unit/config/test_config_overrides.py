"""The environment overrides single keys; whatever stands in a file, the answer is a configuration or one sentence."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from effort import examples

from edge.config.load import load_config, parse_config
from edge.config.overrides import overridden
from edge.errors import ConfigError, EdgeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).parents[3] / "systemd" / "edge.toml"
RAW = {"model": {"path": "m"}, "streams": [{"name": "door", "source": "0"}, {"name": "Yard", "source": "1"}]}


@pytest.mark.parametrize(
    ("variable", "text", "found"),
    [
        ("EDGE__SERVER__PORT", "9000", lambda config: config.server.port == 9000),
        ("EDGE__SERVER__ENABLED", "true", lambda config: config.server.enabled is True),
        ("EDGE__MODEL__PATH", "/x/y.onnx", lambda config: str(config.models[0].path) == "/x/y.onnx"),
        ("EDGE__STREAMS__DOOR__SOURCE", "rtsp://a/b", lambda config: config.streams[0].source == "rtsp://a/b"),
        ("EDGE__STREAMS__yard__MAX_FPS", "2.5", lambda config: config.streams[1].max_fps == 2.5),
        ("EDGE__STREAMS__DOOR__SINKS", '["jsonl:-"]', lambda config: config.streams[0].sinks == ("jsonl:-",)),
        ("EDGE__STREAMS__DOOR__TRACK__METHOD", "off", lambda config: config.streams[0].track.method == "off"),
        ("EDGELOOP", "5", lambda config: config.server.port == 8080),
    ],
)
def test_the_environment_overrides_a_key(variable: str, text: str, found: object) -> None:
    before = repr(RAW)
    assert found(parse_config(overridden(RAW, {variable: text}), where="x"))  # type: ignore[operator]
    assert repr(RAW) == before


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("EDGE__STREAMS__GATE__SOURCE", "no table of 'streams' is named 'GATE'"),
        ("EDGE__STREAMS__DOOR", "'streams' is no table"),
    ],
)
def test_a_variable_that_leads_nowhere_is_one_sentence(variable: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        overridden(RAW, {variable: "1"})


def test_a_misspelt_variable_is_an_unknown_key() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'server\.prot'; did you mean 'server\.port'"):
        parse_config(overridden(RAW, {"EDGE__SERVER__PROT": "1"}), where="x")


def test_load_config_looks_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE__SERVER__PORT", "1234")
    assert load_config(SHIPPED).server.port == 1234


def mutated(text: str, dice: random.Random) -> str:
    """The shipped file after a bad day: lines uncommented, doubled, cut, swapped, values of other kinds."""
    lines = text.splitlines()
    values = [
        "-1",
        "1e99",
        '"x"',
        "[]",
        "{}",
        "true",
        "nan",
        '"\\u0000"',
        "9" * 400,
        "[[1]]",
        "1979-05-27",
        '"' + "a" * 500 + '"',
    ]
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(lines))
        match dice.randrange(6):
            case 0:
                lines[at] = lines[at].removeprefix("# ")
            case 1:
                lines[at] = lines[at].partition("=")[0].removeprefix("# ") + "= " + dice.choice(values)
            case 2:
                lines.insert(dice.randrange(len(lines)), lines[at])
            case 3:
                lines[at] = lines[at][: dice.randrange(len(lines[at]) + 1)]
            case 4:
                lines[at] = dice.choice(
                    ["[streams]", "[[model]]", "[[streams.masks]]", "x.y.z = 1", "\u00e4 = 1", "= 3", "[server.log]"]
                )
            case _:
                del lines[at]
    return "\n".join(lines)


@pytest.mark.parametrize("count", [examples(400), pytest.param(10_000, marks=pytest.mark.soak)])
def test_no_configuration_gives_anything_but_a_sentence(count: int) -> None:
    text, dice, num_good = SHIPPED.read_text(), random.Random(8), 0
    for _ in range(count):
        broken = mutated(text, dice)
        try:
            parse_config(tomllib.loads(broken), where="edge.toml", text=broken)
            num_good += 1
        except tomllib.TOMLDecodeError:
            continue
        except EdgeError as error:
            assert len(str(error)) < 2000
            assert "\n" not in str(error)
    assert 0 < num_good < count
