"""What other rules would have said, next to what was said: event by event."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.errors import ConfigError
from edge.events.schema import EnvelopeMaker, Place
from edge.trackers.settings import TrackerSettings
from edge.trackstore.evaluate import Found, evaluate, reported
from edge.trackstore.retrack import retracked

if TYPE_CHECKING:
    from edge.config.schema import StreamSettings
    from edge.trackstore.parts import Head
    from edge.trackstore.read import Reader

# events of one track at one part that are no further apart are the same crossing or visit, told at another time
SAME_NS = 5_000_000_000


@dataclass(slots=True)
class Difference:
    """Two sets of events of one stream.

    Attributes:
        same: how many are equal to the last bit.
        moved: pairs of then and now that tell the same at another time, or with other facts.
        gone: only said then. new: only said now.
        then, now: part and kind → how many.
    """

    same: int = 0
    moved: list[tuple[Found, Found]] = field(default_factory=list)
    gone: list[Found] = field(default_factory=list)
    new: list[Found] = field(default_factory=list)
    then: Counter[tuple[str, str]] = field(default_factory=Counter)
    now: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def is_none(self) -> bool:
        return not (self.moved or self.gone or self.new)


def tried(reader: Reader, stream: StreamSettings, span: tuple[int | None, int | None]) -> Difference:
    """What a stream's settings would have said of a time, next to what was said.

    Lines, zones and schedules read the stored tracks; where the score or the tracker is another than then, the
    stored candidates are followed again, which takes about a millisecond a frame.

    Raises:
        ConfigError: the settings cannot work in these frames. DataError: nothing is kept of the stream.
    """
    then = reported(reader.blocks(stream.name, *span, with_candidates=False))
    first = next(iter(reader.blocks(stream.name, *span, with_candidates=False)), None)
    tracker = None if first is None else other_tracker(first[0], stream)
    blocks = reader.blocks(stream.name, *span, with_candidates=tracker is not None)
    return compare(then, evaluate(blocks if tracker is None else retracked(blocks, tracker), stream.analytics))


def other_tracker(head: Head, stream: StreamSettings) -> TrackerSettings | None:
    """The tracker's settings where they are not those that made the stored tracks; None where they are.

    Raises:
        ConfigError: another way to follow than ours, which keeps no such settings.
    """
    if stream.track.method != head.config.get("track", {}).get("method", "edge"):
        raise ConfigError(f"streams.{stream.name}.track.method: only rules and scores can be tried on stored tracks")
    if stream.track.method != "edge":
        return None
    known = head.thresholds
    score = known["model_score"] if stream.score is None else stream.score
    wanted = TrackerSettings.for_scores(score, known["model_track_score"])
    is_same = (wanted.score_low, wanted.score_high, wanted.score_new) == (known["low"], known["high"], known["new"])
    return None if is_same else wanted


def compare(then: Iterable[Found], now: Iterable[Found]) -> Difference:
    """Go through both at once; only what differs is kept in memory.

    Args:
        then: what was said. now: what is said; both in the order of their frames.
    """
    found = Difference()
    open_then: dict[Any, list[Found]] = {}
    open_now: dict[Any, list[Found]] = {}
    both = heapq.merge(((one, False) for one in then), ((one, True) for one in now), key=lambda pair: pair[0].wall_ns)
    for one, is_now in both:
        (found.now if is_now else found.then)[(one.part, one.event.kind)] += 1
        mine, others = (open_now, open_then) if is_now else (open_then, open_now)
        if others.get(one.key):
            others[one.key].pop()
            found.same += 1
            if not others[one.key]:
                del others[one.key]
        else:
            mine.setdefault(one.key, []).append(one)
    gone = [one for group in open_then.values() for one in group]
    new = [one for group in open_now.values() for one in group]
    _pair(found, gone, new)
    return found


def _pair(found: Difference, gone: list[Found], new: list[Found]) -> None:
    waiting: dict[Any, list[Found]] = defaultdict(list)
    for one in new:
        waiting[_alike(one)].append(one)
    for one in gone:
        near = [other for other in waiting[_alike(one)] if abs(other.wall_ns - one.wall_ns) <= SAME_NS]
        if near:
            other = min(near, key=lambda candidate: abs(candidate.wall_ns - one.wall_ns))
            waiting[_alike(one)].remove(other)
            found.moved.append((one, other))
        else:
            found.gone.append(one)
    found.new = sorted((one for group in waiting.values() for one in group), key=lambda one: one.wall_ns)


def _alike(one: Found) -> tuple[Any, ...]:
    event = one.event
    return one.run, event.kind, event.track_id, one.part, event.data.get("direction")


def as_dict(one: Found) -> Mapping[str, Any]:
    """An event for people and programs: with the id that it had, or would have had, and the picture's name."""
    from edge.trackstore.times import iso

    return {
        "id": id_of(one),
        "kind": one.event.kind,
        "stream": one.event.stream,
        "time": iso(one.wall_ns),
        "epoch": one.epoch,
        "seq": one.seq,
        "track_id": one.event.track_id,
        "data": dict(one.event.data),
    }


def difference_as_dict(one: Difference) -> dict[str, Any]:
    """All of a difference for programs: ``same``, ``counts`` then and now, ``gone``, ``new`` and ``moved`` events."""
    counts = [
        {"part": part, "kind": kind, "then": one.then[part, kind], "now": one.now[part, kind]}
        for part, kind in sorted({*one.then, *one.now})
    ]
    return {
        "same": one.same,
        "counts": counts,
        "gone": [as_dict(event) for event in one.gone],
        "new": [as_dict(event) for event in one.new],
        "moved": [{"then": as_dict(then), "now": as_dict(now)} for then, now in one.moved],
    }


def id_of(one: Found) -> str:
    """The event's id outside of the pipeline, see ``EnvelopeMaker.id_of``."""
    place = Place(one.epoch, one.seq, 0, None)
    return EnvelopeMaker(run=one.run).id_of(one.event, place, one.ordinal)
