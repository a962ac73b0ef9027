"""Sink whose disk was full or read-only at the start: the stream runs without it, and it is opened when that works."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edge.errors import DiskError
from edge.interfaces import Sink
from edge.types import Result, UInt8

log = logging.getLogger(__name__)
RETRY_S = 10.0


def open_now_or_later(open_it: Callable[[], Sink], clock_s: Callable[[], float] = time.monotonic) -> Sink:
    """Open a sink of a live stream; where only the disk forbids that, give one that tries again.

    Raises:
        EdgeError: it cannot be opened for another reason.
    """
    try:
        return open_it()
    except DiskError as error:
        log.error("%s; it is tried again every %g s", error, RETRY_S)
        return LateSink(open_it, error, clock_s)


class LateSink:
    """Loses results until it can be opened, as it would if the disk had failed later."""

    def __init__(self, open_it: Callable[[], Sink], fault: DiskError, clock_s: Callable[[], float]) -> None:
        """Args: opens the sink, why it could not be opened, the clock of the pauses."""
        self._open_it = open_it
        self._fault = fault
        self._clock_s = clock_s
        self._retry_s = clock_s() + RETRY_S
        self._sink: Sink | None = None

    @property
    def name(self) -> str:
        return "late" if self._sink is None else self._sink.name

    @property
    def takes_unseen(self) -> bool:
        return getattr(self._sink, "takes_unseen", False)

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        self._opened().write(result, picture)

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()

    def _opened(self) -> Sink:
        if self._sink is None:
            if self._clock_s() < self._retry_s:
                raise self._fault
            self._retry_s = self._clock_s() + RETRY_S
            self._sink = self._open_it()
            log.info("%s: can be written again", self._sink.name)
        return self._sink
