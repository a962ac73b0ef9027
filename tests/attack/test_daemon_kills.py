"""A whole daemon that is killed at random moments: counts, events and recordings are there as promised."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[1] / "servers" / "daemon_kills.py"


@pytest.mark.parametrize("rounds", [3, pytest.param(200, marks=pytest.mark.soak)])
@pytest.mark.timeout(7200)
def test_kills_of_a_daemon_cost_what_is_promised(rounds: int, tmp_path: Path) -> None:
    """The harness itself compares with the promises: counts 5 s, every event told, a fragment of recording."""
    command = [sys.executable, str(KILLS), str(rounds), "3", str(tmp_path / "daemon")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=KILLS.parents[2])
    assert done.returncode == 0, done.stderr[-4000:]
    found = re.match(rf"{rounds} kills, (\d+) crossings, counts at most (\S+) s old, 0 events lost", done.stdout)
    assert found, done.stdout
    assert int(found[1]) > 0
