"""An engine in a thread of its own and the end of its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_an_engine_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    code = (
        "import sys, threading; sys.path.insert(0, sys.argv[1])\n"
        "from unit.engines.test_ahead import SPEC, AheadEngine, Gated, picture\n"
        "engine = AheadEngine(Gated(), SPEC)\n"
        "engine._engine.infer = lambda tensor: threading.Event().wait()\n"
        "engine.submit_frames([picture(1)]); engine.close(); print('closed')\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parents[2])]
    assert subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout == "closed\n"
