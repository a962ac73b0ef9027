"""Workers that are killed at random moments: no event that was acknowledged is lost, none is there twice."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[1] / "servers" / "worker_kills.py"


@pytest.mark.parametrize("rounds", [2, pytest.param(200, marks=pytest.mark.soak)])
@pytest.mark.timeout(7200)
def test_killed_workers_lose_no_acknowledged_event(rounds: int, tmp_path: Path) -> None:
    """The harness itself compares with the promises."""
    command = [sys.executable, str(KILLS), str(rounds), "3", str(tmp_path / "daemon")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=KILLS.parents[2])
    assert done.returncode == 0, done.stderr[-4000:]
    found = re.match(rf"{rounds} kills, (\d+) events kept, \d+ told in lines, 0 lost, 0 doubled", done.stdout)
    assert found, done.stdout
    # each life of a worker tells that objects entered the zones of its two cameras
    assert int(found[1]) >= 4 + 2 * rounds
