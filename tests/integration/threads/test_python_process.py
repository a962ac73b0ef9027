"""A request is answered by a process of its own, whatever becomes of that process."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from edge.threads.python_process import Answer, Asked

CHILD = """
import os, time
from edge.threads.python_process import serve_request

def act(request):
    print("what a library prints")
    if request["do"] == "sleep":
        time.sleep(60)
    if request["do"] == "crash":
        os.abort()
    if request["do"] == "leave":
        os._exit(3)
    return {"said": request["do"], "nice": os.nice(0)}

serve_request(act, 5)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "asked_child.py").write_text(CHILD, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3]}")
    return "asked_child"


def test_it_is_answered(module: str) -> None:
    answer = Asked(module).answer({"do": "hello"}, 30)
    assert answer.value["said"] == "hello" and answer.code == 0
    if sys.platform == "linux":
        assert answer.value["nice"] >= 5


@pytest.mark.parametrize(("do", "code"), [("crash", -signal.SIGABRT), ("leave", 3)])
def test_a_process_that_goes_gives_no_value(module: str, do: str, code: int) -> None:
    assert Asked(module).answer({"do": do}, 30) == Answer(None, code)


def test_it_ends_in_time(module: str) -> None:
    assert Asked(module).answer({"do": "sleep"}, 1) == Answer(None, -signal.SIGKILL, is_late=True)


def test_it_can_be_cancelled(module: str) -> None:
    asked = Asked(module)
    threading.Timer(0.5, asked.cancel).start()
    started_s = time.monotonic()
    assert asked.answer({"do": "sleep"}, 50) == Answer(None, -signal.SIGKILL)
    assert time.monotonic() - started_s < 20
