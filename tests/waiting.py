"""Waiting for what happens in another thread or process, with a limit that its failure names."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0, what: str = "") -> float:
    """Seconds until the condition held. A machine that is overloaded fails by this limit, and by nothing after it."""
    began_s = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began_s
        assert waited_s < timeout_s, f"time limit: not within {timeout_s:g} s: {what or source_of(condition)}"
        time.sleep(0.01)
    return time.monotonic() - began_s


def source_of(condition: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)
