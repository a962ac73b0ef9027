"""200 events in a minute at 4 cameras: few messages, and every event in one of them, whatever is killed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[1] / "servers" / "notify_kills.py"


@pytest.mark.parametrize(
    ("kills", "seconds", "way"),
    [
        # a tenth of the time and less, and of all waiting
        (1, 6, "apprise"),
        (4, 4, "apprise"),
        (4, 4, "push"),
        pytest.param(1, 60, "apprise", marks=[pytest.mark.soak, pytest.mark.timeout(300)]),
        pytest.param(1, 60, "push", marks=[pytest.mark.soak, pytest.mark.timeout(300)]),
    ],
)
def test_200_events_are_few_messages_and_each_is_in_one(tmp_path: Path, kills: int, seconds: int, way: str) -> None:
    command = [sys.executable, str(KILLS), str(kills), "3", str(seconds), str(tmp_path), way]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(rf"200 events, {kills} kills, (\d+) messages, (\d+) sent twice\n", done.stdout)
    assert found, done.stdout
    # at each of 4 cameras one at once and one after the cool-down, which a process that was killed does not remember
    assert int(found[1]) <= 4 * (2 + kills)
