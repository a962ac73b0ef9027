"""Writes parts that are complete again, in blocks of minutes: a third smaller, and quicker to read.

A part is exchanged whole, after the new one is on the disk: whatever ends the program meanwhile, one of both is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from edge.errors import DataError
from edge.files import sync_folder
from edge.trackstore.block import Block, Candidates, Sightings, decode, encode
from edge.trackstore.parts import PACKED, SUFFIX, Part, Span, record

log = logging.getLogger(__name__)
# what is written anew stands here until it takes the part's place
UNFINISHED = f"{SUFFIX}-new"
# a block ends with so many frames
MAX_FRAMES = 4096
# between blocks that are further apart the program did not run
MAX_GAP_NS = 2_000_000_000

Stored = tuple[Span, Block]


def compact(path: Path) -> Generator[None, None, None]:
    """Write a part again, a block a step. What is written by somebody, damaged, or compact already is left alone.

    Raises:
        OSError: the disk is full or fails; the part is as it was.
    """
    # what a block lacks that we write is damage too
    damage = (DataError, LookupError, TypeError, ValueError)
    with contextlib.suppress(*damage, BlockingIOError, FileNotFoundError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        part = Part(path)
        if part.head is None or part.is_packed:
            return
        new = path.with_suffix(UNFINISHED)
        try:
            with new.open("wb") as out:
                out.write(part.start)
                yield from _write(part, out)
                out.flush()
                os.fsync(out.fileno())
            facts = path.stat()
            os.utime(new, ns=(facts.st_atime_ns, facts.st_mtime_ns))
            new.replace(path)
            sync_folder(path.parent)
        finally:
            new.unlink(missing_ok=True)


def _write(part: Part, out: IO[bytes]) -> Iterator[None]:
    assert part.head is not None
    steps = part.head.steps
    stored = ((span, decode(data, steps)) for span, data in part.blocks())
    for span, block in joined(stored):
        out.write(record(PACKED, span.as_bytes() + encode(block, steps)))
        yield


def joined(stored: Iterable[Stored]) -> Iterator[Stored]:
    """Blocks that follow each other as one, up to ``MAX_FRAMES``; what was lost stays with the block that tells it."""
    waiting: list[Stored] = []
    for one in stored:
        if waiting and not _goes_on(waiting, one):
            yield _as_one(waiting)
            waiting = []
        waiting.append(one)
    if waiting:
        yield _as_one(waiting)


def _goes_on(waiting: list[Stored], one: Stored) -> bool:
    (last_span, last), (span, block) = waiting[-1], one
    return (
        sum(len(other.time_ns) for _, other in waiting) + len(block.time_ns) <= MAX_FRAMES
        and span.start_ns - last_span.end_ns <= MAX_GAP_NS
        and block.notes["wall_offset_ns"] == last.notes["wall_offset_ns"]
        and not block.notes.get("lost")
        and not last.notes.get("lost")
    )


def _as_one(stored: list[Stored]) -> Stored:
    spans, blocks = [span for span, _ in stored], [block for _, block in stored]
    if len(blocks) == 1:
        return stored[0]
    counts = [len(block.time_ns) for block in blocks]
    offsets = (np.cumsum(counts) - counts).tolist()
    time_ns, captured_ns, epoch, seq, age_ms = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in ("time_ns", "captured_ns", "epoch", "seq", "age_ms")
    )
    shifted = list(zip(blocks, offsets, strict=True))
    seen = [replace(block.sightings, frame=block.sightings.frame + offset) for block, offset in shifted]
    others = [replace(block.candidates, frame=block.candidates.frame + offset) for block, offset in shifted]
    rows = Sightings(*(np.concatenate([getattr(one, name) for one in seen]) for name in Sightings.__slots__))
    rest = Candidates(*(np.concatenate([getattr(one, name) for one in others]) for name in Candidates.__slots__))
    notes = {**blocks[0].notes, "moments": [moment for block in blocks for moment in block.notes["moments"]]}
    for name in ("events", "labels"):
        notes[name] = [[one[0] + offset, *one[1:]] for block, offset in shifted for one in block.notes[name]]
    away = [[start + offset, count] for block, offset in shifted for start, count in block.notes.get("away", ())]
    notes |= {"away": away} if away else {}
    span = Span(min(one.start_ns for one in spans), max(one.end_ns for one in spans))
    rows = rows[np.lexsort((rows.frame, rows.track_id))]
    return span, Block(time_ns, captured_ns, epoch, seq, age_ms, rows, rest, notes)
