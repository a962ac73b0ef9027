"""Brings the outbox's events to a person as messages: each event in one message, which is sent until it is taken."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edge.errors import SinkError
from edge.events.delivery import IDLE_S
from edge.events.failing import Failing
from edge.events.joining import Joiner
from edge.events.message import Message, compose
from edge.events.outbox import Outbox
from edge.events.schema import NAMESPACE
from edge.events.stored import StoredEvent
from edge.metrics.counters import Counters
from edge.threads.backoff import Backoff

log = logging.getLogger(__name__)
BATCH = 256


class LaterError(SinkError):
    """The message was not taken, and shall not be tried again before ``after_s`` seconds."""

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


class Messenger(Protocol):
    """Something that takes messages. Used by one thread."""

    @property
    def name(self) -> str: ...

    def send(self, message: Message, stopping: threading.Event) -> None:
        """Send it, and wait until it was taken.

        Raises:
            SinkError: it was not, or the wait was to stop; try again later, of a ``LaterError`` not before its time.
        """


@dataclass(slots=True)
class JoinedDelivery:
    """Runs in its own thread until stopped; what waits then stays in the outbox.

    What belongs to a message is written into the outbox before it is sent, so the same message, with the same id, is
    sent again after a crash. While one is not taken, what happens is kept for the next: there is no heap of messages.

    Attributes:
        outbox, messenger, joiner: from where, to whom, and what belongs together.
        is_quiet: whether nothing may be sent now.
        may_see: whether it may be told of a stream now, also of what became a message when it might.
        give_up_s: a message that is not taken for so long is given up.
        counters: ``delivered`` and ``refused`` events, ``messages``, ``failures``.
        failing: why the last attempt failed.
    """

    outbox: Outbox
    messenger: Messenger
    joiner: Joiner
    is_quiet: Callable[[], bool] = lambda: False
    backoff: Backoff = field(default_factory=Backoff)
    give_up_s: float = 86_400.0
    may_see: Callable[[str], bool] = lambda stream: True
    clock_s: Callable[[], float] = time.monotonic
    counters: Counters[str] = field(default_factory=Counters)
    failing: Failing = field(init=False)
    _seen: int = 0
    _generation: int = -1
    _failing_since_s: float = float("inf")

    def __post_init__(self) -> None:
        self.failing = Failing(self.messenger.name, self.backoff, self.clock_s)

    def run(self, stopping: threading.Event) -> None:
        """Deliver until asked to stop."""
        while not stopping.is_set():
            self.step(stopping)

    def step(self, stopping: threading.Event) -> None:
        """Send one message, or wait a moment for events."""
        try:
            found = None if self.is_quiet() else self.outbox.claimed(self.messenger.name)
            if found is None:
                self._take_new()
                self._claim_due()
            else:
                self._send(*found, stopping)
        except SinkError as error:
            self.counters.add("failures")
            pause_s = self.failing.note(error)
            stopping.wait(max(pause_s, error.after_s if isinstance(error, LaterError) else 0.0))

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        return {"error": self.failing.last_error, **self.counters.snapshot()}

    def _take_new(self) -> None:
        """Look at the events that came; those that nobody wants are done with."""
        name, outbox = self.messenger.name, self.outbox
        if self._generation != outbox.generation:
            self._generation, self._seen = outbox.generation, 0
            self.joiner.forget()
        events = outbox.unclaimed(name, self._seen, BATCH, IDLE_S)
        now_s = self.clock_s()
        unwanted = [event.id for event in events if not self.joiner.add(event, now_s)]
        self._seen = events[-1].number if events else self._seen
        if not unwanted:
            return
        try:
            outbox.claim(name, "", unwanted)
        except SinkError:
            # look at everything again
            self._generation = -1
            raise

    def _claim_due(self) -> None:
        """Make the events of a place a message; one at a time, the next when it was taken."""
        now_s = self.clock_s()
        if snoozed := self.joiner.snoozed():
            self.outbox.claim(self.messenger.name, "", snoozed)
            self.joiner.drop(snoozed)
        ids = None if self.is_quiet() else next(self.joiner.due(now_s), None)
        if ids is not None:
            self.outbox.claim(self.messenger.name, str(uuid.uuid5(NAMESPACE, f"{self.messenger.name} {ids[0]}")), ids)
            self.joiner.claimed(ids, now_s)

    def _send(self, message_id: str, events: list[StoredEvent], stopping: threading.Event) -> None:
        events = [event for event in events if self.may_see(event.stream)]
        if events:
            try:
                self.messenger.send(compose(message_id, events), stopping)
            except SinkError as error:
                self._failing_since_s = min(self._failing_since_s, self.clock_s())
                if self.clock_s() - self._failing_since_s < self.give_up_s:
                    raise
                log.error("%s: a message about %d events is given up: %s", self.messenger.name, len(events), error)
                self.counters.add("refused", len(events))
            else:
                self.counters.add("delivered", len(events))
                self.counters.add("messages")
        self.outbox.settle(self.messenger.name, message_id)
        self._failing_since_s = float("inf")
        self.failing.is_over("messages")
