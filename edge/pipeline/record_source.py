"""The large picture of a camera, of which a small one is analysed: its packets go to the recording, undecoded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edge.addresses.uris import masked
from edge.errors import SourceError
from edge.pipeline.second_source import SecondSource
from edge.sources.direct import Decoding
from edge.video.event_clock import EventClock, PlacedPackets

if TYPE_CHECKING:
    import threading

    from edge.config.schema import StreamSettings
    from edge.sources.deadlines import Deadlines
    from edge.sources.isolation.process import SpareChild
    from edge.threads.backoff import HostGate
    from edge.video.packets import PacketTaker

# what is needed is kept open so much longer than its last event: the next one is then recorded from its beginning
LINGER_S = 10.0
# packets that are only recorded come this late at most, five together of a common camera
GROUP_S = 0.2
# of what a power cut may cost
GROUP_SHARE = 0.1


class RecordSource(SecondSource):
    """Opens ``record_source`` again and again.

    Args:
        config: of the stream.
        taker: gets the packets, with the times of what is analysed.
        clock: of the camera.
        level_s: how loud it is is measured over so long; 0: it is not measured.
    """

    def __init__(self, config: StreamSettings, taker: PacketTaker, clock: EventClock, level_s: float = 0.0) -> None:
        assert config.record_source is not None
        super().__init__("record_source", config, config.record_source)
        self._is_always_open = config.record_open == "always"
        self._level_s = level_s
        fragment_s = 0.0 if config.record is None else config.record.fragment_s
        self._group_s = min(GROUP_S, GROUP_SHARE * fragment_s)
        self._taker = PlacedPackets(taker, clock)
        self._needed_until_s = float("-inf")

    def need(self, seconds: float) -> None:
        """It is needed from now on for so long; any thread may say so."""
        self._needed_until_s = max(self._needed_until_s, time.monotonic() + seconds + LINGER_S)

    def _is_needed(self) -> bool:
        return self._is_always_open or time.monotonic() < self._needed_until_s

    def _open_once(self, stopping: threading.Event, gate: HostGate, deadlines: Deadlines, spare: SpareChild) -> None:
        # what reads a camera is imported when one is opened
        from edge.sources.choose import open_packets

        def is_over() -> bool:
            return stopping.is_set() or not self._is_needed()

        decoding = Decoding(
            "av",
            self._config.transport,
            sound=self._config.has_sound,
            level_s=self._level_s,
            group_s=self._group_s,
        )
        with self._attempt(gate, is_over):
            source = open_packets(
                self._address,
                self._taker,
                decoding=decoding,
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
