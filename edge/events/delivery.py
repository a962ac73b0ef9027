"""Brings the outbox's events to one target: in order, again and again until they are acknowledged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge.errors import SinkError
from edge.events.failing import Failing
from edge.events.outbox import Outbox
from edge.events.stored import StoredEvent
from edge.metrics.counters import Counters
from edge.threads.backoff import Backoff

log = logging.getLogger(__name__)
BATCH = 64
IDLE_S = 0.25


class Target(Protocol):
    """Something that takes events. Used by one thread."""

    @property
    def name(self) -> str: ...

    def deliver(self, events: Sequence[StoredEvent]) -> Delivered:
        """Give events to the target, oldest first, and wait until it has acknowledged them.

        Returns:
            At least one event taken or refused.

        Raises:
            SinkError: nothing was acknowledged; try again later.
        """

    def keep_alive(self) -> None:
        """Called now and then while nothing is to be delivered."""

    def close(self) -> None:
        """May be called twice."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a target said to the first events of a batch: acknowledged, or refused for good (both count as done)."""

    num_taken: int
    num_refused: int = 0

    @property
    def num_done(self) -> int:
        return self.num_taken + self.num_refused


@dataclass(slots=True)
class DeliveryWorker:
    """Runs in its own thread until stopped.

    Attributes:
        outbox, target: from where to where.
        backoff: the pauses after a failure.
        drain_s: how long it may still deliver after it was asked to stop.
        counters: ``delivered``, ``refused``, ``failures``.
        failing: why the last attempt failed.
    """

    outbox: Outbox
    target: Target
    backoff: Backoff = field(default_factory=Backoff)
    drain_s: float = 2.0
    counters: Counters[str] = field(default_factory=Counters)
    failing: Failing = field(init=False)

    def __post_init__(self) -> None:
        self.failing = Failing(self.target.name, self.backoff)

    def run(self, stopping: threading.Event) -> None:
        """Deliver until asked to stop; what waits then stays in the outbox."""
        try:
            while not stopping.is_set():
                self.step(stopping)
            deadline = time.monotonic() + self.drain_s
            while (
                not self.failing.last_error and time.monotonic() < deadline and self.outbox.pending(self.target.name, 1)
            ):
                self.step(stopping)
        except SinkError as error:
            log.error("%s: %s", self.target.name, error)
        finally:
            self.target.close()

    def step(self, stopping: threading.Event) -> None:
        """One batch, or one wait for it."""
        try:
            events = self.outbox.pending(self.target.name, BATCH, 0.0 if stopping.is_set() else IDLE_S)
            if not events:
                self.target.keep_alive()
                return
            done = self.target.deliver(events)
            self.outbox.acknowledge(self.target.name, events[done.num_done - 1].number)
        except SinkError as error:
            self.counters.add("failures")
            stopping.wait(self.failing.note(error))
            return
        self._note(done)

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        return {"error": self.failing.last_error, **self.counters.snapshot()}

    def _note(self, done: Delivered) -> None:
        self.counters.add("delivered", done.num_taken)
        if done.num_refused:
            self.counters.add("refused", done.num_refused)
        self.failing.is_over("events")
