"""Which engine ``auto`` takes: measured once per model and machine, then remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.engines import choose, trial
from edge.errors import EngineError, ModelError
from edge.interfaces import TensorInfo
from edge.models.manifest import InputSpec, Manifest
from edge.types import Array

NAMES = ("first", "second")


class Clock:
    """Stands still except for what engines say they take."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


CLOCK = Clock()


class Paced:
    """Takes so many seconds for a frame; a negative number makes it fail."""

    name = "paced"
    max_batch = 1
    is_fixed_batch = False
    inputs: Sequence[TensorInfo] = [TensorInfo("frames", (None, 4, 8, 3), "uint8")]
    outputs: Sequence[TensorInfo] = []

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        assert tensor.shape == (1, 4, 8, 3)
        if self._seconds < 0:
            raise EngineError("out of memory")
        CLOCK.now_s += self._seconds
        return {"x": np.zeros(1)}

    def close(self) -> None: ...


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trial, "TRIAL_S", 0.05)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"a model")
    return path


def chosen(path: Path, seconds: dict[str, float], loaded: list[str] | None = None) -> str:
    def load(name: str) -> Paced:
        if loaded is not None:
            loaded.append(name)
        if seconds[name] == 0:
            raise ModelError("cannot be read")
        return Paced(seconds[name])

    return trial.fastest(path, NAMES, ["1.0"], 2, load, CLOCK)


@pytest.mark.parametrize(
    ("first_s", "second_s", "expected"),
    [
        (0.002, 0.008, "first"),
        (0.008, 0.002, "second"),
        (0.002, 0.002, "first"),
        (0, 0.002, "second"),
        (0.002, 0, "first"),
        (0.002, -1, "first"),
        (-1, 0.002, "second"),
        (0, 0, "first"),
    ],
)
def test_the_faster_one_is_taken(model: Path, first_s: float, second_s: float, expected: str) -> None:
    assert chosen(model, {"first": first_s, "second": second_s}) == expected


def test_it_is_measured_once_for_each_file(model: Path) -> None:
    loaded: list[str] = []
    pace = {"first": 0.008, "second": 0.002}
    assert chosen(model, pace, loaded) == "second"
    assert chosen(model, pace, loaded) == "second"
    assert loaded == ["first", "second"]
    model.write_bytes(b"another model")
    chosen(model, pace, loaded)
    assert loaded == ["first", "second", "first", "second"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 3}'])
def test_a_damaged_memory_is_no_fault(model: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "engine-trials.json").write_text(text)
    assert chosen(model, {"first": 0.002, "second": 0.008}) == "first"


