"""The capture worker of one stream: opens its source, stamps frames, hands them over, tries again when it breaks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2

from edge.addresses.secrets import redacted
from edge.addresses.uris import host_of, is_live, kind_of, masked
from edge.errors import EdgeError, MissingError, SourceError
from edge.interfaces import CameraSource
from edge.sources.choose import open_source
from edge.sources.direct import Decoding
from edge.sources.isolation.process import SpareChild
from edge.sources.isolation.ring import RingLimit
from edge.threads.backoff import Backoff, HostGate
from edge.types import Event, Frame, HealthChange

if TYPE_CHECKING:
    from edge.pictures.planes import Planes
    from edge.pipeline.latest_frames import LatestFrames, StreamSlot
    from edge.pipeline.stream import CaptureState, Stream
    from edge.sources.deadlines import Deadlines
    from edge.sources.prepared import Preparation

log = logging.getLogger(__name__)
# a source that lived this long was worth reconnecting to at once
STABLE_S = 10.0
# their end is a fault, not the end of the film
UNENDING = ("network", "device", "gstreamer", "plugin")
# that no camera may answer for with more than its own attempt
FAULTS = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError),
    cv2.error,
)


class CaptureWorker:
    """Runs in its own thread; the only one that touches the source."""

    def __init__(
        self,
        stream: Stream,
        latest: LatestFrames[Frame],
        slot: StreamSlot[Frame],
        gate: HostGate,
        preparation: Preparation,
        deadlines: Deadlines,
        is_alone: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare; nothing is opened before ``run``.

        Args:
            stream: whose source it is.
            latest, slot: where its frames go, and its place there.
            gate: who limits attempts per host.
            preparation: what is done to its pictures.
            deadlines: of a source in a process of its own.
            is_alone: whether no other stream runs, so that there is nothing to go on with when the machine lacks what
                this one needs.
        """
        self._stream = stream
        self._latest = latest
        self._slot = slot
        self._gate = gate
        self._backoff = Backoff(base_s=stream.config.retry_base_s, cap_s=stream.config.retry_cap_s)
        self._rings = RingLimit()
        self._spare = SpareChild()
        self._is_alone = is_alone
        # what is wrong with the picture, and since when
        self._open_faults: dict[str, int] = {}
        self._preparation = preparation
        self._deadlines = deadlines
        self._epoch = 0
        self._lost_ns: int | None = None

    def run(self, stopping: threading.Event) -> None:
        """Capture until asked to stop or, for a file, until its end.

        Raises:
            SourceError: a source that is not live cannot be opened or breaks; a live one is tried again for ever.
            MissingError: the machine lacks what the only stream, or one that is not live, needs.
        """
        try:
            while not stopping.is_set():
                try:
                    if self._one_epoch(stopping):
                        self._set_state("ended", "")
                        return
                except (SourceError, MissingError) as error:
                    self._wait(error, stopping)
                except FAULTS as error:
                    log.exception("%s: a fault of ours, or of what the camera sends", self._stream.name)
                    fault = f"{type(error).__name__}: {redacted(str(error))}"
                    self._wait(SourceError(f"{masked(self._stream.config.source)}: {fault}"), stopping)
                self._epoch += 1
        except EdgeError as error:
            self._set_state("failed", str(error))
            raise
        finally:
            self._spare.close()
            self._stream.status.opened.set()
            self._latest.end(self._slot)

    def _one_epoch(self, stopping: threading.Event) -> bool:
        """Open and read once; True at the source's end or when stopping."""
        self._set_state("connecting", "")
        source = self._open(stopping)
        started = time.monotonic()
        try:
            self._stream.status.info = source.info
            self._set_state(self._streaming_state(), "")
            self._stream.status.opened.set()
            self._read_all(source, stopping)
        finally:
            source.close()
            if time.monotonic() - started > STABLE_S:
                self._backoff.reset()
        is_unending = kind_of(self._stream.config.source) in UNENDING and source.info.is_live
        if is_unending and not stopping.is_set():
            raise SourceError(f"{masked(self._stream.config.source)}: the stream ended")
        return True

    def _open(self, stopping: threading.Event) -> CameraSource:
        config = self._stream.config
        with self._gate.attempt(host_of(config.source), stopping.is_set):
            return open_source(
                config.source,
                decoding=Decoding(
                    config.decoder,
                    config.transport,
                    config.hardware,
                    config.hardware_device,
                    sound=self._stream.reads_sound,
                    level_s=self._stream.level_s,
                ),
                # a camera that froze and is opened again is still frozen until its picture moves
                preparation=replace(self._preparation, ill=tuple(self._open_faults.items())),
                is_stopping=stopping.is_set,
                deadlines=self._deadlines,
                is_isolated=None if config.isolation == "auto" else config.isolation == "process",
                rings=self._rings,
                spare=self._spare,
                allow_hosts=config.allow_hosts,
                packets=self._stream.capture_packets,
            )

    def _note(self, source: CameraSource, seq: int) -> None:
        """Count the pictures that were taken but not given, and tell how the camera's health changed."""
        for cause, count in source.take_drops().items():
            self._stream.metrics.counters.add("captured", count)
            self._stream.metrics.counters.add(cause, count)
        for change in source.take_changes():
            self._queue_event(Event(change.kind, self._stream.name, source.captured_ns, data=change.data), seq)
            self._stream.status.note_health(change)
            self._remember(change, source.captured_ns)
            self._set_state(self._streaming_state(), "")

    def _remember(self, change: HealthChange, now_ns: int) -> None:
        """Note since when the picture is ill, for the next opening."""
        if change.kind == "camera_recovered":
            self._open_faults.pop(change.data["from"], None)
        else:
            self._open_faults[change.kind.removeprefix("camera_")] = now_ns - round(change.data["seconds"] * 1e9)

    def _streaming_state(self) -> CaptureState:
        return "frozen" if "frozen" in self._stream.status.health else "streaming"

    def _queue_event(self, event: Event, seq: int) -> None:
        log.warning("%s: %s %s", self._stream.name, event.kind, dict(event.data))
        self._stream.queue_event(event, self._epoch, seq)

    def _read_all(self, source: CameraSource, stopping: threading.Event) -> None:
        seq = 0
        while not stopping.is_set():
            started_ns = time.monotonic_ns()
            picture = source.read_planes()
            if picture is None:
                return
            self._stream.metrics.stages.add({"read": time.monotonic_ns() - started_ns})
            if self._lost_ns is not None:
                seconds = round((source.captured_ns - self._lost_ns) / 1e9, 1)
                data = {"from": "offline", "seconds": seconds}
                self._queue_event(Event("camera_recovered", self._stream.name, source.captured_ns, data=data), seq)
                self._lost_ns = None
            self._note(source, seq)
            if self._stream.event_clock is not None:
                self._stream.event_clock.note_picture(source.captured_ns)
            # stamped where it was decoded: what waited on the way is no younger for it
            self._hand_over(picture[0], picture[1], seq, source.captured_ns)
            seq += 1

    def _hand_over(self, planes: Planes, pts_ns: int | None, seq: int, now_ns: int) -> None:
        planes.freeze()
        frame = Frame(self._stream.name, self._epoch, seq, now_ns, pts_ns, planes)
        self._stream.metrics.counters.add("captured")
        self._stream.metrics.captured_rate.tick(now_ns)
        if not self._latest.put(self._slot, frame):
            self._stream.metrics.counters.add("drop_stopped")

    def _wait(self, error: SourceError | MissingError, stopping: threading.Event) -> None:
        """Wait before the next attempt; a source that is not live does not come back by waiting."""
        # what has run once lacks nothing, whatever its decoder says now
        is_lacking = isinstance(error, MissingError) and not self._stream.status.opened.is_set()
        if not is_live(self._stream.config.source) or (is_lacking and self._is_alone()):
            raise error
        delay_s = self._backoff.next_delay_s()
        if self._lost_ns is None:
            self._lost_ns = time.monotonic_ns()
            data = {"reason": redacted(str(error))}
            self._stream.on_event(Event("camera_offline", self._stream.name, self._lost_ns, data=data))
        self._stream.metrics.counters.add("reconnects")
        self._set_state("backing_off", f"{error}; next attempt in {delay_s:.1f} s")
        stopping.wait(delay_s)

    def _set_state(self, state: CaptureState, reason: str) -> None:
        if (state, reason) == (self._stream.status.state, self._stream.status.reason):
            return
        self._stream.status.state = state
        self._stream.status.reason = reason
        level = logging.WARNING if state in ("backing_off", "failed") else logging.INFO
        log.log(level, "%s: %s %s", self._stream.name, state, reason or masked(self._stream.config.source))
