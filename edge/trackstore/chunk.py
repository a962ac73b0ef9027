"""Stored frames made ready for rules: which tracks were seen, lost and forgotten when, and what counted for whom.

F frames, N rows, K lines and zones. A row is a sighting of a track; the first row of a track that was known before
these frames is its last one from there (``is_ghost``), so that ways and gaps have a beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edge.analytics.analytics import SCHEDULE_NS, SWEEP_NS
from edge.analytics.schedule import utc
from edge.analytics.state import MAX_VOTES, NEVER
from edge.trackstore.block import Block, Sightings
from edge.types import Tracks

if TYPE_CHECKING:
    from edge.analytics.analytics import StreamAnalytics
    from edge.types import Array, Bool, Int32, Int64


class Action(NamedTuple):
    """What happens to a remembered track between two sightings: a schedule changes, or it is lost."""

    frame: int
    is_loss: bool


@dataclass(slots=True)
class Held:
    """The class that a track counts as, see ``edge.analytics.state.vote``."""

    class_id: int
    votes: int


@dataclass(slots=True)
class Clockwork:
    """What goes by time alone, over all frames so far: sweeps and schedules."""

    last_ns: int = NEVER
    next_sweep_ns: int = NEVER
    next_schedule_ns: int = NEVER
    active: Bool | None = None


@dataclass(slots=True)
class Memory:
    """What is remembered from one chunk to the next: the last sightings of tracks, and what they counted as."""

    ghosts: Sightings | None = None
    ghost_ns: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    ghost_lost: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))
    held: dict[int, Held] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frames:
    """(F,) the frames that count: those that are not later than the one before are left out.

    Attributes:
        time_ns, captured_ns, epoch, seq: of each. wall_ns: when each was captured.
        is_sweep: whether what is measured in seconds is looked at.
        active: (F, K) whether the schedules let each part count. refreshed: numbers of the frames where that changed.
    """

    time_ns: Int64
    captured_ns: Int64
    wall_ns: Int64
    epoch: Int64
    seq: Int64
    is_sweep: Bool
    active: Bool
    refreshed: list[int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Frames and the rows of their tracks, by id and frame.

    Attributes:
        rows: (N,) with ghosts. time_ns: (N,). is_ghost: (N,). starts: first row of each track, and N.
        is_new: (N,) the track begins here, or was forgotten before.
        actions: row → what happened before it; ``ends``: number of the track → what happened after its last row.
        class_id: (N,) what each counts as. passes: (N, K) whether that may count; wanted: and the schedule lets it.
    """

    frames: Frames
    rows: Sightings
    time_ns: Int64
    is_ghost: Bool
    starts: Int64
    is_new: Bool
    actions: dict[int, list[Action]]
    ends: dict[int, list[Action]]
    class_id: Int32
    passes: Bool
    wanted: Bool

    @property
    def tracks(self) -> Tracks:
        """The rows as tracks, for the anchors."""
        rows, nothing = self.rows, np.zeros(len(self.rows), np.float32)
        order = np.zeros(len(rows), np.int32)
        return Tracks(rows.track_id, rows.xyxy, rows.score, rows.class_id, nothing, rows.velocity, order)


def frames_of(blocks: Sequence[Block], clock: Clockwork, analytics: StreamAnalytics) -> tuple[Frames, Int64]:
    """The frames that count, and their numbers among all frames of the blocks."""
    time_ns = np.concatenate([block.time_ns for block in blocks])
    before = np.maximum.accumulate(np.concatenate([[clock.last_ns], time_ns]))[:-1]
    index = np.flatnonzero((time_ns > before) | (before == NEVER))
    time_ns = time_ns[index]
    captured, epoch, seq = (
        np.concatenate([getattr(block, name) for block in blocks])[index] for name in ("captured_ns", "epoch", "seq")
    )
    wall_ns = np.concatenate([block.captured_ns + int(block.notes["wall_offset_ns"]) for block in blocks])[index]
    if len(time_ns):
        clock.last_ns = int(time_ns[-1])
    due = _due(time_ns, clock.next_sweep_ns, SWEEP_NS)
    is_sweep = np.zeros(len(index), np.bool_)
    is_sweep[due] = True
    if due:
        clock.next_sweep_ns = int(time_ns[due[-1]]) + SWEEP_NS
    active, refreshed = _active(time_ns, wall_ns, clock, analytics)
    return Frames(time_ns, captured, wall_ns, epoch, seq, is_sweep, active, refreshed), index


def _due(time_ns: Int64, next_ns: int, step_ns: int) -> list[int]:
    """Numbers of the frames at which something is due that is done at most once in ``step_ns``."""
    found = []
    for number, now_ns in enumerate(time_ns.tolist()):
        if now_ns >= next_ns:
            found.append(number)
            next_ns = now_ns + step_ns
    return found


