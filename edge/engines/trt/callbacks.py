"""The objects that TensorRT calls back: its logger, the progress of a build, and a calibration cache.

Their base classes live in the loaded library, so each is made by a function that is given the module.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

log = logging.getLogger(__name__)


class BuildListener(Protocol):
    """Hears how a build goes. Called from the builder's threads; must not raise."""

    def phase_start(self, name: str, parent: str | None, num_steps: int) -> None: ...

    def step(self, name: str, done: int) -> bool:
        """One step of a phase is done; False cancels the build."""

    def phase_finish(self, name: str) -> None: ...


def logger(trt: Any, errors: deque[str]) -> Any:
    """An ``ILogger`` that appends errors to ``errors`` and passes warnings and errors to logging at DEBUG."""
    serious = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            # without this the library refuses the object
            super().__init__()

        def log(self, severity: Any, msg: str) -> None:
            line = " ".join(msg.split())
            if severity in serious:
                errors.append(line)
            if severity in serious or severity == trt.ILogger.WARNING:
                log.debug("%s", line)

    return Logger()


def monitor(trt: Any, listener: BuildListener) -> Any:
    """An ``IProgressMonitor`` that tells the listener."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            listener.phase_start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return listener.step(phase_name, step + 1)

        def phase_finish(self, phase_name: str) -> None:
            listener.phase_finish(phase_name)

    return Monitor()


def cached_ranges(trt: Any, cache: bytes) -> Any:
    """An ``IInt8EntropyCalibrator2`` that has nothing but a finished cache."""

    class CachedRanges(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Sequence[str]) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, cache: bytes) -> None:
            return None

    return CachedRanges()
