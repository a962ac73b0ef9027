"""Commands that run in the process of the tests."""

from __future__ import annotations

import os
from collections.abc import Sequence

from edge.cli import run_command


def run_here(arguments: Sequence[str]) -> int:
    """``edge …`` in this process; it is given back its umask, which ``edge run`` takes for all of its process."""
    before = os.umask(0o022)
    os.umask(before)
    try:
        return run_command(list(arguments))
    finally:
        os.umask(before)
