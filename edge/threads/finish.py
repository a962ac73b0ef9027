"""The steps of an end, each in a thread of its own: one that fails or hangs keeps no other from being done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from edge.threads.worker import Worker

log = logging.getLogger(__name__)


def finish(steps: Mapping[str, Callable[[], object]], timeout_s: float) -> bool:
    """Do these steps side by side, and say what became of them.

    Args:
        steps: name for people → what is done; a step that returns False did not succeed.
        timeout_s: how long they may take together. What hangs goes on in its thread, which ends with the process.

    Returns:
        Whether all succeeded in time. What a step raises is logged, never raised here.
    """
    deadline = time.monotonic() + timeout_s
    running = [_Step(name, act) for name, act in steps.items()]
    have_succeeded = [step.has_succeeded(max(0.0, deadline - time.monotonic())) for step in running]
    return all(have_succeeded)


class _Step:
    """A step that has begun."""

    def __init__(self, name: str, act: Callable[[], object]) -> None:
        self._act = act
        self._has_failed = True
        self._worker = Worker(name, lambda _: self._run())
        self._worker.start()

    def has_succeeded(self, timeout_s: float) -> bool:
        if not self._worker.join(timeout_s):
            log.error("%s: did not end in time; it is left behind", self._worker.name)
            return False
        return not self._has_failed

    def _run(self) -> None:
        self._has_failed = self._act() is False
