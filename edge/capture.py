"""The capture worker of one stream: opens its source, stamps frames, hands them over, tries again when it breaks."""

from __future__ import annotations

import logging
import threading
import time

from edge.backoff import Backoff, HostGate
from edge.errors import EdgeError, SourceError
from edge.handoff import LatestFrames
from edge.interfaces import Source
from edge.lane import Lane
from edge.sources.choose import open_source
from edge.sources.isolated import Deadlines, IsolatedSource
from edge.types import Frame, UInt8
from edge.uris import host_of, is_live, kind_of, masked

log = logging.getLogger(__name__)
# a source that lived this long was worth reconnecting to at once
STABLE_S = 10.0
# their end is a fault, not the end of the film
UNENDING = ("network", "device", "gstreamer")


class CaptureWorker:
    """Runs in its own thread; the only one that touches the source."""

    def __init__(self, lane: Lane, latest: LatestFrames, gate: HostGate) -> None:
        self._lane = lane
        self._latest = latest
        self._gate = gate
        self._backoff = Backoff(base_s=lane.config.retry_base_s, cap_s=lane.config.retry_cap_s)
        self._epoch = 0

    def run(self, stopping: threading.Event) -> None:
        """Capture until asked to stop or, for a file, until its end.

        Raises:
            SourceError: a source that is not live cannot be opened or breaks; a live one is tried again for ever.
        """
        try:
            while not stopping.is_set():
                try:
                    if self._one_epoch(stopping):
                        self._set_state("ended", "")
                        return
                except SourceError as error:
                    self._wait(error, stopping)
                self._epoch += 1
        except EdgeError as error:
            self._set_state("failed", str(error))
            raise
        finally:
            self._lane.opened.set()
            self._latest.end(self._lane.name)

    def _one_epoch(self, stopping: threading.Event) -> bool:
        """Open and read once; True at the source's end or when stopping."""
        self._set_state("connecting", "")
        source = self._open(stopping)
        started = time.monotonic()
        try:
            self._lane.info = source.info
            self._set_state("streaming", "")
            self._lane.opened.set()
            self._read_all(source, stopping)
        finally:
            source.close()
            if time.monotonic() - started > STABLE_S:
                self._backoff.reset()
        if kind_of(self._lane.config.source) in UNENDING and not stopping.is_set():
            raise SourceError(f"{masked(self._lane.config.source)}: the stream ended")
        return True

    def _open(self, stopping: threading.Event) -> Source:
        config = self._lane.config
        with self._gate.attempt(host_of(config.source), stopping.is_set):
            return open_source(
                config.source,
                is_stopping=stopping.is_set,
                on_drop=self._count_lost,
                deadlines=Deadlines(config.open_timeout_s, config.stall_timeout_s),
                is_isolated=None if config.isolation == "auto" else config.isolation == "process",
            )

    def _count_lost(self, count: int) -> None:
        """Pictures that were taken but never left the child: the pipeline held all of its slots."""
        self._lane.counters.add("captured", count)
        self._lane.counters.add("drop_ring_full", count)

    def _read_all(self, source: Source, stopping: threading.Event) -> None:
        seq = 0
        while not stopping.is_set():
            started_ns = time.monotonic_ns()
            picture = source.read()
            if picture is None:
                return
            now_ns = time.monotonic_ns()
            # a child stamps its pictures itself: what waited on the way is no younger for it
            captured_ns = source.captured_ns if isinstance(source, IsolatedSource) else now_ns
            self._lane.stages.add({"read": now_ns - started_ns})
            self._hand_over(picture[0], picture[1], seq, captured_ns)
            seq += 1

    def _hand_over(self, image: UInt8, pts_ns: int | None, seq: int, now_ns: int) -> None:
        image.flags.writeable = False
        frame = Frame(self._lane.name, self._epoch, seq, now_ns, pts_ns, image)
        self._lane.counters.add("captured")
        self._lane.captured_rate.tick(now_ns)
        if not self._latest.put(frame):
            self._lane.counters.add("drop_stopped")

    def _wait(self, error: SourceError, stopping: threading.Event) -> None:
        """Wait before the next attempt; a source that is not live does not come back by waiting."""
        if not is_live(self._lane.config.source):
            raise error
        delay_s = self._backoff.next_delay_s()
        self._lane.counters.add("reconnects")
        self._set_state("backing_off", f"{error}; next attempt in {delay_s:.1f} s")
        stopping.wait(delay_s)

    def _set_state(self, state: str, reason: str) -> None:
        if (state, reason) == (self._lane.state, self._lane.state_reason):
            return
        self._lane.state = state  # type: ignore[assignment]
        self._lane.state_reason = reason
        level = logging.WARNING if state in ("backing_off", "failed") else logging.INFO
        log.log(level, "%s: %s %s", self._lane.name, state, reason or masked(self._lane.config.source))
