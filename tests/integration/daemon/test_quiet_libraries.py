"""What libraries would log of every viewer is not logged, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("library", ["aioice.ice", "aiortc.rtcpeerconnection", "uvicorn.error"])
def test_libraries_do_not_log_every_viewer(library: str) -> None:
    code = (
        "import logging; from edge.daemon import logs; logs.set_up(logging.INFO)\n"
        f"logging.getLogger({library!r}).info('Connection(0) Check CandidatePair(10.0.0.9)')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout + done.stderr == ""
