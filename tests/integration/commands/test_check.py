"""``edge check`` tries a stream as the daemon would run it."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_model

from edge.commands.check import check
from edge.errors import ConfigError
from edge.sources import choose
from edge.sources.direct import Decoding

SCENE = "synthetic://street?seed=1&size=96x64&objects=1&frames=3"


def rows_of(folder: Path, stream: str, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    tiny_model(folder / "m.onnx")
    path = folder / "edge.toml"
    path.write_text(f'[model]\npath = "{folder}/m.onnx"\nthreads = 1\n[[streams]]\nname = "door"\n{stream}')
    with suppress(ConfigError):
        check(path, as_json=True)
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def zone(points: str, more: str = "") -> str:
    return f'[[streams.analytics.zones]]\nname = "yard"\npoints_px = {points}\n{more}'


WIDE = "[[10, 10], [180, 10], [180, 110], [10, 110]]"


@pytest.mark.parametrize(
    ("keys", "result", "words"),
    [
        ("", "failed", "must lie in the frame of 96x64 pixels"),
        # the zone is drawn on what the model sees, not on what the camera gives
        ("size = [192, 128]\n", "ok", "192x128"),
        ("size = [192, 128]\nroi = [0, 0, 0.5, 0.5]\n", "ok", "192x128"),
        ("rotate = 90\n", "failed", "must lie in the frame of 64x96 pixels"),
    ],
)
def test_what_is_drawn_is_tried_in_the_size_that_runs(
    keys: str, result: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = rows_of(tmp_path, f'source = "{SCENE}"\n{keys}{zone(WIDE)}', capsys)["door"]
    assert row["result"] == result and words in row["detail"]


def test_an_unknown_class_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    misspelt = zone(WIDE, 'classes = ["persn"]\n')
    stream = f'source = "{SCENE}"\nsize = [192, 128]\n{misspelt}'
    row = rows_of(tmp_path, stream, capsys)["door"]
    assert row["detail"] == "door: zone 'yard': unknown class 'persn'; did you mean 'person'?"


def test_a_source_is_opened_as_the_daemon_opens_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    class Nothing:
        info = choose.open_source(SCENE).info

        def read(self) -> tuple[Any, None]:
            return np.zeros((64, 96, 3), np.uint8), None

        def close(self) -> None: ...

    def noting(uri: str, **how: Any) -> Nothing:
        asked.update(how)
        return Nothing()

    monkeypatch.setattr(choose, "open_source", noting)
    stream = (
        'source = "rtsp://127.0.0.1:1/x"\ndecoder = "av"\ntransport = "udp"\nhardware = "auto"\nisolation = "thread"\n'
        "open_timeout_s = 3\nstall_timeout_s = 2\nsize = [64, 48]\nmax_fps = 5\n[streams.record]\n"
        f'folder = "{tmp_path}"\ncontent = "source"\n'
    )
    rows_of(tmp_path, stream, capsys)
    assert asked["decoding"] == Decoding("av", "udp", "auto")
    assert (asked["deadlines"].open_s, asked["deadlines"].stall_s) == (3, 2)
    assert asked["is_isolated"] is False
    assert asked["preparation"].picture.size == (64, 48) and asked["preparation"].picture.max_fps == 5
    assert asked["packets"] is not None


@pytest.mark.parametrize(
    ("budget", "result"), [("", "ok"), ("memory_budget_mb = 5000\n", "ok"), ("memory_budget_mb = 100\n", "failed")]
)
def test_the_memory_plan_is_added_up_and_held_against_the_budget(
    budget: str, result: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model(tmp_path / "m.onnx")
    path = tmp_path / "edge.toml"
    path.write_text(f'{budget}[model]\npath = "{tmp_path}/m.onnx"\n[[streams]]\nname = "door"\nsource = "{SCENE}"\n')
    with suppress(ConfigError):
        check(path, as_json=True)
    row = json.loads(capsys.readouterr().out)[-1]
    assert (row["kind"], row["result"]) == ("memory", result)
    if result == "ok":
        total, *parts = (float(number) for number in re.findall(r" ?(\d+)(?= MB at most|,|$)", row["detail"]))
        assert total == pytest.approx(sum(parts), abs=len(parts)) and "door" in row["detail"]
    else:
        assert "memory_budget_mb = 100: this configuration can need" in row["detail"]


def config_text(folder: Path, stream: str = "", more: str = "") -> str:
    tiny_model(folder / "m.onnx")
    own = f'[[streams]]\nname = "door"\nsource = "{SCENE}"\n{stream}'
    return f'{more}\n[model]\npath = "{folder}/m.onnx"\nthreads = 1\n{own}'


def failures(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Kind of the row -> its reason, for all that failed."""
    path = folder / "edge.toml"
    path.write_text(text)
    with suppress(ConfigError):
        check(path, as_json=True)
    return {row["kind"]: row["detail"] for row in json.loads(capsys.readouterr().out) if row["result"] != "ok"}


CLOSED = '[mqtt]\nhost = "127.0.0.1"\nport = 1\n'


@pytest.mark.parametrize(
    ("stream", "more", "kind", "words"),
    [
        ("", "[events]\nmax_mb = 8\n", "events", "there is no place for events; set it, or state_dir"),
        ("", 'state_dir = "{folder}/s"\n' + CLOSED, "broker", "mqtt broker 127.0.0.1:1 cannot be reached"),
        (
            "",
            'state_dir = "{folder}/s"\n[[webhooks]]\nurl = "http://127.0.0.1:1/secretkey1234"\n',
            "webhook",
            "cannot be reached (Connection refused)",
        ),
        ('sinks = ["mp4:{folder}/none/o.mp4"]\n', "", "sink", "none does not exist; run: mkdir -p"),
        ('sinks = ["rtsp://127.0.0.1:1/x"]\n', "", "sink", "rtsp://127.0.0.1:1/x cannot be reached"),
        ('sinks = ["ftp:x"]\n', "", "sink", "'ftp' is no sink"),
        ('[streams.record]\nfolder = "{folder}/m.onnx/x"\n', "", "recording", "cannot be written by this user"),
        ("tiles = [2, 2]\n", "", "", ""),
        ('sinks = ["jsonl:{folder}/o.jsonl"]\n', 'state_dir = "{folder}/s"\n[events]\nmax_mb = 8\n', "", ""),
    ],
)
def test_what_a_run_would_refuse_or_miss_is_refused(
    stream: str, more: str, kind: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = config_text(tmp_path, stream.replace("{folder}", str(tmp_path)), more.replace("{folder}", str(tmp_path)))
    before = set(tmp_path.iterdir()) | {tmp_path / "edge.toml"}
    found = failures(tmp_path, text, capsys)
    assert set(found) == ({kind} if kind else set()), found
    assert words in found.get(kind, "")
    assert "secretkey1234" not in str(found)
    assert set(tmp_path.iterdir()) == before, "a check writes nothing"


def test_a_model_that_cannot_be_shown_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = config_text(tmp_path, '[streams.second_stage]\nmodel = "model"\n')
    assert "second_stage.model" in failures(tmp_path, text, capsys)["model"]
