"""Signals that come before a daemon is ready for them."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import daemon_process
import pytest
from daemon_process import config_of, daemon
from tiny_models import tiny_model

# says when the command begins, long before its handlers are set
COMMAND = """
from edge import cli
begin = cli.run_command
def run_command(arguments):
    print("command begins", flush=True)
    return begin(arguments)
cli.run_command = run_command
cli.main()
"""


def test_a_reload_that_comes_too_early_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_process, "COMMAND", [sys.executable, "-c", COMMAND])
    with daemon(tmp_path, config_of(tiny_model(tmp_path / "tiny.onnx"))) as running:
        running.until(lambda: "command begins" in running.text)
        for _ in range(20):
            running.process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        running.wait_for("READY=1")
        assert running.stop() == 0
