"""A recipe guessed from the data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.cli import run_command
from edge.errors import UsageError
from export.config import parse_config
from export.data.statistics import Statistics
from export.training.guess import guess_recipe, guessed

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]


def facts(**changes: object) -> Statistics:
    values = {
        "name": "x", "task": "detect", "fingerprint": "", "num_images": 2000,
        "widths": [640.0, 640.0, 1280.0, 1280.0, 1280.0], "heights": [360.0, 360.0, 720.0, 720.0, 720.0],
        "box_sides": [40.0, 60.0, 200.0, 400.0, 600.0], "per_class": {"a": {"objects": 100}, "b": {"objects": 90}},
    }  # fmt: skip
    return Statistics(**(values | changes))  # type: ignore[arg-type]


def test_large_objects_need_no_large_input() -> None:
    tree, reasons = guessed(facts())
    assert (tree["data"]["width"], tree["data"]["height"]) == (416, 224)
    assert any("1280x720" in reason for reason in reasons)
    parse_config({**tree, "data": {**tree["data"], "train": "a", "val": "b"}}, "x")


def test_small_objects_ask_for_a_larger_input() -> None:
    tree, _ = guessed(facts(box_sides=[8.0, 26.0, 60.0, 90.0, 200.0]))
    assert 560 <= tree["data"]["width"] <= 640
    assert tree["data"]["crop_width"] == 256


def test_few_pictures_are_seen_more_often_in_smaller_batches() -> None:
    few, many = guessed(facts(num_images=100))[0], guessed(facts(num_images=10_000))[0]
    assert few["optim"]["epochs"] > 5 * many["optim"]["epochs"]
    assert few["optim"]["batch_size"] < many["optim"]["batch_size"]


def test_uneven_classes_are_balanced() -> None:
    uneven = {"a": {"objects": 1000}, "b": {"objects": 20}}
    assert guessed(facts(per_class=uneven))[0]["optim"]["balance"]
    assert not guessed(facts())[0]["optim"]["balance"]


def test_tiny_pictures_keep_their_size() -> None:
    sizes = [32.0] * 5
    tree, _ = guessed(facts(task="classify", widths=sizes, heights=sizes, box_sides=[]))
    assert tree["data"]["width"] == 32
    assert tree["model"]["tiny_input"]


def test_the_guess_comes_with_its_time_and_takes_changes(squares: tuple[str, str]) -> None:
    guess = guess_recipe([f"data.train={squares[0]}", f"data.val={squares[1]}", "optim.epochs=7", "run.threads=1"])
    assert guess.config.task == "detect"
    assert guess.config.optim.epochs == 7
    assert guess.seconds > 0
    assert len(guess.reasons) >= 2


def test_data_must_be_named() -> None:
    with pytest.raises(UsageError, match=r"data\.train"):
        guess_recipe(["optim.epochs=3"])


def test_the_command_trains_by_it(squares: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [f"data.train={squares[0]}", f"data.val={squares[1]}", "optim.epochs=1", "run.threads=1"]
    assert run_command(["train", "my-data", *changes, "--out", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["epochs"] == 1
    assert "minutes" in said.err
