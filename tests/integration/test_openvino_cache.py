"""What OpenVINO compiled is read at the next start, and never when it is damaged or another model's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")
from edge.engines import openvino_cache
from edge.engines.openvino import OpenVinoEngine
from edge.models.shipped import demo_model


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "m.onnx"
    shutil.copy(demo_model(), copy)
    return copy


def outputs(path: Path) -> dict[str, np.ndarray]:
    engine = OpenVinoEngine(path, threads=1)
    picture = np.random.default_rng(1).integers(0, 256, (1, 448, 768, 3), np.uint8)
    found = {name: value.copy() for name, value in engine.infer(picture).items()}
    engine.close()
    return found


def blobs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "openvino").glob("*.blob"))


def test_the_next_start_reads_it_and_says_the_same(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = outputs(model)
    assert len(blobs(tmp_path)) == 1
    monkeypatch.setattr(openvino_cache, "_keep", None)
    second = outputs(model)
    assert list(second) == list(first) == ["boxes", "scores", "labels"]
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)


@pytest.mark.parametrize("damage", ["empty", "cut", "garbled", "no header"])
def test_a_damaged_file_is_made_anew(model: Path, tmp_path: Path, damage: str) -> None:
    first = outputs(model)
    (file,) = blobs(tmp_path)
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(
        {
            "empty": b"",
            "cut": whole[:middle],
            "garbled": whole[:middle] + b"x" * 2000 + whole[middle + 2000 :],
            "no header": b"\xff" + whole,
        }[damage]
    )
    second = outputs(model)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)
    assert len(blobs(tmp_path)[0].read_bytes()) == pytest.approx(len(whole), rel=0.01)


def test_a_changed_model_is_another_one(model: Path, tmp_path: Path) -> None:
    outputs(model)
    shutil.copy(demo_model().with_name("street-nano.onnx"), model)
    outputs(model)
    assert len(blobs(tmp_path)) == 2


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELOOP_CACHE", "/proc/nothing")
    assert "boxes" in outputs(model)


def test_old_files_go(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_cache, "MAX_KEPT", 1)
    outputs(model)
    (first,) = blobs(tmp_path)
    shutil.copy(demo_model().with_name("street-nano.onnx"), model)
    outputs(model)
    (second,) = blobs(tmp_path)
    assert second != first
