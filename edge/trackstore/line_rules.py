"""Line crossings of a whole chunk at once, by the rules of ``edge.analytics.lines``: distances are computed for all
rows together, and only where a track's side changes is anything decided. N rows, L lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edge.analytics.geometry import box_size
from edge.analytics.lines import DIRECTIONS
from edge.analytics.state import NEVER
from edge.trackstore.chunk import Chunk, points_of
from edge.trackstore.told import CROSSED, LOST_CROSSED, Told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.analytics.lines import LineCounter
    from edge.types import Array, Float64


@dataclass(slots=True)
class OnLine:
    """What is known of one track and one line: its settled side, since when it was seen on the other, its passes."""

    side: int = 0
    pending_ns: int = NEVER
    net: int = 0


@dataclass(slots=True)
class LineRules:
    """The lines of one stream over chunks that follow each other."""

    counter: LineCounter
    names: Sequence[str]
    stored: Sequence[str]
    known: list[dict[int, OnLine]] = field(default_factory=list)

    def take(self, chunk: Chunk) -> list[Told]:
        """What became certain in this chunk, in any order."""
        counter = self.counter
        self.known = self.known or [{} for _ in counter.names]
        if not counter.names or len(chunk.rows) == 0:
            return []
        at = points_of(chunk, self.names, self.stored, counter.anchors.of(chunk.tracks))
        distance, size = counter.distance(at), box_size(chunk.rows.xyxy)
        seen, near = counter.sides(distance, size), counter.sides(2 * distance, size)
        passes = np.cumsum(_passes(counter, chunk, at, distance), axis=0)
        found: list[Told] = []
        for line in range(len(counter.names)):
            one = _Line(chunk, line, int(counter.settle_ns[line]), self.known[line], found)
            one.run(seen[:, line], near[:, line], passes[:, line])
        return found


def _passes(counter: LineCounter, chunk: Chunk, at: Float64, distance: Float64) -> Array:
    """(N, L) how each way from the row before passes the segments; nothing where a track begins."""
    found = np.zeros(distance.shape, np.int32)
    right = distance >= 0
    changed = np.zeros(distance.shape, np.bool_)
    changed[1:] = right[1:] != right[:-1]
    changed[chunk.starts[:-1]] = False
    changed[chunk.is_new] = False
    row = np.flatnonzero(changed.any(1))
    if len(row):
        ways, distances = (at[row - 1], at[row]), (distance[row - 1], distance[row])
        found[row] = counter.passes(ways, distances, changed[row])
    return found


class _Line:
    """One line in one chunk."""

    def __init__(self, chunk: Chunk, line: int, settle_ns: int, known: dict[int, OnLine], found: list[Told]) -> None:
        self._chunk, self._line, self._settle_ns = chunk, line, settle_ns
        self._known, self._found = known, found
        self._wanted = chunk.wanted[:, line]

    def run(self, seen: Array, near: Array, passes: Array) -> None:
        """Go through the stretches of rows in which a track stays on one side."""
        chunk = self._chunk
        is_cut = np.zeros(len(seen), np.bool_)
        is_cut[1:] = (seen[1:] != seen[:-1]) | chunk.is_ghost[:-1]
        is_cut[chunk.starts[:-1]] = True
        is_cut |= chunk.is_new
        is_cut[list(chunk.actions)] = True
        cuts = np.flatnonzero(is_cut)
        ends = np.append(cuts[1:], len(seen)).tolist()
        firsts = chunk.is_ghost[cuts].tolist()
        number_of = (np.searchsorted(chunk.starts, cuts, side="right") - 1).tolist()
        sides, bases = seen[cuts].tolist(), passes
        ids, news = chunk.rows.track_id[cuts].tolist(), chunk.is_new[cuts].tolist()
        last, known, state = -1, self._known, OnLine()
        for at, (row, end) in enumerate(zip(cuts.tolist(), ends, strict=True)):
            if number_of[at] != last:
                self._end(last, state, int(cuts[at]) - 1)
                last = number_of[at]
                state = known.setdefault(ids[at], OnLine())
            if firsts[at]:
                continue
            for action in chunk.actions.get(row, ()):
                if action.is_loss:
                    self._lose(state, action.frame, row - 1)
            if news[at]:
                state = known[ids[at]] = OnLine()
            self._stretch(state, (row, end), sides[at], near, bases)
        self._end(last, state, len(seen) - 1)
        self._forget()

    def _stretch(self, state: OnLine, span: tuple[int, int], side: int, near: Array, passes: Array) -> None:
        """A track is seen on one side (1, -1), or within the band (0), from the first row up to the second."""
        row, end = span
        before = int(passes[row - 1]) if row else 0
        if state.side == 0:
            settled = np.flatnonzero(near[row:end])
            state.net = 0
            if len(settled) == 0:
                return
            row += int(settled[0])
            state.side, before = int(near[row]), int(passes[row])
            row += 1
            if row == end:
                return
        if side == state.side:
            state.pending_ns, state.net = NEVER, 0
        elif side == 0:
            state.net += int(passes[end - 1]) - before
        else:
            self._opposite(state, (row, end), side, passes, before)

    def _opposite(self, state: OnLine, span: tuple[int, int], side: int, passes: Array, before: int) -> None:
        chunk, (row, end) = self._chunk, span
        if state.pending_ns == NEVER:
            state.pending_ns = int(chunk.time_ns[row])
            row += 1
        row += int(np.searchsorted(chunk.time_ns[row:end], state.pending_ns + self._settle_ns))
        if row >= end:
            state.net += int(passes[end - 1]) - before
            return
        state.net += int(passes[row]) - before
        if np.sign(state.net) == side and self._wanted[row]:
            self._tell(CROSSED, int(chunk.rows.frame[row]), row, side)
        state.side, state.pending_ns, state.net = side, NEVER, 0

    def _lose(self, state: OnLine, frame: int, row: int) -> None:
        """The track is lost at a frame, after this row: last seen beyond the line, it has crossed it."""
        if state.pending_ns == NEVER:
            return
        is_wanted = self._chunk.frames.active[frame, self._line] and self._passes_filter(row)
        if np.sign(state.net) == -state.side and is_wanted:
            self._tell(LOST_CROSSED, frame, row, -state.side)
        state.side, state.pending_ns, state.net = -state.side, NEVER, 0

    def _passes_filter(self, row: int) -> bool:
        return bool(self._chunk.passes[row, self._line])

    def _end(self, number: int, state: OnLine, row: int) -> None:
        for action in self._chunk.ends.get(number, ()):
            if action.is_loss:
                self._lose(state, action.frame, row)

    def _tell(self, phase: int, frame: int, row: int, side: int) -> None:
        self._found.append(Told(frame, phase, row, self._line, "", {"direction": DIRECTIONS[side > 0]}))

    def _forget(self) -> None:
        """Let go of tracks that are not in this chunk, not even as ghosts."""
        ids = set(self._chunk.rows.track_id[self._chunk.starts[:-1]].tolist())
        for track_id in [track_id for track_id in self._known if track_id not in ids]:
            del self._known[track_id]
