"""Which events become one message: those of a place that come within a few seconds, or while the place cools down.

A place is a stream with the streams that see the same. No clock is read and nothing is kept here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.config.events import NotifySettings
    from edge.events.stored import StoredEvent

# of one message; what waits beyond that is told in the next
MAX_EVENTS = 10_000


@dataclass(slots=True)
class _Place:
    """Events that wait: id, stream and kind; since when the first of them does, and when the last message left."""

    events: list[tuple[str, str, str]] = field(default_factory=list)
    since_s: float = 0.0
    told_s: float = float("-inf")


class Joiner:
    """Sorts events into places and says which of them are due. Times are of one monotonic clock, in seconds.

    Args:
        settings: which events are told, and when.
        is_snoozed: whether nothing is told now of a stream's events of a kind.
    """

    def __init__(
        self, settings: NotifySettings, is_snoozed: Callable[[str, str], bool] = lambda stream, kind: False
    ) -> None:
        self._settings = settings
        self._is_snoozed = is_snoozed
        self._place_of = {stream: place[0] for place in settings.neighbours for stream in place if place}
        self._places: dict[str, _Place] = {}

    def add(self, event: StoredEvent, now_s: float) -> bool:
        """Let an event wait for its message; False where nobody wants to be told of it."""
        if not self._is_wanted(event):
            return False
        place = self._places.setdefault(self._place_of.get(event.stream, event.stream), _Place())
        if not place.events:
            place.since_s = now_s
        place.events.append((event.id, event.stream, event.kind))
        return True

    def due(self, now_s: float) -> Iterator[list[str]]:
        """The events of each place that are a message now, in their order."""
        for place in self._places.values():
            ready_s = max(place.since_s + self._settings.join_s, place.told_s + self._settings.cool_down_s)
            if place.events and now_s >= ready_s:
                yield [event_id for event_id, _, _ in place.events[:MAX_EVENTS]]

    def snoozed(self) -> list[str]:
        """The events that wait, and that nobody wants to be told of any more."""
        waiting = [event for place in self._places.values() for event in place.events]
        return [event_id for event_id, stream, kind in waiting if self._is_snoozed(stream, kind)]

    def drop(self, ids: list[str]) -> None:
        """These are done with."""
        gone = set(ids)
        for place in self._places.values():
            place.events = [event for event in place.events if event[0] not in gone]

    def claimed(self, ids: list[str], now_s: float) -> None:
        """These are a message now; their place cools down."""
        for place in self._places.values():
            if [event[0] for event in place.events[: len(ids)]] == ids:
                del place.events[: len(ids)]
                place.told_s = now_s

    def forget(self) -> None:
        """Nothing waits any more: it will be added again."""
        for place in self._places.values():
            place.events.clear()

    def _is_wanted(self, event: StoredEvent) -> bool:
        wanted = self._settings
        if wanted.streams and event.stream not in wanted.streams:
            return False
        if wanted.kinds and event.kind not in wanted.kinds:
            return False
        if self._is_snoozed(event.stream, event.kind):
            return False
        name = data_of(event).get("class") if wanted.classes else None
        return name is None or name in wanted.classes


def facts_of(event: StoredEvent) -> Mapping[str, Any]:
    """The event as JSON values; empty where its text was damaged."""
    try:
        facts = json.loads(event.body)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def data_of(event: StoredEvent) -> Mapping[str, Any]:
    """What the event's kind says of it."""
    data = facts_of(event).get("data")
    return data if isinstance(data, dict) else {}