def test_a_memory_that_cannot_be_written_is_no_fault(model: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert chosen(model, {"first": 0.002, "second": 0.008}) == "first"


@pytest.mark.parametrize(("switch", "expected"), [("off", "ort"), ("on", "openvino")])
def test_auto_asks_the_trial_unless_it_is_switched_off(
    model: Path, monkeypatch: pytest.MonkeyPatch, switch: str, expected: str
) -> None:
    opened: list[str] = []

    def pretend(path: Path, manifest: Manifest, name: str, *others: Any) -> Paced:
        opened.append(name)
        return Paced(0.002 if name == "openvino" else 0.008)

    monkeypatch.setenv(trial.SWITCH, switch)
    monkeypatch.setattr(choose, "_open", pretend)
    monkeypatch.setattr(choose, "_has_openvino", lambda: True)
    monkeypatch.setattr(trial.fastest, "__defaults__", (CLOCK,))
    spec = InputSpec(name="frames", width=8, height=4, layout="nhwc", dtype="uint8", colour="bgr")
    manifest = Manifest(name="m", task="detect", head="edgenet", input=spec, classes=("x",))
    choose.open_engine(model, manifest, kind="auto")
    assert opened[-1] == expected
    choose.open_engine(model, manifest, kind="ort")
    assert opened[-1] == "ort"


@pytest.mark.parametrize(
    ("gpu", "has_cuda", "switch", "pace", "expected", "said"),
    [
        ("NVIDIA L4, CUDA 12.8", True, "on", {"ort-cuda": 0.001}, "ort-cuda", ""),
        ("NVIDIA L4, CUDA 12.8", True, "on", {"ort-cuda": 0.02}, "ort", ""),
        # a GPU that fails to come up is no choice
        ("NVIDIA L4, CUDA 12.8", True, "on", {"ort-cuda": -1}, "ort", ""),
        ("NVIDIA L4, CUDA 12.8", True, "off", {}, "ort", "set engine = 'ort-cuda' for the NVIDIA L4, CUDA 12.8"),
        ("NVIDIA L4, CUDA 12.8", False, "on", {}, "ort", "this onnxruntime cannot use the NVIDIA L4, CUDA 12.8"),
        (None, True, "on", {}, "ort", ""),
    ],
)
def test_auto_uses_a_gpu_that_is_there_or_says_that_it_does_not(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gpu: str | None,
    has_cuda: bool,
    switch: str,
    pace: dict[str, float],
    expected: str,
    said: str,
) -> None:
    opened: list[str] = []

    def pretend(path: Path, manifest: Manifest, name: str, *others: Any) -> Paced:
        opened.append(name)
        return Paced(pace.get(name, 0.008))

    monkeypatch.setenv(trial.SWITCH, switch)
    monkeypatch.setattr(choose, "_open", pretend)
    monkeypatch.setattr(choose, "_has_openvino", lambda: False)
    monkeypatch.setattr(choose, "_has_cuda", lambda: has_cuda)
    monkeypatch.setattr(choose, "describe_gpu", lambda index: gpu)
    monkeypatch.setattr(trial.fastest, "__defaults__", (CLOCK,))
    spec = InputSpec(name="frames", width=8, height=4, layout="nhwc", dtype="uint8", colour="bgr")
    manifest = Manifest(name="m", task="detect", head="edgenet", input=spec, classes=("x",))
    choose.open_engine(model, manifest, kind="auto")
    assert opened[-1] == expected
    assert said in caplog.text and (said != "" or "runs on the CPU" not in caplog.text)


def test_another_gpu_or_driver_is_tried_anew(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = ["NVIDIA L4, CUDA 12.8", "NVIDIA L4, CUDA 13.0"]
    monkeypatch.setattr(choose, "describe_gpu", lambda index: gpus[index])
    keys = [choose._versions("ort-cuda", "ort", device=index) for index in (0, 1)]
    assert keys[0] != keys[1]
    assert choose._versions("ort", "openvino", device=0) == choose._versions("ort", "openvino", device=1)


class Batched(Paced):
    """Costs so many seconds per call and per frame."""

    max_batch = 16

    def __init__(self, call_s: float, frame_s: float) -> None:
        super().__init__(0)
        self._call_s, self._frame_s = call_s, frame_s

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        CLOCK.now_s += self._call_s + len(tensor) * self._frame_s
        return {"x": np.zeros(1)}


@pytest.mark.parametrize(
    ("call_s", "frame_s", "expected"),
    [
        (0.0, 0.004, 1),  # nothing to share
        (0.004, 0.004, 16),  # every doubling helps by more than 5 %
        (0.002, 0.012, 4),  # 71, 77, 80, 82 frames a second: four are nearly the best
        (0.1, 0.1, 1),  # two would take 0.3 s
    ],
)
def test_the_smallest_batch_that_is_nearly_the_fastest_is_taken(
    model: Path, call_s: float, frame_s: float, expected: int
) -> None:
    assert trial.best_batch(model, "paced", ["1.0"], 2, lambda: Batched(call_s, frame_s), CLOCK) == expected


def test_the_batch_is_measured_once(model: Path) -> None:
    loaded: list[Batched] = []

    def load() -> Batched:
        loaded.append(Batched(0.002, 0.002))
        return loaded[-1]

    first = trial.best_batch(model, "paced", ["1.0"], 2, load, CLOCK)
    assert trial.best_batch(model, "paced", ["1.0"], 2, load, CLOCK) == first
    assert len(loaded) == 1
    trial.best_batch(model, "other", ["1.0"], 2, load, CLOCK)
    assert len(loaded) == 2


def test_an_engine_with_a_fixed_batch_leaves_no_choice(model: Path) -> None:
    engine = Batched(0.0, 0.0)
    engine.is_fixed_batch = True
    assert trial.best_batch(model, "paced", ["1.0"], 2, lambda: engine, CLOCK) is None