def _active(time_ns: Int64, wall_ns: Int64, clock: Clockwork, analytics: StreamAnalytics) -> tuple[Bool, list[int]]:
    schedules = analytics.schedules
    last = np.ones(len(schedules), np.bool_) if clock.active is None else clock.active
    active, refreshed = np.broadcast_to(last, (len(time_ns), len(schedules))), []
    if analytics.has_schedules:
        active = active.copy()
        due = _due(time_ns, clock.next_schedule_ns, SCHEDULE_NS)
        for number in due:
            now = utc(int(wall_ns[number]))
            found = np.array([schedule.is_on(now) for schedule in schedules], np.bool_)
            if (found != last).any():
                refreshed.append(number)
                active[number:] = last = found
        if due:
            clock.next_schedule_ns = int(time_ns[due[-1]]) + SCHEDULE_NS
    clock.active = last
    return active, refreshed


def chunk_of(
    blocks: Sequence[Block], frames: Frames, index: Int64, memory: Memory, analytics: StreamAnalytics
) -> Chunk:
    """Put the rows of the frames behind those that are remembered."""
    rows = _joined_rows(blocks, frames, index)
    num_ghosts = 0
    row_ns = frames.time_ns[rows.frame]
    if memory.ghosts is not None:
        num_ghosts = len(memory.ghosts)
        rows = _both(memory.ghosts, rows)
        row_ns = np.concatenate([memory.ghost_ns, row_ns])
    order = np.lexsort((rows.frame, rows.track_id))
    is_ghost, rows, row_ns = order < num_ghosts, rows[order], row_ns[order]
    was_lost = np.zeros(len(rows), np.bool_)
    if num_ghosts:
        was_lost[is_ghost] = memory.ghost_lost[order[is_ghost]]
    starts = np.flatnonzero(np.diff(rows.track_id, prepend=-1, append=-2) != 0)
    is_new, actions, ends = _gaps(frames, rows.frame, row_ns, (starts, is_ghost, was_lost), analytics)
    class_id = _held(rows, starts, (is_ghost, is_new), memory)
    passes = analytics.filters.passes(class_id)
    wanted = passes & frames.active[np.maximum(rows.frame, 0)] if len(frames.time_ns) else passes
    return Chunk(frames, rows, row_ns, is_ghost, starts, is_new, actions, ends, class_id, passes, wanted)


def _joined_rows(blocks: Sequence[Block], frames: Frames, index: Int64) -> Sightings:
    """The usable rows of the frames that count, numbered by these."""
    counts = [len(block.time_ns) for block in blocks]
    offsets = np.cumsum(counts) - counts
    number = np.full(sum(counts), -1, np.int64)
    number[index] = np.arange(len(index))
    parts = [block.sightings for block in blocks]
    names = ("track_id", "class_id", "score", "xyxy", "velocity", "points")
    frame = np.concatenate([part.frame + offset for part, offset in zip(parts, offsets, strict=True)])
    rows = Sightings(number[frame], *(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    box = rows.xyxy
    rows = rows[(rows.frame >= 0) & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])]
    if len(rows) == 0:
        return rows
    # ids differ within a frame: the first counts
    key = np.lexsort((rows.frame, rows.track_id))
    rows = rows[key]
    is_first = (np.diff(rows.track_id, prepend=-1) != 0) | (np.diff(rows.frame, prepend=-1) != 0)
    return rows[is_first]


def _both(one: Sightings, other: Sightings) -> Sightings:
    return Sightings(*(np.concatenate([getattr(one, n), getattr(other, n)]) for n in Sightings.__slots__))


def _gaps(
    frames: Frames, frame: Int64, row_ns: Int64, of_rows: tuple[Int64, Bool, Bool], analytics: StreamAnalytics
) -> tuple[Bool, dict[int, list[Action]], dict[int, list[Action]]]:
    """Where tracks begin, and what happens before each row and after the last one of each track."""
    starts, is_ghost, was_lost = of_rows
    sweeps = np.flatnonzero(frames.is_sweep)
    sweep_ns = frames.time_ns[sweeps]
    count, far = len(frame), len(frames.time_ns)
    padded = np.append(sweeps, far)
    lost_at = padded[np.searchsorted(sweep_ns, row_ns + analytics.lost_ns, side="right")]
    gone_at = padded[np.searchsorted(sweep_ns, row_ns + analytics.forget_ns, side="right")]
    lost_at[was_lost] = far
    is_new = np.zeros(count, np.bool_)
    is_new[starts[:-1]] = ~is_ghost[starts[:-1]]
    following = np.append(frame[1:], far)
    following[starts[1:] - 1] = far
    is_last = np.zeros(count, np.bool_)
    is_last[starts[1:] - 1] = True
    # a track that was lost goes on where it comes back in time
    is_new[1:] |= ~is_last[:-1] & (gone_at[:-1] <= following[:-1])
    is_lost = lost_at <= np.where(is_last, far - 1, following)
    actions: dict[int, list[Action]] = {}
    ends: dict[int, list[Action]] = {}
    track = np.cumsum(np.isin(np.arange(count), starts[:-1])) - 1
    refreshed = np.array(frames.refreshed, np.int64)
    touched = is_lost.copy()
    if len(refreshed):
        touched |= np.searchsorted(refreshed, frame, side="right") < np.searchsorted(refreshed, following, side="right")
    for row in np.flatnonzero(touched).tolist():
        until = int(lost_at[row]) if is_lost[row] else far
        found = [Action(int(at), False) for at in refreshed if frame[row] < at <= min(following[row], until)]
        found = [] if was_lost[row] else found
        found += [Action(until, True)] if is_lost[row] else []
        if is_last[row]:
            ends[int(track[row])] = found
        else:
            actions[row + 1] = found
    return is_new, actions, ends


