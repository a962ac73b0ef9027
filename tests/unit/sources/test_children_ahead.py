"""Decoder processes that were begun ahead are taken by the next openings; one that died meanwhile is not."""

from __future__ import annotations

import os
import signal

from edge.sources.isolation import process
from edge.sources.isolation.process import SpareChild, begin_ahead


def test_a_child_that_was_begun_ahead_is_the_next_that_is_taken() -> None:
    begin_ahead(2)
    first, second = process._ahead
    os.kill(first.pid, signal.SIGKILL)
    first._process.wait(10)
    spare = SpareChild()
    taken = spare.take()
    try:
        assert taken is second and taken.is_alive and taken.num_openings == 1
        assert not process._ahead
    finally:
        spare.keep(taken)
        spare.close()
    assert not taken.is_alive
