"""The one form that every event has outside of the pipeline; ``event.schema.json`` describes it for others."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.metrics.clock import WallClock
from edge.types import Event, Frame

SCHEMA_NUMBER = 1
# made once for this purpose; a namespace of RFC 9562, section 6.6
NAMESPACE = uuid.UUID("6d0a2c58-6f2b-5a0e-9d57-3b6f0f6c1e77")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which model saw it. ``sha256`` is that of the model file, empty where it is not known."""

    name: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event with all that a receiver needs to place it.

    Attributes:
        id: stays the same however often the event is delivered.
        body: the JSON text that every target gets.
    """

    id: str
    kind: str
    stream: str
    time_ns: int
    body: str


@dataclass(frozen=True, slots=True)
class Place:
    """The frame an event was seen in, without its picture; see ``edge.types.Frame``."""

    epoch: int
    seq: int
    captured_ns: int
    pts_ns: int | None

    @classmethod
    def of(cls, frame: Frame) -> Place:
        return cls(frame.epoch, frame.seq, frame.captured_ns, frame.pts_ns)


@dataclass(slots=True)
class EnvelopeMaker:
    """Makes envelopes.

    Attributes:
        run: tells runs apart, because frames are counted from zero in each of them.
        clock: turns capture times into UTC.
    """

    run: str
    clock: WallClock = field(default_factory=WallClock)

    def id_of(self, event: Event, place: Place | None, ordinal: int) -> str:
        """UUID version 5 of where and what: equal for equal arguments of one run."""
        where = (None, None) if place is None else (place.epoch, place.seq)
        parts = (self.run, event.stream, *where, event.kind, event.track_id, event.time_ns, ordinal)
        return str(uuid.uuid5(NAMESPACE, json.dumps(parts)))

    def make(
        self, event: Event, place: Place | None, ordinal: int, model: ModelFacts | None, links: Mapping[str, str]
    ) -> Envelope:
        """One envelope.

        Args:
            event: what happened.
            place: in which frame; None for an event of the stream (camera offline), whose time is monotonic.
            ordinal: its number among the events of that frame, or among all events of the stream.
            model: what saw it.
            links: ``snapshot`` and ``clip``, where there are such files.
        """
        when_ns = event.time_ns if place is None else place.captured_ns
        is_file = place is not None and place.pts_ns is not None
        body = {
            "schema": SCHEMA_NUMBER,
            "id": self.id_of(event, place, ordinal),
            "kind": event.kind,
            "stream": event.stream,
            "time": self.clock.iso(when_ns),
            "epoch": None if place is None else place.epoch,
            "seq": None if place is None else place.seq,
            "media_s": round((place.pts_ns or 0) / 1e9, 3) if place is not None and is_file else None,
            "track_id": event.track_id,
            "data": dict(event.data),
            "model": None if model is None else {"name": model.name, "sha256": model.sha256},
            "links": dict(links),
        }
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        return Envelope(str(body["id"]), event.kind, event.stream, when_ns + self.clock.offset_ns, text)
