"""A few seconds of one stream, and how they become bytes: frames, the tracks in them, and what no track took.

Boxes and speeds are whole numbers of ``Steps``: lines and zones read the stored numbers too, so what is evaluated later
is, to the last bit, what was evaluated then. Shape letters: F frames, N sightings of tracks, M other candidates,
A anchors of the model's own.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import DataError
from edge.files import parse_json
from edge.trackstore.columns import Unpacker, pack

if TYPE_CHECKING:
    from edge.types import Array, Bool, Float32, Int32, Int64

# a score is kept to the 16th, rounded down: one below a threshold stays below
SCORES = 16
# the boxes of what no track took are for explanations alone
COARSE = 8
# a picture's longer side has so many steps: fewer pixels than that is what most models see of it
SIDE_STEPS = 1024
# rows and columns of the grid by which candidates find their like in other frames
CELLS = 24
MAX_META_BYTES = 32 << 20
_LENGTHS = struct.Struct("<III")


@dataclass(frozen=True, slots=True)
class Steps:
    """How finely a stream's boxes and speeds are kept.

    Attributes:
        px: of a box: 1/1024 of the picture's longer side, in whole 16ths of a pixel, so that float32 holds all
            multiples exactly; 1.25 pixels at 720p.
        px_s: of a speed.
    """

    px: float
    px_s: float

    @classmethod
    def of(cls, width: int, height: int) -> Steps:
        px = max(1, max(width, height) * 16 // SIDE_STEPS) / 16
        return cls(px, 4 * px)


@dataclass(frozen=True, slots=True)
class Sightings:
    """Tracks where they were seen, sorted by id, then by frame.

    Attributes:
        frame: (N,) number of the frame in the block. track_id: (N,). class_id: (N,).
        score: (N,) float32. xyxy: (N, 4) float32 frame pixels. velocity: (N, 2) float32 pixels per second.
        points: (N, A, 2) float32 frame pixels, the anchors that only the model gives.
    """

    frame: Int64
    track_id: Int64
    class_id: Int32
    score: Float32
    xyxy: Float32
    velocity: Float32
    points: Float32

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, index: Bool | Int64 | slice) -> Sightings:
        return Sightings(
            self.frame[index],
            self.track_id[index],
            self.class_id[index],
            self.score[index],
            self.xyxy[index],
            self.velocity[index],
            self.points[index],
        )


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the model proposed and no confirmed track took, sorted by frame. As ``Sightings``, (M,)."""

    frame: Int64
    class_id: Int32
    score: Float32
    xyxy: Float32

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, index: Bool | Int64 | slice) -> Candidates:
        return Candidates(self.frame[index], self.class_id[index], self.score[index], self.xyxy[index])


@dataclass(frozen=True, slots=True)
class Block:
    """Frames that follow each other, and what was seen and decided in them.

    Attributes:
        time_ns: (F,) by which things move. captured_ns: (F,) monotonic. epoch, seq: (F,) of the frames.
        age_ms: (F,) when they were analysed.
        notes: JSON values: ``moments`` (what was dropped and how the camera stood, by second), ``events``, ``labels``,
            ``wall_offset_ns``, ``lost`` (frames that did not fit), ``away`` (first frame and number of those in which
            the camera was turned away, so that lines and zones rested).
    """

    time_ns: Int64
    captured_ns: Int64
    epoch: Int64
    seq: Int64
    age_ms: Int64
    sightings: Sightings
    candidates: Candidates
    notes: Mapping[str, Any]


def is_away(block: Block) -> Bool:
    """(F,) whether the camera was turned away from its home."""
    away: Bool = np.zeros(len(block.time_ns), np.bool_)
    for start, count in block.notes.get("away", ()):
        away[max(0, start) : max(0, start + count)] = True
    return away


def encode(block: Block, steps: Steps) -> bytes:
    """The block as bytes; boxes and speeds must be multiples of the steps already."""
    notes = zlib.compress(json.dumps(block.notes, separators=(",", ":")).encode(), 9)
    frames = b"".join(map(pack, _frame_columns(block)))
    tracks = b"".join(map(pack, _sighting_columns(block.sightings, block.time_ns, steps)))
    others = b"".join(map(pack, _candidate_columns(block.candidates, steps)))
    return _LENGTHS.pack(len(notes), len(frames), len(tracks)) + notes + frames + tracks + others


