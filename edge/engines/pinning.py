"""Keeping threads to some cores of the processor, where the system can: Linux."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edge.errors import UsageError


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Keep this thread, and those that it starts meanwhile, to these cores; none changes nothing.

    Raises:
        UsageError: this process may use none of them.
    """
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    pin(cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(cores: Sequence[int]) -> None:
    """Keep this thread to these cores from now on; none changes nothing. Raises: UsageError, as ``pinned``."""
    if not cores:
        return
    allowed = os.sched_getaffinity(0)
    if not allowed & set(cores):
        raise UsageError(f"cores = {list(cores)}: this process may use the cores {sorted(allowed)}")
    try:
        os.sched_setaffinity(0, allowed & set(cores))
    except OSError as error:
        raise UsageError(
            f"cores = {list(cores)}: the system does not let this process choose ({error.strerror})"
        ) from None
