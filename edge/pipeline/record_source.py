"""The large picture of a camera, of which a small one is analysed: its packets go to the recording, undecoded.

It has a thread, a process and attempts of its own, so neither picture waits for the other or goes with it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Literal

from edge.addresses.secrets import redacted
from edge.addresses.uris import host_of, masked
from edge.errors import MissingError, SourceError
from edge.metrics.counters import Counters
from edge.sources.direct import Decoding
from edge.sources.isolation.process import SpareChild
from edge.threads.backoff import Backoff, HostGate
from edge.video.event_clock import EventClock, PlacedPackets

if TYPE_CHECKING:
    from edge.config.schema import StreamSettings
    from edge.sources.deadlines import Deadlines
    from edge.video.packets import PacketTaker

log = logging.getLogger(__name__)
RecordState = Literal["waiting", "connecting", "streaming", "backing_off", "failed"]
# a source that lived this long was worth reconnecting to at once
STABLE_S = 10.0
# between two looks at whether it is needed
POLL_S = 0.1
# what is needed is kept open so much longer than its last event: the next one is then recorded from its beginning
LINGER_S = 10.0


class RecordSource:
    """Opens ``record_source`` again and again.

    Args:
        config: of the stream.
        taker: gets the packets, with the times of what is analysed.
        clock: of the camera.
        level_s: how loud it is is measured over so long; 0: it is not measured.

    Attributes:
        counters: ``reconnects``.
        state: how it stands; ``waiting`` until it is needed.
        reason: why it is in this state, empty where all is well.
    """

    def __init__(self, config: StreamSettings, taker: PacketTaker, clock: EventClock, level_s: float = 0.0) -> None:
        assert config.record_source is not None
        self._config = config
        self._address = config.record_source
        self._level_s = level_s
        self._is_always_open = config.record_open == "always"
        self._taker = PlacedPackets(taker, clock)
        self._needed_until_s = float("-inf")
        self.counters: Counters[str] = Counters()
        self.state: RecordState = "waiting"
        self.reason = ""

    def need(self, seconds: float) -> None:
        """It is needed from now on for so long; any thread may say so."""
        self._needed_until_s = max(self._needed_until_s, time.monotonic() + seconds + LINGER_S)

    def run(self, stopping: threading.Event, gate: HostGate, deadlines: Deadlines) -> None:
        """Pass packets on until asked to stop; what a camera does ends an attempt and nothing else."""
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
        return self._is_always_open or time.monotonic() < self._needed_until_s

    def _open_once(self, stopping: threading.Event, gate: HostGate, deadlines: Deadlines, spare: SpareChild) -> None:
        """One connection, until it breaks or is not needed any more."""
        # what reads a camera is imported when one is opened
        from edge.sources.choose import open_packets

        def is_over() -> bool:
            return stopping.is_set() or not self._is_needed()

        self._set_state("connecting", "")
        with gate.attempt(host_of(self._address), is_over):
            source = open_packets(
                self._address,
                self._taker,
                decoding=Decoding("av", self._config.transport, sound=self._config.has_sound, level_s=self._level_s),
                is_stopping=is_over,
                deadlines=deadlines,
                spare=spare,
                allow_hosts=self._config.allow_hosts,
            )
        try:
            self._set_state("streaming", "")
            source.pass_packets()
        finally:
            source.close()
        if not is_over():
            raise SourceError(f"{masked(self._address)}: the stream ended")

    def _pause(self, error: SourceError | MissingError, delay_s: float, stopping: threading.Event) -> None:
        self.counters.add("reconnects")
        self._set_state("backing_off", f"{error}; next attempt in {delay_s:.1f} s")
        stopping.wait(delay_s)

    def _set_state(self, state: RecordState, reason: str) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        self.state, self.reason = state, reason
        level = logging.WARNING if state == "backing_off" else logging.INFO
        log.log(level, "%s: record_source: %s %s", self._config.name, state, reason or masked(self._address))