def decode(data: bytes, steps: Steps, *, with_candidates: bool = True) -> Block:
    """The inverse of ``encode``; without the candidates it is done in half the time.

    Raises:
        DataError: it is no block.
    """
    try:
        sizes = _LENGTHS.unpack_from(data)
        ends = np.cumsum((_LENGTHS.size, *sizes)).tolist()
        inflate = zlib.decompressobj()
        notes = parse_json(inflate.decompress(data[ends[0] : ends[1]], MAX_META_BYTES))
        frames = Unpacker(data[ends[1] : ends[2]])
        time_unit, age_unit = frames.column().tolist()
        captured = np.cumsum(np.cumsum(frames.column())) * time_unit
        time_ns = captured + np.cumsum(frames.column()) * time_unit
        epoch, seq, age_ms = np.cumsum(frames.column()), np.cumsum(frames.column()), frames.column() * age_unit
        sightings = _sightings(Unpacker(data[ends[2] : ends[3]]), time_ns, steps)
        candidates = _candidates(Unpacker(data[ends[3] :] if with_candidates else _NOBODY), steps)
        _check(len(time_ns), (captured, epoch, seq, age_ms), (sightings.frame, candidates.frame))
    except (struct.error, zlib.error, ValueError, IndexError, TypeError) as error:
        raise DataError(f"a block cannot be read ({error})") from None
    return Block(time_ns, captured, epoch, seq, age_ms, sightings, candidates, notes)


def _check(count: int, columns: Sequence[Int64], frames: Sequence[Int64]) -> None:
    if any(len(column) != count for column in columns):
        raise ValueError("its columns differ in length")
    if any(len(frame) and not 0 <= frame.min() <= frame.max() < count for frame in frames):
        raise ValueError(f"it speaks of frames that are not among its {count}")