def _held(rows: Sightings, starts: Int64, kinds: tuple[Bool, Bool], memory: Memory) -> Int32:
    """(N,) what each track counts as in each row; brings the votes up to date."""
    is_ghost, is_new = kinds
    found: Int32 = rows.class_id.copy()
    if len(rows) == 0:
        return found
    lowest, highest = (np.minimum.reduceat(rows.class_id, starts[:-1]), np.maximum.reduceat(rows.class_id, starts[:-1]))
    counts = np.diff(starts)
    ids, firsts = rows.track_id[starts[:-1]].tolist(), starts[:-1].tolist()
    for number, track_id in enumerate(ids):
        first, last = firsts[number], firsts[number] + int(counts[number])
        held = memory.held.get(track_id)
        is_plain = lowest[number] == highest[number] and (held is None or held.class_id == lowest[number])
        if is_plain and not is_new[first + 1 : last].any():
            votes = (held.votes if held is not None else 0) + last - first - int(is_ghost[first])
            memory.held[track_id] = Held(int(lowest[number]), min(votes, MAX_VOTES))
        else:
            _vote(found, (first, last), kinds, memory.held, track_id)
    return found


def _vote(found: Int32, span: tuple[int, int], kinds: tuple[Bool, Bool], held: dict[int, Held], track_id: int) -> None:
    is_ghost, is_new = kinds
    for row in range(*span):
        if is_ghost[row]:
            found[row] = held[track_id].class_id
            continue
        now = int(found[row])
        if is_new[row]:
            held[track_id] = Held(now, 0)
        one = held[track_id]
        votes = min(one.votes + (1 if one.class_id == now else -1), MAX_VOTES)
        held[track_id] = Held(now, 1) if votes < 0 else Held(one.class_id, votes)
        found[row] = held[track_id].class_id


def remember(chunk: Chunk, memory: Memory, analytics: StreamAnalytics) -> None:
    """Keep the last row of every track that is not forgotten yet."""
    last = chunk.starts[1:] - 1
    frames = chunk.frames
    end_ns = int(frames.time_ns[np.flatnonzero(frames.is_sweep)[-1]]) if frames.is_sweep.any() else NEVER
    is_kept = end_ns - chunk.time_ns[last] <= analytics.forget_ns if end_ns != NEVER else np.ones(len(last), np.bool_)
    is_lost = np.zeros(len(last), np.bool_)
    if memory.ghosts is not None:
        # what was lost before and was not seen since is still lost
        alone = np.flatnonzero(np.diff(chunk.starts) == 1)
        alone = alone[chunk.is_ghost[chunk.starts[alone]]]
        known = dict(zip(memory.ghosts.track_id.tolist(), memory.ghost_lost.tolist(), strict=True))
        is_lost[alone] = [known[track_id] for track_id in chunk.rows.track_id[last[alone]].tolist()]
    for number, actions in chunk.ends.items():
        is_lost[number] |= any(action.is_loss for action in actions)
    rows = chunk.rows[last[is_kept]]
    memory.ghosts = Sightings(np.full(len(rows), -1, np.int64), *(getattr(rows, n) for n in Sightings.__slots__[1:]))
    memory.ghost_ns, memory.ghost_lost = chunk.time_ns[last[is_kept]], is_lost[is_kept]
    memory.held = {track_id: memory.held[track_id] for track_id in rows.track_id.tolist()}


def points_of(chunk: Chunk, names: Sequence[str], stored: Sequence[str], of_box: Array) -> Array:
    """(N, K, 2) anchors: those of the box, and in place of those that only the model gives, what was stored."""
    for column, name in enumerate(names):
        if name in stored:
            of_box[:, column] = chunk.rows.points[:, stored.index(name)]
    return of_box
