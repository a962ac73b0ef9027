"""Kills cost the tracks of one block, and every part opens afterwards."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[1] / "servers" / "track_store_kills.py"


@pytest.mark.parametrize(("rounds", "block_s"), [(5, 0.3), pytest.param(50, 2, marks=pytest.mark.soak)])
@pytest.mark.timeout(1800)
def test_kills_cost_one_block(rounds: int, block_s: float, tmp_path: Path) -> None:
    command = [sys.executable, str(KILLS), str(rounds), "7", str(tmp_path), str(block_s)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=KILLS.parents[2])
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(rf"{rounds} kills, (\d+) frames kept, \d+ parts cut, at most \S+ s missing\n", done.stdout)
    assert found and int(found[1]) > 10 * rounds, done.stdout
