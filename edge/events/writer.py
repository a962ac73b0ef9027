"""Takes the events of all streams and puts them into the outbox, off the path of the frames.

One writer thread encodes the snapshots and commits; what waits for it is bounded, and what does not fit is counted.
Shape letters: H W frame pixels.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.errors import SinkError
from edge.events.schema import Envelope, EnvelopeMaker, ModelFacts, Place
from edge.metrics.counters import Counters
from edge.threads.drop_queue import DropQueue
from edge.types import Event, Result, UInt8

log = logging.getLogger(__name__)
CAPACITY = 1024
BATCH = 256
# pictures that may wait: each is a whole frame
MAX_PICTURES = 8
IDLE_S = 0.25
RETRY_S = 1.0
NO_LINKS: Mapping[str, str] = {}


class KeepsEvents(Protocol):
    """What the writer asks of ``edge.events.outbox.Outbox``, or of what stands for one in another process."""

    def put(self, envelopes: Sequence[Envelope]) -> None: ...
    def look_for_file(self) -> None: ...


class KeepsPictures(Protocol):
    """The same of ``edge.events.snapshots.Snapshots``."""

    def write(self, event_id: str, picture: UInt8) -> str: ...


@dataclass(frozen=True, slots=True)
class _Report:
    """An event on its way to the outbox. ``picture`` is (H, W, 3) uint8 BGR."""

    event: Event
    place: Place | None
    ordinal: int
    model: ModelFacts | None
    links: Mapping[str, str]
    picture: UInt8 | None


class EventWriter:
    """Any thread may report; ``run`` is the one writer.

    Attributes:
        counters: ``written``, ``dropped`` (the desk was full), ``pictures``, ``pictures_dropped``, ``write_errors``.
    """

    def __init__(
        self, outbox: KeepsEvents, snapshots: KeepsPictures | None = None, maker: EnvelopeMaker | None = None
    ) -> None:
        """Args: where events are kept, where their pictures go (None: nowhere), what gives them their form."""
        self.counters: Counters[str] = Counters()
        self._outbox = outbox
        self._snapshots = snapshots
        self._maker = maker or EnvelopeMaker(run=str(uuid.uuid4()))
        self._queue: DropQueue[_Report] = DropQueue(CAPACITY, is_lossless=False, on_drop=self._on_drop)
        self._lock = threading.Lock()
        self._num_pictures = 0
        self._num_reports = 0
        self._is_failing = False
        # the events of one frame come one after the other and share its picture
        self._shared_link = ""

    @property
    def has_snapshots(self) -> bool:
        return self._snapshots is not None

    def report(
        self,
        result: Result,
        picture: Callable[[], UInt8] | None,
        model: ModelFacts | None = None,
        links: Mapping[str, str] = NO_LINKS,
    ) -> None:
        """Take the events of a result; returns at once.

        Args:
            result: nothing of it is kept but its events.
            picture: gives the annotated (H, W, 3) uint8 BGR picture, which nobody may change; None: there is none.
            model: what saw it.
            links: files that belong to the events.
        """
        if not result.events:
            return
        drawn = picture() if picture is not None and self._may_take_picture() else None
        for ordinal, event in enumerate(result.events):
            self._queue.put(_Report(event, Place.of(result.frame), ordinal, model, links, drawn))

    def report_event(self, event: Event) -> None:
        """Take an event of a stream that is about no frame; its ``time_ns`` is a monotonic time."""
        with self._lock:
            self._num_reports += 1
            ordinal = self._num_reports
        self._queue.put(_Report(event, None, ordinal, None, NO_LINKS, None))

    def run(self, stopping: threading.Event) -> None:
        """Write what comes until ``close`` was called and everything is written; ``stopping`` ends it earlier."""
        while not self._queue.is_finished and not stopping.is_set():
            self._outbox.look_for_file()
            reports = self._next_batch()
            if reports:
                self._write([self._envelope(report) for report in reports], stopping)

    def close(self) -> None:
        """Nothing more will be reported."""
        self._queue.close()

    def stats(self) -> dict[str, int]:
        return self.counters.snapshot()

    def _next_batch(self) -> list[_Report]:
        first = self._queue.get(IDLE_S)
        reports = [] if first is None else [first]
        while reports and len(reports) < BATCH and (report := self._queue.get(0.0)) is not None:
            reports.append(report)
        return reports

    def _may_take_picture(self) -> bool:
        if self._snapshots is None:
            return False
        with self._lock:
            if self._num_pictures < MAX_PICTURES:
                self._num_pictures += 1
                return True
        self.counters.add("pictures_dropped")
        return False

    def _on_drop(self, report: _Report) -> None:
        self.counters.add("dropped")
        self._release_picture(report)

    def _release_picture(self, report: _Report) -> None:
        # the first event of a frame stands for the picture that all of them share
        if report.picture is not None and report.ordinal == 0:
            with self._lock:
                self._num_pictures -= 1

    def _envelope(self, report: _Report) -> Envelope:
        if report.picture is not None and report.ordinal == 0:
            self._shared_link = self._keep_picture(report, report.picture)
            self._release_picture(report)
        has_link = report.picture is not None and self._shared_link
        links = {**report.links, "snapshot": self._shared_link} if has_link else report.links
        return self._maker.make(report.event, report.place, report.ordinal, report.model, links)

    def _keep_picture(self, report: _Report, picture: UInt8) -> str:
        """Its path, named after the first event of the frame; empty where it could not be kept."""
        if self._snapshots is None:
            return ""
        try:
            path = self._snapshots.write(self._maker.id_of(report.event, report.place, report.ordinal), picture)
        except SinkError as error:
            self._note_error(error)
            return ""
        self.counters.add("pictures")
        return path

    def _write(self, envelopes: list[Envelope], stopping: threading.Event) -> None:
        """Write until it is written; meanwhile the queue takes what comes, and drops the oldest when it is full."""
        while True:
            try:
                self._outbox.put(envelopes)
            except SinkError as error:
                self._note_error(error)
                if stopping.wait(RETRY_S):
                    self.counters.add("dropped", len(envelopes))
                    return
            else:
                self._is_failing = False
                self.counters.add("written", len(envelopes))
                return

    def _note_error(self, error: SinkError) -> None:
        self.counters.add("write_errors")
        if not self._is_failing:
            log.error("%s", error)
        self._is_failing = True
