"""Nothing leaves the machine but what the configuration names, and nothing is left in the home folder."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from needs import need

sys.path.insert(0, str(Path(__file__).parents[1]))
from daemon_process import COMMAND, SCENE
from tiny_models import tiny_model

# what the runtime and the toolchain import; those that are not installed are left out
LIBRARIES = (
    *("onnxruntime", "openvino", "cv2", "av", "onnx", "aiortc", "paho.mqtt.client", "uvicorn", "starlette", "pydantic"),
    *("prometheus_client", "typer", "rich", "scipy", "tensorrt_rtx", "pycocotools.mask"),
)
TRAINING = ("torch", "torch.utils.tensorboard", "onnxscript")
CALLS = "trace=connect,sendto,sendmsg,sendmmsg"
LOCAL = re.compile(r'inet_addr\("127\.|"::1"|sa_family=AF_(?:UNIX|NETLINK|UNSPEC)')


@pytest.fixture
def may_trace() -> None:
    command = [need("strace"), "-qq", "-e", CALLS, "true"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace here")


needs_strace = pytest.mark.usefixtures("may_trace")


def installed(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name.split(".")[0]) is not None]


def importing(names: list[str], seconds: float) -> list[str]:
    """A program of this project that imports libraries and then waits."""
    lines = ["import importlib, time, edge", f"for name in {names}: importlib.import_module(name)"]
    return [sys.executable, "-c", "\n".join((*lines, f"time.sleep({seconds})"))]


def environment(folder: Path) -> dict[str, str]:
    """A home of its own; and none of the variables of a CI, in which some libraries are silent by themselves."""
    home = folder / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV") if name in os.environ}
    return {**kept, "HOME": str(home), "EDGELOOP_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def calls_out(command: list[str], folder: Path) -> list[str]:
    """The system calls with which a command and its children spoke to other machines, or asked for names."""
    log = folder / "trace"
    traced = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", CALLS, "-o", str(log), *command]
    done = subprocess.run(
        traced, env=environment(folder), cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line for line in log.read_text().splitlines() if "sa_family" in line and not is_local(line)]


def is_local(call: str) -> bool:
    asks_for_a_name = "htons(53)" in call or "nscd" in call
    return not asks_for_a_name and LOCAL.search(call) is not None


def files_below(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


@needs_strace
def test_the_watch_would_see_a_name_that_is_asked_for(tmp_path: Path) -> None:
    ask = "import socket\ntry: socket.getaddrinfo('telemetry.invalid', 443)\nexcept OSError: pass"
    assert calls_out([sys.executable, "-c", ask], tmp_path)


@needs_strace
def test_no_library_calls_out_or_leaves_a_file(tmp_path: Path) -> None:
    assert calls_out(importing(installed(LIBRARIES), 5), tmp_path) == []
    assert files_below(tmp_path / "home") == []


@needs_strace
@pytest.mark.train
def test_no_library_of_the_training_calls_out(tmp_path: Path) -> None:
    assert calls_out(importing(installed(TRAINING), 3), tmp_path) == []
    assert files_below(tmp_path / "home") == []


@needs_strace
@pytest.mark.parametrize("engine", ["ort", "openvino"])
def test_a_running_daemon_calls_nobody_and_leaves_the_home_folder_alone(engine: str, tmp_path: Path) -> None:
    """A camera in a process of its own, a page, and a sender: the children are watched too."""
    pytest.importorskip("onnxruntime" if engine == "ort" else engine)
    model = tiny_model(tmp_path / "m.onnx")
    (tmp_path / "edge.toml").write_text(
        f'state_dir = "{tmp_path}/state"\n[model]\npath = "{model}"\nengine = "{engine}"\nthreads = 1\n'
        f'[[streams]]\nname = "door"\nsource = "{SCENE}"\nisolation = "process"\nsinks = ["hls:{tmp_path}/hls"]\n'
        "[server]\nenabled = true\nport = 0\n"
    )
    command = [*COMMAND, "run", str(tmp_path / "edge.toml"), "--frames", "100"]
    assert calls_out(command, tmp_path) == []
    assert files_below(tmp_path / "home") == []


@pytest.mark.parametrize("package", ["edge", "export.quantize.latency", "calib.collect"])
def test_telemetry_is_off_before_a_library_can_be_imported(package: str) -> None:
    code = f"import {package}, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], sys.modules['openvino_telemetry'])"
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["1", "None"]
