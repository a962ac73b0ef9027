"""Commands, decoders, senders and trials load nothing from the folder that they are called in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import tiny_model

from edge.pipeline.swap.trial import try_model
from edge.threads.python_process import child_environment

# what a folder next to a downloaded model might hold
MODULES = ("numpy", "cv2", "av", "json", "socket", "runpy", "select", "onnxruntime", "onnx", "edge", "sitecustomize")
# as the console script, which knows no current folder
EDGE = [sys.executable, "-c", "import sys; del sys.path[0]; from edge.cli import main; main()"]
CHILDREN = """
import sys
from pathlib import Path
del sys.path[0]
import numpy as np
from edge.sinks.restream import RestreamSink, hls_receiver
from edge.sources.isolation.source import IsolatedSource
from edge.types import Detections, Frame, Result
import time
source = IsolatedSource("synthetic://street?size=64x64&live=1")
assert source.read() is not None
source.close()
sink = RestreamSink(hls_receiver(Path(sys.argv[1])), fps=20)
image, deadline = np.zeros((64, 64, 3), np.uint8), time.monotonic() + 30
while not (Path(sys.argv[1]) / "index.m3u8").exists():
    assert time.monotonic() < deadline and not sink.error, sink.error
    sink.write(Result(Frame("door", 0, 0, time.monotonic_ns(), None, image), Detections.empty()), lambda: image)
    time.sleep(0.05)
sink.close()
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "download"
    folder.mkdir()
    for name in MODULES:
        text = f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\nraise SystemExit(7)\n"
        (folder / f"{name}.py").write_text(text)
    return folder


def what_ran(tmp_path: Path) -> str:
    file = tmp_path / "ran"
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize("python_path", ["", ":", ".:"])
def test_children_import_nothing_from_the_current_folder(python_path: str, hostile: Path, tmp_path: Path) -> None:
    # a relative path that this process was given must not reach its children
    script = f"import os; os.environ['PYTHONPATH'] = {python_path!r}\n{CHILDREN}"
    command = [sys.executable, "-c", script, str(tmp_path / "hls")]
    done = subprocess.run(command, cwd=hostile, capture_output=True, text=True, timeout=90, check=False)
    assert what_ran(tmp_path) == ""
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [("doctor",), ("probe", "synthetic://street?frames=2"), ("inspect", "m.onnx")])
def test_commands_import_nothing_from_the_current_folder(
    command: tuple[str, ...], hostile: Path, tmp_path: Path
) -> None:
    tiny_model(hostile / "m.onnx")
    done = subprocess.run([*EDGE, *command], cwd=hostile, capture_output=True, text=True, timeout=90, check=False)
    assert what_ran(tmp_path) == ""
    assert done.returncode == 0, done.stderr


def test_the_trial_of_a_model_imports_nothing_from_the_current_folder(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tmp_path / "m.onnx")
    monkeypatch.chdir(hostile)
    try_model(model, manifest=None, engine="ort", threads=1, timeout_s=60)
    assert what_ran(tmp_path) == ""


@pytest.mark.parametrize("name", ["PYTHONPATH", "LD_LIBRARY_PATH"])
def test_folders_that_depend_on_the_current_one_are_not_handed_on(name: str) -> None:
    assert child_environment({name: "/a::b:./c:/d:"})[name] == "/a:/d"
    assert name not in child_environment({name: ":"})


def test_the_empty_folder_that_opencv_leaves_is_not_handed_on() -> None:
    code = "import cv2; from edge.threads.python_process import child_environment as e; print(e()['LD_LIBRARY_PATH'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert all(folder.startswith("/") for folder in done.stdout.strip().split(os.pathsep))
