"""``edge track`` and ``edge track-eval`` one after the other, with every tracker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from unit.trackers.test_mot_text import app, sequence  # noqa: F401 - sequence is a fixture

from edge.commands.track_eval import COMBINED


@pytest.mark.parametrize("name", ["edge", "bytetrack", "ocsort", "sort"])
def test_track_then_eval_scores_an_easy_scene_in_full(
    sequence: Path,  # noqa: F811 - a fixture
    tmp_path: Path,
    name: str,
) -> None:
    result = tmp_path / "tracks" / "walk.txt"
    result.parent.mkdir()
    runner = CliRunner()
    ran = runner.invoke(
        app, ["track", str(sequence / "det.txt"), "--out", str(result), "--tracker", name, "--fps", "25", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    summary = json.loads(ran.output)
    assert (summary["frames"], summary["tracks"]) == (40, 2)
    scored = runner.invoke(app, ["track-eval", str(sequence.parent), str(result.parent), "--json"])
    assert scored.exit_code == 0, scored.output
    row = json.loads(scored.output)[COMBINED]
    assert row["IDSW"] == 0 and row["FP"] == 0
    # two hits are needed to confirm, three in the published ones
    assert row["HOTA"] > 93 and row["FN"] <= 4
