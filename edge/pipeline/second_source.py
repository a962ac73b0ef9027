"""Another picture of a stream's camera than the one that is analysed: opened again and again, while it is needed.

It has a thread, a process and attempts of its own, so neither picture waits for the other or goes with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

from edge.addresses.secrets import redacted
from edge.addresses.uris import host_of, masked
from edge.errors import MissingError, SourceError
from edge.metrics.counters import Counters
from edge.sources.isolation.process import SpareChild
from edge.threads.backoff import Backoff, HostGate

if TYPE_CHECKING:
    from edge.config.schema import StreamSettings
    from edge.sources.deadlines import Deadlines

log = logging.getLogger(__name__)
SecondState = Literal["waiting", "connecting", "streaming", "backing_off", "failed"]
# a source that lived this long was worth reconnecting to at once
STABLE_S = 10.0
# between two looks at whether it is needed
POLL_S = 0.1


class SecondSource:
    """The loop of attempts; what one of them does is the subclass's.

    Args:
        key: of the configuration, for the log.
        config: of the stream.
        address: what is opened.

    Attributes:
        key: as it was given.
        counters: ``reconnects``.
        state: how it stands; ``waiting`` until it is needed.
        reason: why it is in this state, empty where all is well.
    """

    def __init__(self, key: str, config: StreamSettings, address: str) -> None:
        self.key = key
        self._config = config
        self._address = address
        self.counters: Counters[str] = Counters()
        self.state: SecondState = "waiting"
        self.reason = ""

    def run(self, stopping: threading.Event, gate: HostGate, deadlines: Deadlines) -> None:
        """Pass on what comes until asked to stop; what a camera does ends an attempt and nothing else."""
        backoff = Backoff(base_s=self._config.retry_base_s, cap_s=self._config.retry_cap_s)
        spare = SpareChild()
        try:
            while not stopping.is_set():
                if not self._is_needed():
                    self._set_state("waiting", "")
                    stopping.wait(POLL_S)
                    continue
                started_s = time.monotonic()
                try:
                    self._set_state("connecting", "")
                    self._open_once(stopping, gate, deadlines, spare)
                except (SourceError, MissingError) as error:
                    if time.monotonic() - started_s > STABLE_S:
                        backoff.reset()
                    self._pause(error, backoff.next_delay_s(), stopping)
        finally:
            spare.close()

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        return {"state": self.state, "reason": redacted(self.reason), **self.counters.snapshot()}

    def _is_needed(self) -> bool:
        raise NotImplementedError

    def _open_once(self, stopping: threading.Event, gate: HostGate, deadlines: Deadlines, spare: SpareChild) -> None:
        """One connection, until it breaks or is not needed any more.

        Raises:
            SourceError: it broke, or cannot be opened.
            MissingError: the machine lacks what it needs.
        """
        raise NotImplementedError

    def _attempt(self, gate: HostGate, is_over: Callable[[], bool]) -> AbstractContextManager[bool]:
        return gate.attempt(host_of(self._address), is_over)

    def _pause(self, error: SourceError | MissingError, delay_s: float, stopping: threading.Event) -> None:
        self.counters.add("reconnects")
        self._set_state("backing_off", f"{error}; next attempt in {delay_s:.1f} s")
        stopping.wait(delay_s)

    def _set_state(self, state: SecondState, reason: str) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        self.state, self.reason = state, reason
        level = logging.WARNING if state == "backing_off" else logging.INFO
        log.log(level, "%s: %s: %s %s", self._config.name, self.key, state, reason or masked(self._address))
