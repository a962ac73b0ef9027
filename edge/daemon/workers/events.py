"""Events of a worker on their way into the daemon's outbox: what is acknowledged to the worker is on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edge.daemon.workers.link import Link, Message
from edge.errors import EdgeError, SinkError
from edge.events.schema import Envelope
from edge.events.snapshots import encoded

if TYPE_CHECKING:
    from edge.daemon.workers.pages import PageMemory, PlaceTaker
    from edge.pipeline.shared_outputs import SharedOutputs
    from edge.types import UInt8

# of one message
MAX_CHARS = 40_000
TIMEOUT_S = 10.0


class EventsElsewhere:
    """The worker's side; see ``edge.pipeline.shared_outputs.Elsewhere``. Used by the event writer.

    An event that was written, and whose acknowledgement was lost, is sent again under the same id: the outbox leaves it
    as it is.
    """

    def __init__(self, link: Link, places: PlaceTaker) -> None:
        self._link = link
        self._places = places

    def put(self, envelopes: Sequence[Envelope]) -> None:
        for part in _parts(envelopes):
            rows = [(event.id, event.kind, event.stream, event.time_ns, event.body) for event in part]
            self._ask("events", rows=rows)

    def look_for_file(self) -> None:
        """Only who has the file looks for it."""

    def write(self, event_id: str, picture: UInt8) -> str:
        jpeg = encoded(picture)
        number = self._places.put(jpeg)
        if number is None:
            raise SinkError("events.snapshots: the live page has all the memory for pictures; one was lost")
        return str(self._ask("snapshot", id=event_id, place=number, size=len(jpeg))["path"])

    def _ask(self, kind: str, **facts: object) -> Message:
        try:
            return self._link.ask(kind, TIMEOUT_S, **facts)
        except SinkError:
            raise
        except EdgeError as error:
            raise SinkError(f"events: the daemon did not take them: {error}") from None


class EventTaker:
    """The daemon's side for all workers: puts into the outbox what comes, one message after the other."""

    def __init__(self, outputs: SharedOutputs) -> None:
        self._outputs = outputs

    def take(self, link: Link, memory: PageMemory, message: Message) -> None:
        """Keep what a message brings, and answer it."""
        try:
            if message["kind"] == "events":
                self._put(message)
                link.answer(message)
            else:
                link.answer(message, path=self._keep(memory, message))
        except EdgeError as error:
            link.answer_error(message, error)

    def _put(self, message: Message) -> None:
        if self._outputs.outbox is None:
            raise SinkError("events: there is no outbox")
        self._outputs.outbox.put([Envelope(*row) for row in message["rows"]])

    def _keep(self, memory: PageMemory, message: Message) -> str:
        jpeg = memory.take(message["place"], message["size"])
        if self._outputs.snapshots is None:
            raise SinkError("events.snapshots: no folder is configured")
        return self._outputs.snapshots.keep(message["id"], jpeg)


def _parts(envelopes: Sequence[Envelope]) -> Iterator[list[Envelope]]:
    """The events in parts that fit into a message."""
    part: list[Envelope] = []
    num_chars = 0
    for event in envelopes:
        # each may take three bytes
        if part and num_chars + len(event.body) > MAX_CHARS:
            yield part
            part, num_chars = [], 0
        part.append(event)
        num_chars += len(event.body)
    if part:
        yield part
