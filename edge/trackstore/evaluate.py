"""The time machine for rules: lines, zones and schedules over stored tracks, a chunk of frames at a time.

The same numbers go through the same rules as in ``StreamAnalytics``, whole columns at once instead of frame by frame:
a week of a camera takes seconds, and without a change in the rules the events are the live ones, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.analytics.analytics import CLOCK_RESTART_NS, StreamAnalytics
from edge.analytics.anchors import MASK_FOOT
from edge.analytics.state import NEVER, row_dtype
from edge.analytics.zones import FAR_NS
from edge.trackstore.block import Block, Sightings, is_away
from edge.trackstore.chunk import Chunk, Clockwork, Memory, chunk_of, frames_of, remember
from edge.trackstore.line_rules import LineRules
from edge.trackstore.told import CROSSED, LOST_CROSSED, NOBODY, RESTART_CROSSED, RESTART_LEFT, Told
from edge.trackstore.zone_rules import ZoneRules
from edge.types import Event

if TYPE_CHECKING:
    from edge.analytics.anchors import Anchors
    from edge.config.analytics import AnalyticsSettings
    from edge.trackstore.parts import Head
    from edge.types import Array, Float32, Tracks

# so many frames are evaluated at once
CHUNK_FRAMES = 6000
LINE_PHASES = (CROSSED, LOST_CROSSED, RESTART_CROSSED)


@dataclass(frozen=True, slots=True)
class Found:
    """An event of the past.

    Attributes:
        wall_ns: when its frame was captured. epoch, seq: of the frame. ordinal: its number among the frame's events.
        run: of the program, which with the others makes the event's id.
    """

    event: Event
    wall_ns: int
    epoch: int
    seq: int
    ordinal: int
    run: str

    @property
    def part(self) -> str:
        """The name of the line or zone that it is about."""
        return str(self.event.data.get("line") or self.event.data.get("zone") or "")

    @property
    def key(self) -> tuple[Any, ...]:
        """What is equal in events that are the same to the last bit."""
        event = self.event
        return (self.run, self.epoch, self.seq, event.kind, event.time_ns, event.track_id, repr(dict(event.data)))


def evaluate(blocks: Iterable[tuple[Head, Block]], settings: AnalyticsSettings) -> Iterator[Found]:
    """What these settings say of stored blocks that follow each other, as in ``Reader.blocks``.

    Raises:
        ConfigError: the settings cannot work in these frames: classes, geometry, anchors that were not kept.
    """
    evaluator: Evaluator | None = None
    waiting: list[Block] = []
    for head, stored in blocks:
        block = at_home(stored)
        if len(block.time_ns) == 0:
            continue
        if evaluator is None or evaluator.head != head:
            if evaluator is not None:
                yield from evaluator.take(waiting)
            waiting, evaluator = [], Evaluator(settings, head)
        waiting.append(block)
        if sum(len(one.time_ns) for one in waiting) >= CHUNK_FRAMES:
            yield from evaluator.take(waiting)
            waiting = []
    if evaluator is not None:
        yield from evaluator.take(waiting)


def reported(blocks: Iterable[tuple[Head, Block]]) -> Iterator[Found]:
    """What was said then, as it is stored."""
    for head, block in blocks:
        offset_ns, last, ordinal = int(block.notes["wall_offset_ns"]), -1, 0
        for number, kind, track_id, data in block.notes["events"]:
            ordinal = ordinal + 1 if number == last else 0
            last = number
            event = Event(kind, head.stream, int(block.time_ns[number]), track_id, data)
            wall_ns = int(block.captured_ns[number]) + offset_ns
            yield Found(event, wall_ns, int(block.epoch[number]), int(block.seq[number]), ordinal, head.run)


class Evaluator:
    """The rules of one stream, in frames of one size."""

    def __init__(self, settings: AnalyticsSettings, head: Head) -> None:
        """Raises: ConfigError: the settings cannot work in these frames."""
        self.head = head
        self.analytics = StreamAnalytics(
            settings,
            stream=head.stream,
            classes=head.classes,
            width=head.width,
            height=head.height,
            model_anchors=head.anchors,
        )
        lines, zones = [part.anchor for part in settings.lines], [part.anchor for part in settings.zones]
        self._lines = LineRules(self.analytics.lines, lines, head.anchors)
        self._zones = ZoneRules(self.analytics.zones, len(lines), zones, head.anchors)
        self._clock, self._memory = Clockwork(), Memory()
        self._labels: dict[int, list[tuple[str, float]]] = {}
        kept = (self.analytics.lines.anchors, self.analytics.zones.anchors)
        points = [anchors.field for anchors in kept if anchors.has_own]
        self._dtype = row_dtype(len(lines), len(zones), points)

    def take(self, blocks: Sequence[Block]) -> Iterator[Found]:
        """The events of the blocks, which follow those of the last call."""
        for group, restarts in _by_clock(blocks, self._clock.last_ns):
            if restarts:
                yield from self._restart(group[0])
            yield from self._take(group)

    def chunk(self, blocks: Sequence[Block]) -> Chunk | None:
        """The blocks made ready for rules; None where no frame of them counts."""
        frames, index = frames_of(blocks, self._clock, self.analytics)
        return chunk_of(blocks, frames, index, self._memory, self.analytics) if len(index) else None

    def _take(self, blocks: Sequence[Block]) -> Iterator[Found]:
        chunk = self.chunk(blocks) if blocks else None
        if chunk is None:
            for _, track_id, names in _label_changes(blocks):
                self._label(track_id, names)
            return
        told = self._lines.take(chunk) + self._zones.take(chunk)
        remember(chunk, self._memory, self.analytics)
        yield from self._events(chunk, told, blocks)

    def _restart(self, block: Block) -> Iterator[Found]:
        """The clock began again: all tracks are lost at the first frame after that."""
        rows = self._memory.ghosts
        if rows is not None and len(rows):
            first = _first_frame(block)
            chunk = self._lost_chunk(first, rows)
            told = self._lines.take(chunk) + [one for one in self._zones.take(chunk) if one.row != NOBODY]
            moved = {LOST_CROSSED: RESTART_CROSSED}
            told = [replace(one, phase=moved.get(one.phase, RESTART_LEFT)) for one in told]
            yield from self._events(chunk, told, [first])
        self._memory, active = Memory(), self._clock.active
        self._clock = Clockwork(active=active)
        self._lines.known.clear()
        self._zones.known.clear()
        for crowd in self._zones.crowds:
            crowd.pending_ns = NEVER

    def _lost_chunk(self, first: Block, rows: Sightings) -> Chunk:
        # the schedules stand as they stood before
        clock = Clockwork(active=self._clock.active, next_schedule_ns=FAR_NS)
        frames, index = frames_of([first], clock, self.analytics)
        memory = replace(self._memory, ghost_ns=np.full(len(rows), NEVER // 2, np.int64))
        chunk = chunk_of([first], frames, index, memory, self.analytics)
        chunk.time_ns[chunk.is_ghost] = self._memory.ghost_ns[np.argsort(rows.track_id, kind="stable")]
        return chunk

    def _events(self, chunk: Chunk, told: list[Told], blocks: Sequence[Block]) -> Iterator[Found]:
        """The events with their facts, in the order in which they would have come."""
        ids = chunk.rows.track_id
        order = sorted(told, key=lambda one: (one.frame, one.phase, ids[one.row] if one.row >= 0 else -1, one.part))
        frames, labels, facts = chunk.frames, _label_changes(blocks), self._facts(chunk, order)
        last, ordinal, at = -1, 0, 0
        for one, known in zip(order, facts, strict=True):
            place = int(frames.captured_ns[one.frame])
            while at < len(labels) and labels[at][0] <= place:
                self._label(*labels[at][1:])
                at += 1
            ordinal = ordinal + 1 if one.frame == last else 0
            last = one.frame
            place_of = int(frames.wall_ns[last]), int(frames.epoch[last]), int(frames.seq[last]), ordinal
            yield Found(self._event(chunk, one, known), *place_of, self.head.run)
        for _, track_id, names in labels[at:]:
            self._label(track_id, names)

    def _label(self, track_id: int, names: list[tuple[str, float]]) -> None:
        self._labels[track_id] = names
        if not names:
            del self._labels[track_id]

    def _event(self, chunk: Chunk, one: Told, facts: Mapping[str, Any]) -> Event:
        time_ns, is_line = int(chunk.frames.time_ns[one.frame]), one.phase in LINE_PHASES
        part = self.analytics.lines if is_line else self.analytics.zones
        data = {"line" if is_line else "zone": part.names[one.part], **one.data, **facts}
        track_id = None if one.row == NOBODY else int(chunk.rows.track_id[one.row])
        names = self._labels.get(track_id) if track_id is not None else None
        if names:
            data["labels"] = {name: round(score, 3) for name, score in names}
        return Event("line_crossed" if is_line else one.kind, self.head.stream, time_ns, track_id, data)

    def _facts(self, chunk: Chunk, told: Sequence[Told]) -> list[Mapping[str, Any]]:
        """What is known of the track of each, nothing where it is about a zone as a whole."""
        found: list[Mapping[str, Any]] = [{}] * len(told)
        for part, is_line in ((self.analytics.lines, True), (self.analytics.zones, False)):
            mine = [n for n, one in enumerate(told) if one.row != NOBODY and (one.phase in LINE_PHASES) == is_line]
            if not mine:
                continue
            rows = self._rows(chunk, np.array([told[n].row for n in mine]), part.anchors)
            facts = self.analytics.maker.facts(rows, part.anchors, [told[n].part for n in mine])
            for number, one in zip(mine, facts, strict=True):
                found[number] = one
        return found

    def _rows(self, chunk: Chunk, number: Any, anchors: Anchors) -> Array:
        """The rows as ``StreamAnalytics`` remembers them."""
        seen = chunk.rows[number]
        rows = np.zeros(len(seen), self._dtype)
        rows["id"], rows["class_id"] = seen.track_id, chunk.class_id[number]
        rows["xyxy"], rows["velocity"] = seen.xyxy, seen.velocity
        if anchors.has_own:
            one = replace(chunk, rows=seen)
            rows[anchors.field] = anchors.of(_with_points(one.tracks, seen.points, self.head.anchors))
        return rows


def _with_points(tracks: Tracks, points: Float32, names: Sequence[str]) -> Tracks:
    """The tracks with the stored anchors (N, A, 2) in their places: key points in order, and where masks stand."""
    feet = points[:, names.index(MASK_FOOT)] if MASK_FOOT in names else None
    keypoints = np.concatenate([points, np.ones((*points.shape[:2], 1), np.float32)], 2)
    return replace(tracks, keypoints=keypoints, feet=feet)


def _label_changes(blocks: Sequence[Block]) -> list[tuple[int, int, list[tuple[str, float]]]]:
    """Capture time, track and labels of every change."""
    return [
        (int(block.captured_ns[number]), track_id, [(str(name), float(score)) for name, score in names])
        for block in blocks
        for number, track_id, names in block.notes["labels"]
    ]


def _by_clock(blocks: Sequence[Block], last_ns: int) -> Iterator[tuple[list[Block], bool]]:
    """The blocks in groups within which time only steps back a little; the flag: a new clock begins with the group."""
    group: list[Block] = []
    restarts = False
    for block in blocks:
        rest = block
        while True:
            before = np.maximum.accumulate(np.concatenate([[last_ns], rest.time_ns]))[:-1]
            back = np.flatnonzero((before != NEVER) & (rest.time_ns < before - CLOCK_RESTART_NS))
            if len(back) == 0:
                break
            cut = int(back[0])
            if cut:
                group.append(_part(rest, 0, cut))
            if group or restarts:
                yield group, restarts
            group, restarts, last_ns = [], True, NEVER
            rest = _part(rest, cut, len(rest.time_ns))
        group.append(rest)
        last_ns = max(last_ns, int(rest.time_ns.max()))
    if group:
        yield group, restarts


def within(block: Block, since_ns: int, until_ns: int) -> Block:
    """The frames of a time, wall clock, the end exclusive; with all moments."""
    wall_ns = block.captured_ns + int(block.notes["wall_offset_ns"])
    start, end = np.searchsorted(np.maximum.accumulate(wall_ns), (since_ns, until_ns)).tolist()
    return block if (start, end) == (0, len(wall_ns)) else _part(block, start, end)


def at_home(block: Block) -> Block:
    """The frames that lines and zones saw: in those of a camera that was turned away they rested."""
    if not block.notes.get("away"):
        return block
    kept = ~is_away(block)
    number = np.cumsum(kept) - 1
    seen, others = block.sightings, block.candidates
    seen, others = seen[kept[seen.frame]], others[kept[others.frame]]
    notes: dict[str, Any] = {name: value for name, value in block.notes.items() if name != "away"}
    for name in ("events", "labels"):
        # what became known meanwhile is known in the last frame before
        notes[name] = [[max(0, int(number[one[0]])), *one[1:]] for one in notes[name]] if kept.any() else []
    times = [getattr(block, name)[kept] for name in ("time_ns", "captured_ns", "epoch", "seq", "age_ms")]
    rows = replace(seen, frame=number[seen.frame]), replace(others, frame=number[others.frame])
    return Block(times[0], times[1], times[2], times[3], times[4], *rows, notes)


def _part(block: Block, start: int, end: int) -> Block:
    """The frames from one number up to another."""
    seen, others = block.sightings, block.candidates
    seen = seen[(seen.frame >= start) & (seen.frame < end)]
    others = others[(others.frame >= start) & (others.frame < end)]
    notes: Mapping[str, Any] = {
        **block.notes,
        **{
            name: [[one[0] - start, *one[1:]] for one in block.notes[name] if start <= one[0] < end]
            for name in ("events", "labels")
        },
        "away": [
            [max(first, start) - start, min(first + count, end) - max(first, start)]
            for first, count in block.notes.get("away", ())
            if first < end and first + count > start
        ],
    }
    times = [getattr(block, name)[start:end] for name in ("time_ns", "captured_ns", "epoch", "seq", "age_ms")]
    rows = replace(seen, frame=seen.frame - start), replace(others, frame=others.frame - start)
    return Block(times[0], times[1], times[2], times[3], times[4], *rows, notes)


def _first_frame(block: Block) -> Block:
    """The first frame alone, in which nobody was seen."""
    first = _part(block, 0, 1)
    nobody, nothing = np.zeros(len(first.sightings), np.bool_), np.zeros(len(first.candidates), np.bool_)
    return replace(first, sightings=first.sightings[nobody], candidates=first.candidates[nothing])
