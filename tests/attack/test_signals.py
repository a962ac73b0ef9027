"""A signal that comes after an engine was closed is handled: no thread is left with a freed signal stack.

Each case runs in a process of its own, for the kernel ends one whose signal stack is unmapped without a word.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")
sys.path.insert(0, str(Path(__file__).parents[1]))
from daemon_process import config_of, daemon, with_tokens
from tiny_models import tiny_model

COMMON = """
import ctypes, locale, os, signal, sys, threading
from pathlib import Path
import numpy as np
from edge.engines.ahead import AheadEngine
from edge.engines.openvino import OpenVinoEngine
from edge.models.manifest import InputSpec

class Stack(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def thread_state():
    # and the locale, of the process and of the thread
    c, now = ctypes.CDLL(None), Stack()
    c.setlocale.restype = ctypes.c_char_p
    assert c.sigaltstack(None, ctypes.byref(now)) == 0
    stack, rounding = (now.pointer, now.flags, now.size), ctypes.CDLL("libm.so.6").fegetround()
    words = c.setlocale(6, None), locale.nl_langinfo(locale.CODESET)
    return stack, rounding, signal.pthread_sigmask(0, []), os.sched_getaffinity(0), words

def opened():
    engine = OpenVinoEngine(Path(sys.argv[1]), threads=1)
    engine.infer(np.zeros((1, 32, 32, 3), np.uint8))
    return engine

came = []
signal.signal(signal.SIGINT, lambda *_: came.append(1))
before = thread_state()
"""
SPEC = 'InputSpec(name="frames", width=32, height=32, layout="nhwc", dtype="uint8", colour="bgr")'
CASES = {
    "closed by the thread that runs it": f"engine = AheadEngine(opened(), {SPEC}); engine.close()",
    "two closed, the oldest first": "first, second = opened(), opened(); first.close(); second.close()",
    "ONNX Runtime": """
from edge.engines.ort import OrtEngine
engine = OrtEngine(Path(sys.argv[1]), threads=1)
engine.infer(np.zeros((1, 32, 32, 3), np.uint8))
engine.close()
""",
    "made in a thread that has ended": """
engines = []
thread = threading.Thread(target=lambda: engines.append(opened()))
thread.start(); thread.join()
engines.pop().close()
""",
    "two made at once, as by a swap": """
engines = []
threads = [threading.Thread(target=lambda: engines.append(opened())) for _ in range(2)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
while engines: engines.pop().close()
""",
}


@pytest.mark.parametrize("case", CASES)
def test_a_signal_after_engines_were_closed_is_handled(case: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "m.onnx")
    script = f"{COMMON}\n{CASES[case]}\nsignal.raise_signal(signal.SIGINT)\nassert came and thread_state() == before"
    done = subprocess.run(
        [sys.executable, "-c", script, model], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"


def test_a_daemon_on_openvino_ends_cleanly_after_a_swap(tmp_path: Path) -> None:
    first = tiny_model(tmp_path / "first.onnx")
    tiny_model(tmp_path / "second.onnx", scores=(0.85, 0.75))
    swap = "[swap]\nshadow_frames = 3\nprobation_s = 0.2\nmax_slowdown = 1000\n"
    config = config_of(first, server=with_tokens(tmp_path, "can_swap = true\n"), more=swap)
    config = config.replace("[model]\n", '[model]\nengine = "openvino"\n')
    with daemon(tmp_path, config) as running:
        running.wait_for("READY=1")
        running.until(lambda: bool(running.url))
        with running.client() as client:
            report = client.post("/api/models/model/swap", json={"path": "second.onnx"}, timeout=90)
            assert report.status_code in (200, 202), report.text
            running.until(lambda: client.get("/api/models").json()["model"]["file"] == "second.onnx", 60)
        assert running.stop() == 0, running.text
