"""Work recorded once and replayed: one CUDA graph per key (profile and batch size), on one stream."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from edge.engines.cuda.errors import GpuError

if TYPE_CHECKING:
    from edge.engines.cuda.context import Driver

log = logging.getLogger(__name__)


class ReplayStream:
    """A stream that learns its work: run plainly once per key, recorded the second time, replayed ever after.

    The first plain run matters: TensorRT sets itself up for a new shape then, which must not be recorded.
    """

    def __init__(self, driver: Driver, use_graphs: bool) -> None:
        self._driver = driver
        self.stream = driver.new_stream()
        self._done = driver.new_event()
        self._graphs: dict[Hashable, Any] = {}
        self._seen: set[Hashable] = set()
        self.uses_graphs = use_graphs

    @property
    def handle(self) -> int:
        return self._driver.stream_handle(self.stream)

    def run(self, key: Hashable, work: Callable[[], None], can_record: Callable[[], bool]) -> None:
        """Issue the work of this key.

        Args:
            work: issues it on ``stream``; the same calls with the same addresses every time.
            can_record: whether recording is allowed now.

        Raises:
            GpuError: it could not be issued.
        """
        if key in self._graphs:
            self._driver.launch_graph(self._graphs[key], self.stream)
        elif self.uses_graphs and key in self._seen and can_record():
            self._record(key, work)
        else:
            work()
        self._seen.add(key)
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

    def _record(self, key: Hashable, work: Callable[[], None]) -> None:
        try:
            graph = self._captured(work)
        except GpuError as error:
            if error.is_sticky:
                raise
            # loops and data-dependent shapes cannot be recorded; such a model runs without graphs
            log.warning("CUDA graphs are off: %s", error)
            self.uses_graphs = False
            work()
            return
        self._graphs[key] = graph
        self._driver.launch_graph(graph, self.stream)

    def _captured(self, work: Callable[[], None]) -> Any:
        self._driver.begin_capture(self.stream)
        try:
            work()
        except GpuError:
            self._abandon()
            raise
        return self._driver.end_capture(self.stream)

    def _abandon(self) -> None:
        """Leave recording mode after a failure; what was recorded so far is of no use."""
        try:
            self._driver.free_graph(self._driver.end_capture(self.stream))
        except GpuError as error:
            log.debug("recording ended: %s", error)
