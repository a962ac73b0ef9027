"""A run keeps its tracks, costs its frames nothing, and what it kept opens in pandas, polars and duckdb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pandas
import polars
import pytest
from here import run_here

from edge.cli import run_command

CONFIG = """
state_dir = "{folder}/state"
[track_store]
block_s = 1
[model]
path = "edge/models/street-nano-int8.onnx"
[[streams]]
name = "door"
source = "synthetic://street?seed=3&fps=10&size=640x360&frames=150"
sinks = ["jsonl:{folder}/out.jsonl"]
[[streams.analytics.lines]]
name = "mid"
points_share = [[0.5, 0.05], [0.5, 0.95]]
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of 150 frames left."""
    found = tmp_path_factory.mktemp("kept")
    text = CONFIG.format(folder=found).replace("edge/models", str(ROOT / "edge" / "models"))
    (found / "edge.toml").write_text(text)
    assert run_here(["--quiet", "run", str(found / "edge.toml")]) == 0
    return found


def exported(folder: Path, what: str, ending: str) -> Path:
    out = folder / f"{what}.{ending}"
    store = ["--store", str(folder / "edge.toml")]
    assert run_command(["tracks", "export", "door", "--what", what, "-o", str(out), *store]) == 0
    return out


def test_every_frame_and_track_of_the_run_is_kept(folder: Path) -> None:
    results = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    table = pandas.read_parquet(exported(folder, "objects", "parquet"))
    assert len(pandas.read_parquet(exported(folder, "frames", "parquet"))) == 150
    told = {(line["seq"], one["track_id"]) for line in results for one in line["objects"] if one["track_id"]}
    kept = set(zip(table.seq[table.track_id > 0], table.track_id[table.track_id > 0], strict=True))
    assert told and told == kept
    assert (table.track_id == 0).any(), "what no track took is kept too"


def test_events_open_in_pandas_polars_and_duckdb(folder: Path) -> None:
    results = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    told = [(line["seq"], event["kind"]) for line in results for event in line.get("events", [])]
    path = exported(folder, "events", "parquet")
    by_pandas = pandas.read_parquet(path)
    by_polars = polars.read_parquet(path)
    by_duckdb = duckdb.sql(f"select seq, kind from '{path}'").fetchall()
    by_csv = pandas.read_csv(exported(folder, "events", "csv"))
    assert told == list(zip(by_pandas.seq, by_pandas.kind, strict=True)) == by_duckdb
    assert told == list(zip(by_polars["seq"], by_polars["kind"], strict=True))
    assert told == list(zip(by_csv.seq, by_csv.kind, strict=True))
    lines = exported(folder, "events", "jsonl").read_text().splitlines()
    assert told == [(line["seq"], line["kind"]) for line in map(json.loads, lines)]


def what_if(folder: Path, text: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    path = folder / "other.toml"
    path.write_text(text)
    capsys.readouterr()
    assert run_command(["what-if", str(path), "--json", *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["door"]
    return found


def test_without_a_change_what_if_says_what_was_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    told = sum(len(line.get("events", [])) for line in results)
    found = what_if(folder, (folder / "edge.toml").read_text(), capsys)
    assert found["same"] == told > 0
    assert not (found["new"] or found["gone"] or found["moved"])


def test_another_line_and_another_score_say_what_changes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "edge.toml").read_text()
    moved = what_if(folder, text.replace("[0.5, 0.05], [0.5, 0.95]", "[0.3, 0.05], [0.3, 0.95]"), capsys)
    assert moved["new"] or moved["moved"]
    strict = what_if(folder, text.replace('name = "door"', 'name = "door"\nscore = 0.95'), capsys)
    (then, now) = ([count[when] for count in strict["counts"]] for when in ("then", "now"))
    assert sum(now) < sum(then)


def test_saving_makes_the_rules_those_of_the_daemon(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "edge.toml").read_text().replace("0.5, 0.05", "0.4, 0.05")
    live = folder / "live.toml"
    path = folder / "wanted.toml"
    path.write_text(text)
    assert run_command(["what-if", str(path), "--save", str(live)]) == 0
    assert live.read_text() == text and "reload" in capsys.readouterr().out


def test_why_gives_the_frame_and_the_rule_of_an_event(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pandas.read_parquet(exported(folder, "events", "parquet"))
    first = table.iloc[0]
    capsys.readouterr()
    store = ["--store", str(folder / "edge.toml")]
    assert run_command(["why", "door", first.time.isoformat(), "--event", "mid", "--json", *store]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["cause"] == "said" and answer["facts"]["seq"] in set(table.seq)
    assert "line 'mid'" in answer["sentence"]


def test_why_of_a_time_that_is_not_kept_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(folder / "edge.toml")]
    assert run_command(["why", "door", "2020-01-01T00:00", *store]) == 0
    assert "older than what is kept" in capsys.readouterr().out


def test_the_list_names_the_stream(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["tracks", "list", "--store", str(folder / "edge.toml"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["stream"] == "door" and found["parts"] >= 1


def test_a_configuration_without_a_store_says_how_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edge.toml"
    path.write_text('model = { path = "m.onnx" }\n[[streams]]\nname = "a"\nsource = "0"\n')
    assert run_command(["tracks", "list", "--store", str(path)]) == 2
    assert "[track_store]" in capsys.readouterr().err
