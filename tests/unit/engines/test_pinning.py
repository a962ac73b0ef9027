"""Threads that keep to some cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

import numpy as np
import pytest

from edge.engines.ahead import AheadEngine
from edge.engines.null import NullEngine
from edge.engines.pinning import pinned
from edge.errors import UsageError
from edge.models.manifest import InputSpec
from edge.types import Array

SPEC = InputSpec(name="frames", width=8, height=4, layout="nhwc", dtype="uint8", colour="bgr")
ALL = os.sched_getaffinity(0)
ONE = min(ALL)


class Looking(NullEngine):
    """Notes on which cores it runs."""

    cores: set[int]

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        self.cores = os.sched_getaffinity(0)
        return super().infer(tensor)


def test_threads_that_are_started_meanwhile_keep_to_the_cores_and_this_one_does_not() -> None:
    found: list[set[int]] = []
    with pinned([ONE]):
        thread = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
    assert found == [{ONE}]
    assert os.sched_getaffinity(0) == ALL


@pytest.mark.parametrize(("cores", "expected"), [((ONE,), {ONE}), ((), ALL)])
def test_the_engines_thread_keeps_to_its_cores(cores: tuple[int, ...], expected: set[int]) -> None:
    inner = Looking(SPEC)
    engine = AheadEngine(inner, SPEC, cores)
    engine.infer(np.zeros((1, 4, 8, 3), np.uint8))
    engine.close()
    assert inner.cores == expected
    assert os.sched_getaffinity(0) == ALL


def test_cores_that_are_not_there_are_named() -> None:
    with pytest.raises(UsageError, match=r"cores = \[1023\]: this process may use the cores"), pinned([1023]):
        pass
    assert os.sched_getaffinity(0) == ALL
