"""A model server that is killed a hundred times under four cameras. Shorter: EDGE_SOAK_SHARE=0.1."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

import psutil
import pytest
from server_kills import kill_and_restart

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]
TIMES = max(3, round(100 * float(os.environ.get("EDGE_SOAK_SHARE", "1"))))


def test_a_hundred_kills_leave_nothing_behind(tmp_path: Path) -> None:
    process = psutil.Process()
    held: list[tuple[int, int]] = []
    spent = kill_and_restart(tmp_path, TIMES, lambda: held.append((process.num_threads(), process.num_fds())))
    fallback_s, back_s = zip(*spent, strict=True)
    found = {
        "kills": TIMES,
        "fallback_s": {"median": round(statistics.median(fallback_s), 3), "most": round(max(fallback_s), 3)},
        "back_s": {"median": round(statistics.median(back_s), 3), "most": round(max(back_s), 3)},
        "threads_and_files": [held[1], held[-1]],
    }
    print(json.dumps(found))
    assert held[-1][0] <= held[1][0] + 4
    assert held[-1][1] <= held[1][1] + 8
