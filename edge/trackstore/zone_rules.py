"""Who is in which zone over a whole chunk at once, by the rules of ``edge.analytics.zones``. N rows, Z zones."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from edge.analytics.state import NEVER
from edge.analytics.zones import FAR_NS
from edge.trackstore.chunk import Chunk, points_of
from edge.trackstore.told import CROWDED, LOITERED, LOST_LEFT, MOVED, NOBODY, REFRESHED, STOPPED, Told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.analytics.zones import ZoneWatcher
    from edge.types import Array


@dataclass(slots=True)
class InZone:
    """What is known of one track and one zone, see ``edge.analytics.state.row_dtype``."""

    side: int = -1
    pending_ns: int = NEVER
    is_present: bool = False
    since_ns: int = NEVER
    has_loitered: bool = False
    is_stopped: bool = False
    still_ns: int = NEVER
    still_at: tuple[float, float] = (0.0, 0.0)


@dataclass(slots=True)
class Crowd:
    """How many are in a zone, and whether that is a crowd."""

    occupancy: int = 0
    side: int = -1
    pending_ns: int = NEVER


@dataclass(slots=True)
class ZoneRules:
    """The zones of one stream over chunks; ``first`` is the number of the first zone among all lines and zones."""

    watcher: ZoneWatcher
    first: int
    names: Sequence[str]
    stored: Sequence[str]
    known: list[dict[int, InZone]] = field(default_factory=list)
    crowds: list[Crowd] = field(default_factory=list)

    def take(self, chunk: Chunk) -> list[Told]:
        """What became certain in this chunk, in any order."""
        watcher, count = self.watcher, len(self.watcher.names)
        self.known = self.known or [{} for _ in range(count)]
        self.crowds = self.crowds or [Crowd() for _ in range(count)]
        found: list[Told] = []
        if count and len(chunk.rows):
            at = points_of(chunk, self.names, self.stored, watcher.anchors.of(chunk.tracks))
            sides = watcher.sides(at, chunk.rows.xyxy)
            for zone in range(count):
                _Zone(chunk, watcher, (zone, self.first), self.known[zone], found).run(sides[:, zone])
        for zone in range(count):
            found += self._crowd(chunk, zone, [told for told in found if told.part == zone])
        return found

    def _crowd(self, chunk: Chunk, zone: int, changes: Sequence[Told]) -> list[Told]:
        """Crowds by the occupancy after each frame."""
        crowd, frames = self.crowds[zone], chunk.frames
        steps = np.zeros(len(frames.time_ns) + 1, np.int64)
        for told in changes:
            steps[told.frame] += {"zone_entered": 1, "zone_left": -1}.get(told.kind, 0)
        occupancy = crowd.occupancy + np.cumsum(steps[:-1])
        if len(occupancy) == 0:
            return []
        crowd.occupancy = int(occupancy[-1])
        side = np.where(occupancy >= self.watcher.crowd_count[zone], 1, -1)
        found, row = [], 0
        while row < len(side):
            other = np.flatnonzero(side[row:] != crowd.side) if crowd.pending_ns == NEVER else np.zeros(1, np.int64)
            if len(other) == 0:
                break
            row += int(other[0])
            end = row + int(np.argmax(np.append(side[row:] == crowd.side, True)))
            if crowd.pending_ns == NEVER and row < end:
                crowd.pending_ns = int(frames.time_ns[row])
                row += 1
            due = crowd.pending_ns + int(self.watcher.crowd_ns[zone])
            row += int(np.searchsorted(frames.time_ns[row:end], due))
            if row >= end:
                # back before it was certain, unless the chunk ends here
                crowd.pending_ns = NEVER if end < len(side) else crowd.pending_ns
                row = end
                continue
            crowd.side, crowd.pending_ns = -crowd.side, NEVER
            if crowd.side > 0:
                found.append(Told(row, CROWDED, NOBODY, zone, "zone_crowded", {"occupancy": int(occupancy[row])}))
            row += 1
        return found


class _Zone:
    """One zone in one chunk."""

    def __init__(
        self, chunk: Chunk, watcher: ZoneWatcher, numbers: tuple[int, int], known: dict[int, InZone], found: list[Told]
    ) -> None:
        self._chunk, self._watcher, self._known, self._found = chunk, watcher, known, found
        self._zone, first = numbers
        self._part = self._zone + first
        self._settle_ns = int(watcher.settle_ns[self._zone])
        self._loiter_ns = int(watcher.loiter_ns[self._zone])
        self._wanted = chunk.wanted[:, self._part]
        self._sweeps = np.flatnonzero(chunk.frames.is_sweep[np.maximum(chunk.rows.frame, 0)] & ~chunk.is_ghost)
        self._sweep_ns = chunk.time_ns[self._sweeps]
        self._sweep_list = self._sweep_ns.tolist()
        self._stopped_ns = int(watcher.stopped_ns[self._zone])
        self._is_present = np.zeros(len(chunk.rows), np.bool_)

    def run(self, seen: Array) -> None:
        """Go through the stretches of rows in which a track stays on one side and counts or does not."""
        chunk = self._chunk
        is_cut = np.zeros(len(seen), np.bool_)
        is_cut[1:] = (seen[1:] != seen[:-1]) | (self._wanted[1:] != self._wanted[:-1]) | chunk.is_ghost[:-1]
        is_cut[chunk.starts[:-1]] = True
        is_cut |= chunk.is_new
        is_cut[list(chunk.actions)] = True
        cuts = np.flatnonzero(is_cut)
        ends = np.append(cuts[1:], len(seen)).tolist()
        number_of = (np.searchsorted(chunk.starts, cuts, side="right") - 1).tolist()
        ghosts, news = chunk.is_ghost[cuts].tolist(), chunk.is_new[cuts].tolist()
        ids, sides, wanted = chunk.rows.track_id[cuts].tolist(), seen[cuts].tolist(), self._wanted[cuts].tolist()
        last, state = -1, InZone()
        for at, (row, end) in enumerate(zip(cuts.tolist(), ends, strict=True)):
            if number_of[at] != last:
                self._act(state, chunk.ends.get(last, ()), row - 1)
                last = number_of[at]
                state = self._known.setdefault(ids[at], InZone())
            if ghosts[at]:
                continue
            self._act(state, chunk.actions.get(row, ()), row - 1)
            if news[at]:
                state = self._known[ids[at]] = InZone()
            self._stretch(state, (row, end), sides[at], wanted[at])
        self._act(state, chunk.ends.get(last, ()), len(seen) - 1)
        if self._stopped_ns != FAR_NS:
            self._stops()
        kept = set(chunk.rows.track_id[chunk.starts[:-1]].tolist())
        for track_id in [track_id for track_id in self._known if track_id not in kept]:
            del self._known[track_id]

    def _stretch(self, state: InZone, span: tuple[int, int], side: int, is_wanted: bool) -> None:
        row, end = span
        flip = end
        if side == state.side:
            state.pending_ns = NEVER
        elif side != 0:
            flip = row
            if state.pending_ns == NEVER:
                state.pending_ns = int(self._chunk.time_ns[row])
                flip += 1
            flip += int(np.searchsorted(self._chunk.time_ns[flip:end], state.pending_ns + self._settle_ns))
        if row < flip:
            self._move(state, row, state.side > 0 and is_wanted, int(self._chunk.time_ns[row]))
            self._stay(state, row, flip)
        if flip < end:
            since_ns, state.pending_ns, state.side = state.pending_ns, NEVER, -state.side
            self._move(state, flip, state.side > 0 and is_wanted, since_ns)
            self._stay(state, flip, end)

    def _stay(self, state: InZone, row: int, end: int) -> None:
        """The track stays where it is from this row up to the other."""
        self._is_present[row:end] = state.is_present
        if not state.is_present or state.has_loitered or self._loiter_ns == FAR_NS:
            return
        first, last = np.searchsorted(self._sweeps, (row, end)).tolist()
        at = first + int(np.searchsorted(self._sweep_ns[first:last], state.since_ns + self._loiter_ns, side="right"))
        if at < last:
            state.has_loitered = True
            there = int(self._sweeps[at])
            dwell_s = round((int(self._chunk.time_ns[there]) - state.since_ns) / 1e9, 3)
            self._tell(int(self._chunk.rows.frame[there]), LOITERED, there, "zone_loitering", {"dwell_s": dwell_s})

    def _move(self, state: InZone, row: int, is_present: bool, time_ns: int, at: tuple[int, int] | None = None) -> None:
        """Enter or leave at a time; ``at`` is the frame and phase where it is not the row's own, the reason follows."""
        if is_present == state.is_present:
            return
        frame, phase = at or (int(self._chunk.rows.frame[row]), MOVED)
        state.is_present = is_present
        if is_present:
            state.since_ns, state.has_loitered = time_ns, False
            self._tell(frame, phase, row, "zone_entered", {})
            return
        dwell_s = max(0, time_ns - state.since_ns) / 1e9
        reason = "lost" if phase == LOST_LEFT else "left"
        self._tell(frame, phase, row, "zone_left", {"dwell_s": round(dwell_s, 3), "reason": reason})

    def _act(self, state: InZone, actions: Sequence[tuple[int, bool]], row: int) -> None:
        """What happens to a track after this row, while it is not seen."""
        for frame, is_loss in actions:
            if is_loss:
                self._move(state, row, False, int(self._chunk.time_ns[row]), (frame, LOST_LEFT))
                state.side, state.pending_ns = -1, NEVER
            else:
                is_wanted = bool(self._chunk.frames.active[frame, self._part] and self._chunk.passes[row, self._part])
                now_ns = int(self._chunk.frames.time_ns[frame])
                self._move(state, row, state.side > 0 and is_wanted, now_ns, (frame, REFRESHED))

    def _tell(self, frame: int, phase: int, row: int, kind: str, data: dict[str, object]) -> None:
        self._found.append(Told(frame, phase, row, self._zone, kind, data))

    def _stops(self) -> None:
        """Objects that stayed at one place, see ``ZoneWatcher``."""
        chunk, rows = self._chunk, self._sweeps
        is_break = chunk.is_new.copy()
        is_break[[row for row, found in chunk.actions.items() if any(action.is_loss for action in found)]] = True
        lives = np.cumsum(is_break)
        number = np.searchsorted(chunk.starts, rows, side="right") - 1
        first = chunk.starts[number]
        # a life that did not begin before this chunk knows of no place where it stayed
        is_fresh = lives[rows] > lives[first] - is_break[first]
        edges = np.flatnonzero((np.diff(number, prepend=-1) != 0) | (np.diff(lives[rows], prepend=-1) != 0))
        places = self._places()
        for begin, end in pairwise([*edges.tolist(), len(rows)]):
            state = self._known[int(chunk.rows.track_id[rows[begin]])]
            if is_fresh[begin]:
                state.still_ns, state.is_stopped = NEVER, False
            self._still(state, (begin, end), *places)
        for track, actions in chunk.ends.items():
            if any(action.is_loss for action in actions):
                state = self._known[int(chunk.rows.track_id[chunk.starts[track]])]
                state.still_ns, state.is_stopped = NEVER, False

    def _places(self) -> tuple[Array, Array, Array]:
        """Where the boxes of sweeps are, and how far each may be from the place where it stayed."""
        box = self._chunk.rows.xyxy[self._sweeps]
        radius = self._watcher.still_share[self._zone] * (box[:, 3] - box[:, 1]).astype(np.float64)
        return (box[:, 0] + box[:, 2]) / 2, (box[:, 1] + box[:, 3]) / 2, radius

    def _still(self, state: InZone, span: tuple[int, int], x: Array, y: Array, radius: Array) -> None:
        """Go from one place where the object stayed to the next."""
        row, end = span
        while row < end:
            if state.still_ns != NEVER:
                row = self._until_moved(state, (row, end), x, y, radius)
                if row >= end:
                    return
            state.still_ns, state.still_at, state.is_stopped = self._sweep_list[row], (x[row], y[row]), False
            row += 1

    def _until_moved(self, state: InZone, span: tuple[int, int], x: Array, y: Array, radius: Array) -> int:
        """The first row at which the object has left its place."""
        row, end = span
        step = 16
        while row < end:
            until = min(end, row + step)
            gap_x, gap_y = x[row:until] - state.still_at[0], y[row:until] - state.still_at[1]
            has_moved = gap_x * gap_x + gap_y * gap_y > radius[row:until] * radius[row:until]
            first = int(has_moved.argmax())
            if has_moved[first]:
                self._note_stop(state, row, row + first)
                return row + first
            self._note_stop(state, row, until)
            row, step = until, 4 * step
        return end

    def _note_stop(self, state: InZone, row: int, end: int) -> None:
        if state.is_stopped or self._sweep_list[end - 1] - state.still_ns < self._stopped_ns or row >= end:
            return
        rows = self._sweeps[row:end]
        is_due = self._is_present[rows] & (self._sweep_ns[row:end] - state.still_ns >= self._stopped_ns)
        if is_due.any():
            there = int(rows[int(np.argmax(is_due))])
            still_s = round((int(self._chunk.time_ns[there]) - state.still_ns) / 1e9, 3)
            state.is_stopped = True
            self._tell(int(self._chunk.rows.frame[there]), STOPPED, there, "object_stopped", {"still_s": still_s})
