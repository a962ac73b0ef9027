"""What a recording asks of its disk, so that a test can break it; and what a broken one says, in words."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.errors import SinkError, sink_error

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def _free_bytes(folder: Path) -> int:
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


@dataclass(frozen=True, slots=True)
class Disk:
    """The calls that fail on a full disk, so that a test can fill it.

    Attributes:
        write: like ``os.write``.
        free_bytes: what an ordinary process may still write to the folder.
    """

    write: Callable[[int, bytes], int] = os.write
    free_bytes: Callable[[Path], int] = _free_bytes


@contextmanager
def in_words(folder: Path) -> Iterator[None]:
    """Turn what a broken disk says within the block into a ``SinkError``."""
    try:
        yield
    except OSError as error:
        said = f"record: {folder} cannot be read or written ({error.strerror or error})"
        raise sink_error(f"{said}; check the disk, its mount and the rights", error) from None


def locked(folder: Path) -> int:
    """Make a folder and take it for this process; returns the handle that holds it until it is closed.

    Raises:
        SinkError: the folder cannot be made or written, or another process has it.
    """
    with in_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
        guard = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(guard)
        raise SinkError(f"record: {folder} is in use by another process; expected a folder of its own") from None
    except OSError as error:
        os.close(guard)
        raise SinkError(f"record: {folder} cannot be locked ({error.strerror}); expected a disk with locks") from None
    return guard


def is_there(path: Path) -> bool:
    """Whether there is anything of this name. Raises: OSError: that cannot be known."""
    # Path.exists() hides some errors of the disk, and which ones differs between versions of Python
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True
