"""A message to a person about several events: a title, a line for each thing that was seen, and a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edge.addresses.printable import one_line
from edge.events.joining import data_of, facts_of

if TYPE_CHECKING:
    from edge.events.stored import StoredEvent

MAX_LINES = 20
MAX_LINE_CHARS = 200
MAX_TIME_CHARS = 40
# of an event's data: where it happened
PLACES = ("line", "zone", "name")


@dataclass(frozen=True, slots=True)
class Message:
    """What a person gets. ``id`` is the same whenever the message is delivered again.

    Attributes:
        picture: a JPEG file, which may be gone.
        stream, time: where and when (ISO 8601) it began; empty where that is not known.
        happened: stream and kind of what happened, each once.
    """

    id: str
    title: str
    body: str
    picture: Path | None = None
    stream: str = ""
    time: str = ""
    happened: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class _Thing:
    """A track, or a stream as such, with what happened to it."""

    words: str
    time: str
    happened: Counter[str] = field(default_factory=Counter)


def compose(message_id: str, events: Sequence[StoredEvent]) -> Message:
    """The message about these events, oldest first; equal events give an equal message."""
    things: dict[tuple[str, str], _Thing] = {}
    picture: Path | None = None
    for event in events:
        facts = facts_of(event)
        track_id = facts.get("track_id")
        key = (event.stream, str(track_id))
        thing = things.setdefault(key, _Thing(_words(event, track_id), _time(facts.get("time"))))
        thing.happened[_happened(event)] += 1
        picture = picture or _picture(facts.get("links"))
    lines = [_line(thing) for thing in things.values()]
    num_told = sum(sum(thing.happened.values()) for thing in list(things.values())[:MAX_LINES])
    if num_told < len(events):
        lines = [*lines[:MAX_LINES], f"and {len(events) - num_told} more events"]
    first = str(facts_of(events[0]).get("time") or "")[:MAX_TIME_CHARS] if events else ""
    return Message(
        message_id,
        _title(events),
        "\n".join(lines),
        picture,
        events[0].stream if events else "",
        first,
        tuple(dict.fromkeys((event.stream, event.kind) for event in events)),
    )


def _title(events: Sequence[StoredEvent]) -> str:
    streams = ", ".join(dict.fromkeys(event.stream for event in events)) or "gone"
    if len(events) == 1:
        return f"{streams}: {_happened(events[0])}"[:MAX_LINE_CHARS]
    return f"{streams}: {len(events)} events"


def _line(thing: _Thing) -> str:
    happened = ", ".join(words if count == 1 else f"{words} ×{count}" for words, count in thing.happened.items())
    return f"{thing.time} {thing.words}: {happened}"[:MAX_LINE_CHARS].lstrip()


def _words(event: StoredEvent, track_id: object) -> str:
    name = data_of(event).get("class")
    object_words = "" if track_id is None else f" {name or 'object'} {track_id}"
    return one_line(f"{event.stream}{object_words}")


def _happened(event: StoredEvent) -> str:
    data = data_of(event)
    where = next((f" {data[key]}" for key in PLACES if isinstance(data.get(key), str)), "")
    return one_line(f"{event.kind.replace('_', ' ')}{where}")


def _time(text: object) -> str:
    """The local time of day of an ISO 8601 time."""
    try:
        return f"{datetime.fromisoformat(str(text).replace('Z', '+00:00')).astimezone():%H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return ""


def _picture(links: object) -> Path | None:
    path = links.get("snapshot") if isinstance(links, dict) else None
    return Path(path) if isinstance(path, str) and path else None
