"""Child processes and their parent: the first process of a container may have some, an orphan ends at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

CHILDREN = ("edge.sources.isolation.child", "edge.sinks.restream_child")
# a process that is the first of its own process numbers, as in a container
AS_FIRST = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
CAMERA = """
import os, sys
from edge.sources.isolation.source import Deadlines, IsolatedSource
assert os.getpid() == 1
source = IsolatedSource("synthetic://street?size=64x64&live=1", deadlines=Deadlines(open_s=30, stall_s=10))
assert source.read() is not None
source.close()
"""
PUSH = """
import os, sys, time
from pathlib import Path
import numpy as np
from edge.sinks.restream import RestreamSink, hls_receiver
from edge.types import Detections, Frame, Result
assert os.getpid() == 1
folder = Path(sys.argv[1])
sink = RestreamSink(hls_receiver(folder), fps=20)
deadline, seq = time.monotonic() + 30, 0
while not (folder / "index.m3u8").exists():
    assert time.monotonic() < deadline and not sink.error, sink.error
    image = np.full((48, 64, 3), seq % 256, np.uint8)
    result = Result(Frame("door", 0, seq, time.monotonic_ns(), None, image), Detections.empty())
    sink.write(result, lambda: image)
    seq += 1
    time.sleep(0.05)
sink.close()
"""


def may_be_first() -> bool:
    try:
        return subprocess.run([*AS_FIRST, "true"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.skipif(not may_be_first(), reason="this machine lets nobody make process namespaces")
@pytest.mark.parametrize("script", [CAMERA, PUSH], ids=["camera", "push"])
def test_children_work_below_the_first_process_of_a_container(tmp_path: Path, script: str) -> None:
    command = [*AS_FIRST, sys.executable, "-c", script, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("module", CHILDREN)
def test_a_child_whose_parent_is_gone_already_ends_at_once(module: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        # the number of a process that is not its parent
        command = [sys.executable, "-m", module, str(theirs.fileno()), str(os.getppid())]
        assert subprocess.run(command, pass_fds=(theirs.fileno(),), timeout=30, check=False).returncode == 0
