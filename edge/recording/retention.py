"""Which files go, by age and by size: those that were finished first."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.config.recording import RecordSettings

log = logging.getLogger(__name__)
NS_PER_DAY = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished file. ``time_ns`` is the wall clock at its end; it is this old."""

    path: Path
    time_ns: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Keep:
    """How much is kept. None: no limit."""

    max_age_ns: int | None = None
    max_bytes: int | None = None


def keep_of(settings: RecordSettings) -> Keep:
    """The limits of one stream's recording."""
    return Keep(
        None if settings.max_age_days is None else round(settings.max_age_days * NS_PER_DAY),
        None if settings.max_gb is None else round(settings.max_gb * 1e9),
    )


def too_many(files: Iterable[Kept], keep: Keep, now_ns: int, extra_bytes: int = 0) -> list[Kept]:
    """The files that have to go, in the order given.

    Args:
        files: all finished files of one kind, in the order in which they were finished. None counts as older than one
            before it: its time was taken from a clock that was wrong. Nor is a time to come believed.
        keep: the limits.
        now_ns: wall clock.
        extra_bytes: what else counts against the size, such as the file that is being written.
    """
    ordered = list(files)
    total = sum(file.num_bytes for file in ordered) + extra_bytes
    gone: list[Kept] = []
    newest_ns: int | None = None
    for file in ordered:
        if file.time_ns <= now_ns:
            newest_ns = max(file.time_ns, newest_ns or file.time_ns)
        is_old = keep.max_age_ns is not None and newest_ns is not None and now_ns - newest_ns > keep.max_age_ns
        is_over = keep.max_bytes is not None and total > keep.max_bytes
        if is_old or is_over:
            gone.append(file)
            total -= file.num_bytes
    return gone


def remove(files: Sequence[Kept]) -> list[Kept]:
    """Delete files; those that somebody else has deleted count too. Returns what is gone."""
    gone: list[Kept] = []
    refused: list[str] = []
    for file in files:
        try:
            file.path.unlink(missing_ok=True)
        except OSError as error:
            refused.append(f"{file.path} ({error.strerror})")
        else:
            gone.append(file)
    if refused:
        # one line however many there are: it may be tried again every second
        log.warning("%d files cannot be removed; the first is %s", len(refused), refused[0])
    return gone


def files_in(folder: Path, suffix: str) -> list[Kept]:
    """The files of a folder with this suffix, hidden ones not; dated by their last change, and in that order.

    Raises:
        OSError: the folder cannot be read.
    """
    found = []
    for path in folder.glob(f"*{suffix}") if folder.is_dir() else ():
        if not path.name.startswith("."):
            facts = path.stat()
            found.append(Kept(path, facts.st_mtime_ns, facts.st_size))
    return sorted(found, key=lambda file: (file.time_ns, file.path.name))