def _frame_columns(block: Block) -> list[Array]:
    time_unit, age_unit = _unit(block.captured_ns, block.time_ns), _unit(block.age_ms)
    captured = _steps(block.captured_ns // time_unit)
    return [
        np.array([time_unit, age_unit]),
        _steps(captured),
        _steps((block.time_ns - block.captured_ns) // time_unit),
        _steps(block.epoch),
        _steps(block.seq),
        block.age_ms // age_unit,
    ]


def _unit(*columns: Int64) -> int:
    """What all of the numbers are multiples of."""
    return max(1, int(np.gcd.reduce(np.concatenate(columns)))) if len(columns[0]) else 1


def _steps(values: Array) -> Array:
    return np.diff(values, axis=0, prepend=np.zeros_like(values[:1]))


def _sighting_columns(seen: Sightings, time_ns: Int64, steps: Steps) -> list[Array]:
    """Per track: its id, how often it is in the block, since which frame; per sighting: how it differs from before."""
    starts = np.flatnonzero(np.diff(seen.track_id, prepend=-1) != 0) if len(seen) else np.zeros(0, np.int64)
    box = np.rint(seen.xyxy / steps.px).astype(np.int64)
    speed = np.rint(seen.velocity / steps.px_s).astype(np.int64)
    surprise, turn = _since(box, starts), _since(speed, starts)
    # what rests, box and speed, takes no more than the word for it
    moves: Bool = (surprise != 0).any(1) | (turn != 0).any(1)
    moves[starts] = True
    surprise -= np.tile(_carried(speed, time_ns[seen.frame], starts, steps), 2)
    surprise *= moves[:, None]
    centre = surprise[:, :2] + surprise[:, 2:]
    centre[starts] = 0
    gains = _gains(turn[moves], centre[moves], np.flatnonzero(np.isin(np.flatnonzero(moves), starts)))
    turn -= _expected(centre, starts, gains)
    # the track's age stands in its first frame
    gaps = np.delete(np.diff(seen.frame, prepend=0), starts) - 1
    points = np.rint(seen.points / steps.px).astype(np.int64).reshape(len(seen), 2 * seen.points.shape[1])
    points = points - np.tile((box[:, :2] + box[:, 2:]) // 2, points.shape[1] // 2)
    return [
        np.array([points.shape[1], *gains]),
        _steps(seen.track_id[starts]),
        np.diff(starts, append=len(seen)),
        seen.frame[starts],
        gaps,
        _since(seen.class_id.astype(np.int64), starts),
        _since(np.floor(seen.score * SCORES).astype(np.int64), starts),
        moves.astype(np.int64),
        *surprise[moves].T,
        *turn[moves].T,
        *_since(points, starts).T,
    ]


def _sightings(columns: Unpacker, time_ns: Int64, steps: Steps) -> Sightings:
    num_points, *gains = columns.column().tolist()
    ids, counts, first = np.cumsum(columns.column()), columns.column(), columns.column()
    total = int(counts.sum())
    starts = np.cumsum(counts) - counts
    frame = np.ones(total, np.int64)
    frame[np.delete(np.arange(total), starts)] += columns.column()
    frame[starts] = first
    frame = _along(frame, starts)
    class_id, score = _along(columns.column(), starts), _along(columns.column(), starts)
    moves = columns.column().astype(np.bool_)
    changes = np.zeros((total, 6), np.int64)
    changes[moves] = np.stack([columns.column() for _ in range(6)], 1)
    surprise, turn = changes[:, :4], changes[:, 4:]
    points = np.stack([columns.column() for _ in range(num_points)] or [np.zeros(total, np.int64)], 1)[:, :num_points]
    centre = surprise[:, :2] + surprise[:, 2:]
    centre[starts] = 0
    speed = _along((turn + _expected(centre, starts, gains)) * moves[:, None], starts)
    carried = _carried(speed, time_ns[frame], starts, steps) * moves[:, None]
    box = _along(surprise + np.tile(carried, 2), starts)
    placed = _along(points, starts) + np.tile((box[:, :2] + box[:, 2:]) // 2, num_points // 2)
    return Sightings(
        frame,
        np.repeat(ids, counts),
        class_id.astype(np.int32),
        (score / SCORES).astype(np.float32),
        (box * steps.px).astype(np.float32),
        (speed * steps.px_s).astype(np.float32),
        (placed * steps.px).astype(np.float32).reshape(total, num_points // 2, 2),
    )


def _since(values: Array, starts: Int64) -> Array:
    """Each row less the one before it; the first row of each track as it is."""
    changed = _steps(values)
    changed[starts] = values[starts]
    return changed


def _along(changed: Array, starts: Int64) -> Array:
    """The inverse of ``_since``."""
    total: Array = np.cumsum(changed, axis=0)
    before = total[starts] - changed[starts]
    counts = np.diff(starts, append=len(changed))
    values: Array = total - np.repeat(before, counts, axis=0)
    return values


def _carried(speed: Int64, time_ns: Int64, starts: Int64, steps: Steps) -> Int64:
    """(N, 2) by how many steps a track's last speed has moved it, 0 in its first row; whole numbers throughout."""
    passed_us = np.diff(time_ns, prepend=0) // 1000
    passed_us[starts] = 0
    last = np.concatenate([np.zeros((1, 2), np.int64), speed[:-1]]) if len(speed) else speed
    moved: Int64 = last * (passed_us[:, None] * round(steps.px_s / steps.px)) // 1_000_000
    return moved


def _gains(turn: Int64, centre: Int64, starts: Int64) -> list[int]:
    """By how much a surprise in the place, and the one before it, turns the speed; in 256ths."""
    inner = np.ones(len(turn), np.bool_)
    inner[starts] = False
    if np.count_nonzero(inner) < 16:
        return [0, 0]
    before = np.concatenate([np.zeros((1, 2), np.int64), centre[:-1]])
    known = np.stack([centre[inner].ravel(), before[inner].ravel()], 1).astype(np.float64)
    found = np.linalg.lstsq(known, turn[inner].ravel().astype(np.float64), rcond=None)[0]
    return [int(value) for value in np.clip(np.rint(found * 256), -4096, 4096)]


def _expected(centre: Int64, starts: Int64, gains: Sequence[int]) -> Int64:
    if len(centre) == 0:
        return centre
    before = np.concatenate([np.zeros((1, 2), np.int64), centre[:-1]])
    expected: Int64 = (gains[0] * centre + gains[1] * before) >> 8
    expected[starts] = 0
    return expected


def _candidate_columns(found: Candidates, steps: Steps) -> list[Array]:
    """Per class and box: how often it is there; per row: when, and its score. Boxes are ordered by their places."""
    box = np.rint(found.xyxy / (COARSE * steps.px)).astype(np.int64)
    cell = SIDE_STEPS // COARSE // CELLS
    column, row = ((box[:, :2] + box[:, 2:]) // 2 // cell).T
    # of a class, a cell and a box: by frame
    order = np.lexsort((found.frame, *box.T[::-1], column, row, found.class_id))
    frame, class_id, box = found.frame[order], found.class_id[order].astype(np.int64), box[order]
    score = np.floor(found.score[order] * SCORES).astype(np.int64)
    changes = np.diff(class_id, prepend=-1).astype(np.bool_) | np.diff(box, axis=0, prepend=-1 << 30).any(1)
    starts = np.flatnonzero(changes)
    return [
        np.diff(starts, append=len(box)),
        _steps(class_id[starts]),
        *_steps(box[starts]).T,
        _steps(frame[starts]),
        np.delete(_steps(frame), starts),
        _since(score, starts),
    ]


def _candidates(columns: Unpacker, steps: Steps) -> Candidates:
    counts, class_id = columns.column(), np.cumsum(columns.column())
    box = np.stack([np.cumsum(columns.column()) for _ in range(4)], 1)
    starts = np.cumsum(counts) - counts
    frame = np.zeros(int(counts.sum()), np.int64)
    frame[starts] = np.cumsum(columns.column())
    frame[np.delete(np.arange(len(frame)), starts)] = columns.column()
    frame, score = _along(frame, starts), _along(columns.column(), starts)
    order = np.argsort(frame, kind="stable")
    return Candidates(
        frame[order],
        np.repeat(class_id, counts)[order].astype(np.int32),
        (score[order] / SCORES).astype(np.float32),
        (np.repeat(box, counts, axis=0)[order] * COARSE * steps.px).astype(np.float32),
    )


_NOBODY = pack(np.zeros(0, np.int64)) * 9
