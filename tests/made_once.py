"""What costs seconds to make and is only read, made by one of the processes of a run of tests and read by all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` has filled; where it fails, the next who asks tries again."""
    base = factory.getbasetemp()
    # each process of pytest-xdist has a folder of its own in that of the run
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, ready = shared / f"made-{name}", shared / f"made-{name}.ready"
    with (shared / f"made-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.is_file():
            folder.mkdir(exist_ok=True)
            make(folder)
            ready.touch()
    return folder
