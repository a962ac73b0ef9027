"""Floods without a right token: the cameras keep their rate, and others are answered."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from daemon_process import Daemon, config_of, daemon, gate_of, with_tokens

FLOOD = Path(__file__).parent / "flood.py"
MODEL = Path(__file__).parents[2] / "edge" / "models" / "street-nano-int8.onnx"
CAMERA = '[[streams]]\nname = "door"\nsource = "synthetic://street?seed=1&size=640x360&fps=10&objects=4&live=1"\n'
PAUSE_S = 0.02
# so many wait for each core that a process gets it late, flood or not
SWAMPED_LOAD_PER_CORE = 4.0
TRIES = 3
LIMIT_MS = 200


@dataclass(frozen=True)
class Found:
    """What others saw of a flood."""

    offered: float
    fps: float
    healthz_p99_ms: float
    num_asked: int

    def __str__(self) -> str:
        return (
            f"{self.offered:.0f} requests/s offered: camera {self.fps:.2f} fps, "
            f"/healthz p99 {self.healthz_p99_ms:.0f} ms of {self.num_asked}"
        )


def flooded(running: Daemon, kind: str, rate: float, seconds: float) -> Found:
    """Flood a daemon while asking for its health."""
    port = int(running.url.rsplit(":", 1)[1])
    # in the field the flood's own work is done by another machine
    command = ["nice", "-n", "10", sys.executable, str(FLOOD), str(port), kind, str(rate), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as flood:
        time.sleep(0.5)
        begin, begin_s = emitted(running), time.monotonic()
        waits = []
        while time.monotonic() - begin_s < seconds - 1:
            waits.append(healthz_s(running.url))
            time.sleep(PAUSE_S)
        fps = (emitted(running) - begin) / (time.monotonic() - begin_s)
        offered = float(flood.communicate()[0])
    return Found(offered, fps, float(np.quantile(waits, 0.99)) * 1000, len(waits))


def emitted(running: Daemon) -> int:
    counts: dict[str, Any] = running.client().get("/api/stats").json()["streams"]["door"]["counts"]
    return int(counts.get("emitted", 0))


def healthz_s(url: str) -> float:
    begin_s = time.monotonic()
    # a connection of its own, as a monitor has it
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in connection.recv(4096)
    return time.monotonic() - begin_s


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with one camera of 10 fps, whose page needs a token."""
    folder = tmp_path_factory.mktemp("flooded")
    with daemon(folder, config_of(MODEL, streams=CAMERA, server=with_tokens(folder))) as running:
        running.wait_for("READY=1")
        running.until(lambda: emitted(running) > 30)
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.text


LONG = [pytest.mark.soak, pytest.mark.timeout(1200)]


@pytest.mark.skipif(sys.platform != "linux", reason="other addresses of 127/8 are this machine's on Linux only")
@pytest.mark.parametrize("seconds", [4, pytest.param(120, marks=LONG)])
@pytest.mark.parametrize(("kind", "rate"), [("headers", 40), ("pipelined", 7600), ("single", 7600)])
def test_a_flood_without_a_token_takes_no_frame(kind: str, rate: float, seconds: float, served: Daemon) -> None:
    # what else the machine does for a moment slows the camera too; a flood that costs frames costs them every time
    for _ in range(TRIES):
        # on a busy machine the camera may be slower than its 10 fps without a flood too
        quiet = flooded(served, kind, 0, 4)
        before_s = processor_s(served)
        found = flooded(served, kind, rate, seconds)
        used = (processor_s(served) - before_s) / seconds
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        words = f"{kind}: {found}, {used:.2f} cores; without it {quiet.fps:.2f} fps, load average {load:.1f} per core"
        print(words)
        # the flood itself costs the daemon nothing: the parsing of 60 KB at 40/s alone took a whole core
        assert used < 0.7, words
        assert rss_mb(gate_of(served.process.pid)) < 60
        if found.fps >= min(9.5, 0.95 * quiet.fps) and found.healthz_p99_ms <= LIMIT_MS:
            return
    if load > SWAMPED_LOAD_PER_CORE and found.healthz_p99_ms > LIMIT_MS:
        pytest.skip(words)
    pytest.fail(f"time limit: a camera that keeps its rate, and an answer within {LIMIT_MS} ms: {words}")


def processor_s(running: Daemon) -> float:
    """Processor time of the daemon, without that of its gate."""
    fields = Path(f"/proc/{running.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
