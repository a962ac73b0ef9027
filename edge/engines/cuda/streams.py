"""Work that is recorded once, when an engine is loaded, and replayed in traffic: CUDA graphs on one stream."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from edge.engines.cuda.errors import GpuError

if TYPE_CHECKING:
    from edge.engines.cuda.context import Driver

log = logging.getLogger(__name__)


class ReplayStream:
    """A stream with a graph for each key that could be recorded; the work of the others is issued each time."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.stream = driver.new_stream()
        self._done = driver.new_event()
        self._graphs: dict[Hashable, Any] = {}

    @property
    def handle(self) -> int:
        return self._driver.stream_handle(self.stream)

    @property
    def num_graphs(self) -> int:
        return len(self._graphs)

    def record(self, key: Hashable, work: Callable[[], None]) -> None:
        """Record the work of a key; hold ``edge.engines.cuda.library.LOADING`` meanwhile.

        TensorRT must have run it with the same shapes just before, and nothing of it may be under way: what it sets up
        for a new shape cannot be recorded. Loops and data-dependent shapes cannot be either; then one line in the log
        says so, and this key runs without a graph.

        Args:
            work: issues it on ``stream``; the same calls with the same addresses every time.

        Raises:
            GpuError: the context is lost.
        """
        try:
            self._graphs[key] = self._captured(work)
        except (GpuError, RuntimeError, TypeError) as error:
            # whatever was said: only the driver knows whether more is broken than the recording
            if self._driver.is_lost():
                raise
            log.warning("batches of %s run without a CUDA graph: %s", key, error)

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """Replay a key, or issue its work.

        Raises:
            GpuError: it could not be issued.
        """
        if key in self._graphs:
            self._driver.launch_graph(self._graphs[key], self.stream)
        else:
            work()
        self._driver.record(self._done, self.stream)

    def wait(self) -> None:
        """Sleep until everything issued so far is done.

        Raises:
            GpuError: some of it failed.
        """
        self._driver.wait(self._done)

    def close(self) -> None:
        for graph in self._graphs.values():
            self._driver.free_graph(graph)
        self._graphs.clear()

    def _captured(self, work: Callable[[], None]) -> Any:
        self._driver.begin_capture(self.stream)
        is_whole = False
        try:
            work()
            is_whole = True
        finally:
            # whatever was raised: a stream that goes on recording makes every later free in this thread fail
            if not is_whole:
                self._abandon()
        return self._driver.end_capture(self.stream)

    def _abandon(self) -> None:
        """Leave recording mode after a failure; what was recorded so far is of no use."""
        try:
            self._driver.free_graph(self._driver.end_capture(self.stream))
        except GpuError as error:
            log.debug("recording ended: %s", error)
