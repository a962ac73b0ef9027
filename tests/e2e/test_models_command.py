"""``edge models``: what is at hand, and adding to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge.cli import run_command
from edge.files import sha256_of
from edge.models.shipped import FOLDER, demo_model

ADDED = "cifar10-nano"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert run_command(["models", "--json", *options]) == 0
    return {row["model"]: row for row in json.loads(capsys.readouterr().out)}


def test_all_shipped_models_are_listed_with_accuracy_licence_and_advice(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys, "--no-speed")
    assert set(found) == {path.stem for path in FOLDER.glob("*.onnx")}
    assert all(row["accuracy"] and row["terms"] for row in found.values())
    assert found[demo_model("0").stem]["advice"]


def test_speed_is_measured_here(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    found = listed(capsys)
    assert 0 < float(str(found["cifar10-nano-int8"]["ms"])) < 100
    assert found["street-nano-int8-trt"]["ms"] is None
    assert run_command(["models", "--no-speed"]) == 0
    assert "real-street" in capsys.readouterr().out


def test_a_file_is_added_when_its_hash_is_right(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    origin = home / "mine.onnx"
    shutil.copyfile(FOLDER / f"{ADDED}.onnx", origin)
    shutil.copyfile(FOLDER / f"{ADDED}.json", origin.with_suffix(".json"))
    assert run_command(["models", "add", str(origin), "--sha256", sha256_of(origin)]) == 0
    assert "mine" in listed(capsys, "--no-speed")


@pytest.mark.parametrize(
    ("name", "sha256", "message"),
    [
        ("mine.onnx", "0" * 64, "it was not added"),
        ("mine.onnx", "", "64 hexadecimal digits"),
        ("mine.txt", "0" * 64, "ends in .onnx"),
        ("none.onnx", "0" * 64, "cannot be read"),
    ],
)
def test_another_file_is_not_added(
    capsys: pytest.CaptureFixture[str], home: Path, name: str, sha256: str, message: str
) -> None:
    (home / "mine.onnx").write_bytes(b"x")
    assert run_command(["models", "add", str(home / name), "--sha256", sha256]) != 0
    assert message in capsys.readouterr().err
    assert "mine" not in listed(capsys, "--no-speed")


def test_other_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["models", "remove", "x"]) == 2
    assert "list or add" in capsys.readouterr().err
