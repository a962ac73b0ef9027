"""The outbox of a process that is killed again and again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

KILLS = Path(__file__).parents[1] / "servers" / "outbox_kills.py"


def test_50_kills_lose_nothing_that_was_kept(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(KILLS), "50", "7", str(tmp_path)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"50 kills, (\d+) while busy, (\d+) events, \d+ delivered twice\n", done.stdout)
    assert found, done.stdout
    assert int(found[1]) >= 25
