"""Names of recorded files: the UTC time of their beginning, hidden while they are written, each given once."""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable
from pathlib import Path

from edge.recording.disk import is_there

PART_SUFFIX = ".part"
NS_PER_S = 1_000_000_000


def name_at(start_ns: int, kind: str) -> str:
    """``20261122T100000.123Z.mp4`` of a segment, ``20261122T100000.123Z-clip.mp4`` of a clip, by the wall clock."""
    second, rest_ns = divmod(start_ns, NS_PER_S)
    stem = time.strftime("%Y%m%dT%H%M%S", time.gmtime(second)) + f".{rest_ns // 1_000_000:03d}Z"
    return f"{stem}{'-clip' if kind == 'clip' else ''}.mp4"


def start_in(name: str) -> int | None:
    """The time that our file names begin with, wall clock; None in other names."""
    try:
        second = time.strptime(name[:15], "%Y%m%dT%H%M%S")
        return (calendar.timegm(second) * 1000 + int(name[16:19])) * 1_000_000
    except ValueError:
        return None


def part_of(path: Path) -> Path:
    """The hidden name of a file while it is written."""
    return path.with_name(f".{path.name}{PART_SUFFIX}")


def whole_of(part: Path) -> Path:
    """The name that a file has once it is whole."""
    return part.with_name(part.name.removeprefix(".").removesuffix(PART_SUFFIX))


def unused(path: Path, is_used: Callable[[Path], bool]) -> Path:
    """The path, or the first of ``NAME-2``, ``NAME-3``, … that is not used."""
    found, number = path, 1
    while is_used(found):
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found


def is_taken(path: Path) -> bool:
    """Whether there is such a file, whole or unfinished. Raises: OSError: that cannot be known."""
    return is_there(path) or is_there(part_of(path))
