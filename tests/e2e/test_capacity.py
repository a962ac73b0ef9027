"""``edge bench --plan`` measures for real, from files instead of cameras, and touches nothing that is configured."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.bench.capacity import measure_capacity
from edge.config.load import parse_config
from edge.engines.null import NullEngine


def null_config(folder: Path) -> Path:
    spec = {"name": "frames", "width": 64, "height": 64, "layout": "nhwc", "dtype": "uint8", "colour": "bgr"}
    facts = {"schema": 1, "name": "null", "task": "detect", "head": "edgenet", "classes": ["x"], "input": spec}
    (folder / "null.json").write_text(json.dumps(facts))
    (folder / "null.onnx").touch()
    path = folder / "edge.toml"
    path.write_text(
        f"""
state_dir = "{folder}/state"
[model]
path = "{folder}/null.onnx"
engine = "null"
[[streams]]
name = "a"
source = "rtsp://user:canary0x7f@nowhere.example/1"
size = [320, 180]
sinks = ["jsonl:{folder}/a.jsonl", "rtsp://u:canary0x7f@nowhere.example/out", "mp4:{folder}/a.mp4"]
[streams.record]
folder = "{folder}/recordings"
[mqtt]
host = "nowhere.example"
"""
    )
    return path


def test_a_configuration_is_measured_without_its_cameras_and_without_touching_its_files(tmp_path: Path) -> None:
    path = null_config(tmp_path)
    before = sorted(tmp_path.iterdir())
    command = [sys.executable, "-c", "from edge.cli import main; main()", "bench", str(path), "--plan", "--json"]
    done = subprocess.run([*command, "--seconds", "1"], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fps"] > 20
    assert found["cameras"]["5 fps"] >= found["cameras"]["30 fps"]
    assert set(found["busy"]) == {"the processor", "inference", "output of a"}
    assert found["left_out"] == ["sink rtsp", "mqtt"]
    assert "canary0x7f" not in done.stdout + done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_twice_the_work_is_half_the_capacity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer follows the engine: one that sleeps 40 ms takes no more than 25 batches of one frame per second."""
    null_config(tmp_path)
    model = {"path": tmp_path / "null.onnx", "engine": "null", "max_batch": 1}
    stream = {"name": "a", "source": "x.mp4", "size": (320, 180)}
    config = parse_config({"model": model, "streams": [stream]}, where="test")
    found, infer = [], NullEngine.infer
    for seconds in (0.04, 0.08):
        slow = lambda engine, tensor, _s=seconds: (time.sleep(_s), infer(engine, tensor))[1]  # noqa: E731
        monkeypatch.setattr(NullEngine, "infer", slow)
        found.append(measure_capacity(config, 2.0))
    assert found[0].fps <= 25.5
    # where other programs leave too little of the processor, that is full first
    assert all(one.shares["inference"] > 0.7 or one.others > 0.3 for one in found)
    assert found[0].fps / found[1].fps == pytest.approx(2, rel=0.25)
