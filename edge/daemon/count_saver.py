"""Saves what was counted while the cameras run, so that a kill or a power cut costs a few seconds of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.pipeline.analysis import StreamAnalysis

SAVE_EVERY_S = 3.0


class CountSaver:
    """Runs in its own thread: a slow disk delays the next save, and no frame."""

    def __init__(self, analyses: Callable[[], Iterable[StreamAnalysis]], every_s: float = SAVE_EVERY_S) -> None:
        """Args: gives those of the streams that run now; seconds from one round to the next."""
        self._analyses = analyses
        self._every_s = every_s

    def run(self, stopping: threading.Event) -> None:
        """Save what has changed, again and again; the last save of all is the pipeline's."""
        due_s = time.monotonic() + self._every_s
        while not stopping.wait(max(0.0, due_s - time.monotonic())):
            due_s = time.monotonic() + self._every_s
            for analysis in self._analyses():
                analysis.save(only_changed=True)
