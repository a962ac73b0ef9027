"""What analytics remembers of each track: one structured row per track, sorted by id, in memory that is reused.

N tracks of this frame, T remembered tracks, L lines, Z zones. Times are ``time_ns``; ``NEVER`` where unset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edge.types import Array, Bool, Int64, Tracks

NEVER = int(np.iinfo(np.int64).min)
# rows beyond this are dropped, those unseen longest first
MAX_TRACKS = 20_000
# a track began this much later than it was last seen before a restart: it is another object with the same number
BIRTH_TOLERANCE_NS = 100_000_000
# votes are capped so that a track which really changes class does so within this many frames
MAX_VOTES = 30


def row_dtype(num_lines: int, num_zones: int, points: Sequence[str] = ()) -> np.dtype[Any]:
    """The fields of one track; those of lines and zones are sub-arrays.

    ``points`` names fields that keep where the anchors of lines (``line_at``) and zones (``zone_at``) were seen last: a
    box does not tell it of a key point.
    """
    shapes = {"line_at": (num_lines, 2), "zone_at": (num_zones, 2)}
    return np.dtype(
        [
            ("id", "i8"),
            ("seen_ns", "i8"),
            ("xyxy", "f4", (4,)),
            ("velocity", "f4", (2,)),
            ("class_id", "i4"),
            ("votes", "i4"),
            ("is_lost", "?"),
            ("is_restored", "?"),
            ("line_side", "i1", (num_lines,)),
            ("line_right", "i1", (num_lines,)),
            ("line_pending_ns", "i8", (num_lines,)),
            ("line_net", "i4", (num_lines,)),
            ("zone_side", "i1", (num_zones,)),
            ("zone_pending_ns", "i8", (num_zones,)),
            ("zone_present", "?", (num_zones,)),
            ("zone_since_ns", "i8", (num_zones,)),
            ("zone_loitered", "?", (num_zones,)),
            ("zone_stopped", "?", (num_zones,)),
            ("still_ns", "i8", (num_zones,)),
            ("still_x", "f4", (num_zones,)),
            ("still_y", "f4", (num_zones,)),
            *((name, "f8", shapes[name]) for name in points),
        ]
    )


class TrackTable:
    """The remembered tracks of one stream. ``rows`` is a view: valid until the next ``admit`` or ``keep``."""

    def __init__(self, num_lines: int, num_zones: int, points: Sequence[str] = ()) -> None:
        self._buffer: Array = np.zeros(64, row_dtype(num_lines, num_zones, points))
        self._num = 0

    def __len__(self) -> int:
        return self._num

    @property
    def rows(self) -> Array:
        return self._buffer[: self._num]

    def find(self, track_id: Int64) -> tuple[Int64, Bool]:
        """(N,) row of each id, and whether it is known (else the row is where it would be inserted)."""
        known_ids = self.rows["id"]
        slot = np.searchsorted(known_ids, track_id)
        if self._num == 0:
            return slot, np.zeros(len(track_id), np.bool_)
        return slot, known_ids[np.minimum(slot, self._num - 1)] == track_id

    def admit(self, tracks: Tracks) -> Int64:
        """(N,) the row of each track; new ones get a row with their box and class filled in. Ids must differ."""
        slot, is_known = self.find(tracks.track_id)
        if is_known.all():
            return slot
        self._append(tracks[~is_known])
        return self.find(tracks.track_id)[0]

    def _append(self, tracks: Tracks) -> None:
        total = self._num + len(tracks)
        if total > len(self._buffer):
            larger = np.zeros(max(total, 2 * len(self._buffer)), self._buffer.dtype)
            larger[: self._num] = self.rows
            self._buffer = larger
        new = self._buffer[self._num : total]
        blank(new)
        new["id"], new["xyxy"], new["class_id"] = tracks.track_id, tracks.xyxy, tracks.class_id
        is_in_order = (np.diff(self._buffer["id"][max(self._num - 1, 0) : total]) > 0).all()
        self._num = total
        if not is_in_order:
            self._buffer[:total] = self.rows[np.argsort(self.rows["id"])]

    def keep(self, mask: Bool) -> None:
        """Forget the rows where the (T,) mask is False, and give back memory that a past crowd needed."""
        kept = self.rows[mask]
        if len(self._buffer) > 64 and len(kept) < len(self._buffer) // 4:
            self._buffer = np.zeros(max(64, 2 * len(kept)), self._buffer.dtype)
        self._num = len(kept)
        self._buffer[: self._num] = kept

    def strangers(self, tracks: Tracks, time_ns: int) -> Int64:
        """(K,) rows from before a restart whose id now belongs to a track that began later."""
        slot, is_known = self.find(tracks.track_id)
        slot, age = slot[is_known], tracks.age[is_known]
        rows = self.rows[slot]
        born_ns = time_ns - (age.astype(np.float64) * 1e9).astype(np.int64)
        is_other = rows["is_restored"] & (born_ns > rows["seen_ns"] + BIRTH_TOLERANCE_NS)
        self.rows["is_restored"][slot] = False
        return slot[is_other]

    def to_json(self) -> dict[str, Any]:
        """Column name → list, JSON values only."""
        names = self._buffer.dtype.names or ()
        return {name: self.rows[name].tolist() for name in names}

    def load_json(self, columns: dict[str, Any]) -> None:
        """Take what ``to_json`` gave.

        Raises:
            KeyError, ValueError, TypeError: it came from somewhere else.
        """
        num = len(columns["id"])
        buffer = np.zeros(max(64, num), self._buffer.dtype)
        for name in buffer.dtype.names or ():
            shape = (num, *buffer.dtype[name].shape)
            buffer[name][:num] = np.asarray(columns[name], buffer.dtype[name].base).reshape(shape)
        buffer["is_restored"][:num] = True
        self._buffer, self._num = buffer, num


def blank(rows: Array) -> None:
    """Make a view of rows those of tracks that were never seen; ids, boxes and classes become 0."""
    rows[...] = np.zeros((), rows.dtype)
    for name in ("seen_ns", "line_pending_ns", "zone_pending_ns", "zone_since_ns", "still_ns"):
        rows[name] = NEVER
    rows["zone_side"] = -1


def usable(tracks: Tracks) -> Tracks:
    """The rows that are evidence: confirmed, detected in this frame (not predicted), with a finite, ordered box.

    Predicted boxes run on when their object stops or turns, so they prove no crossing.
    """
    box = tracks.xyxy
    left, top, right, bottom = box.T
    # comparisons with NaN are false, so these leave only infinite boxes to be found
    good = (tracks.track_id >= 0) & (tracks.detection >= 0) & (right > left) & (bottom > top)
    good &= (left > -np.inf) & (top > -np.inf) & (right < np.inf) & (bottom < np.inf)
    if not good.all():
        tracks = tracks[good]
    if len(tracks) > 1 and not (tracks.track_id[1:] > tracks.track_id[:-1]).all():
        first = np.unique(tracks.track_id, return_index=True)[1]
        tracks = tracks[first]
    return tracks


def vote(rows: Array, slot: Int64, class_id: Array) -> None:
    """Let this frame vote on the class of each track (majority vote of Boyer and Moore, with a cap)."""
    held, votes = rows["class_id"][slot], rows["votes"][slot]
    agrees = held == class_id
    if agrees.all():
        rows["votes"][slot] = np.minimum(votes + 1, MAX_VOTES)
        return
    votes = np.minimum(np.where(agrees, votes + 1, votes - 1), MAX_VOTES)
    is_beaten = votes < 0
    rows["class_id"][slot] = np.where(is_beaten, class_id, held)
    rows["votes"][slot] = np.where(is_beaten, 1, votes)


def settle(side: Array, pending_ns: Array, seen: Array, now_ns: int, settle_ns: Array) -> tuple[Array, Array]:
    """Decide which objects have changed sides: seen beyond the band twice, ``settle_ns`` apart, and never back between.

    Args:
        side: (N, K) int8, the settled side, 0 where unknown.
        pending_ns: (N, K) since when the other side was seen; changed in place, left set where accepted.
        seen: (N, K) int8, the side in this frame, 0 within the band.
        settle_ns: (K,).

    Returns:
        (N, K) accepted changes, and (N, K) objects clearly back (or still) on their side.
    """
    product = side * seen
    is_opposite, is_same = product < 0, product > 0
    if not is_opposite.any():
        pending_ns[is_same] = NEVER
        return is_opposite, is_same
    is_waiting = pending_ns != NEVER
    accepted = is_opposite & is_waiting
    accepted &= now_ns - np.where(is_waiting, pending_ns, now_ns) >= settle_ns
    pending_ns[is_same] = NEVER
    pending_ns[is_opposite & ~is_waiting] = now_ns
    return accepted, is_same
