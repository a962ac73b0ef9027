"""Which result belongs to which large picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.pictures.planes import Planes
from edge.pipeline.live_source import MAX_WAIT_NS, Pairing, Seen
from edge.types import Detections, Frame, Result

MS = 10**6
IMAGE = np.zeros((4, 4, 3), np.uint8)
PLANES = Planes.of(IMAGE)


class Given:
    """Results every 100 ms that are shown 60 ms after they were taken, and pictures every 50 ms."""

    def __init__(self) -> None:
        self.given: list[tuple[int, int, int]] = []
        self.pairing = Pairing(self._take)
        self._times: dict[int, int] = {}

    def _take(self, planes: Planes, seen: Seen, time_ns: int) -> None:
        self.given.append((self._times[id(planes)], seen.taken_ns, time_ns))

    def result(self, taken_ms: int) -> None:
        result = Result(Frame("door", 0, taken_ms, 0, None, IMAGE), Detections.empty())
        self.pairing.note(result, taken_ms * MS, (taken_ms + 60) * MS)

    def picture(self, taken_ms: int, late_ms: int = 20) -> None:
        planes = PLANES.copy()
        self._times[id(planes)] = taken_ms * MS
        self._kept: Any = [*getattr(self, "_kept", []), planes]
        self.pairing.take(planes, taken_ms * MS, (taken_ms + late_ms) * MS)


def played(until_ms: int, late_ms: int = 20) -> Given:
    found = Given()
    for now_ms in range(0, until_ms, 10):
        if now_ms % 100 == 60:
            found.result(now_ms - 60)
        if now_ms % 50 == late_ms % 50 and now_ms >= late_ms:
            found.picture(now_ms - late_ms, late_ms)
    return found


def test_each_picture_gets_the_nearest_result() -> None:
    steady = [one for one in played(3000).given if one[0] > 500 * MS]
    assert len(steady) > 40
    assert all(abs(picture - result) <= 50 * MS for picture, result, _ in steady)


def test_one_picture_has_exactly_the_time_of_its_result_and_times_only_grow() -> None:
    steady = [one for one in played(3000).given if one[0] > 500 * MS]
    times = [time_ns for *_, time_ns in steady]
    assert times == sorted(times)
    exact = [result for _, result, time_ns in steady if time_ns == result + 60 * MS]
    assert len(exact) == len(set(exact)) >= 20


@given(st.integers(0, 300))
def test_nothing_waits_for_longer_than_it_may(late_ms: int) -> None:
    found = played(2000, late_ms // 10 * 10)
    assert all(abs(picture - result) <= MAX_WAIT_NS for picture, result, _ in found.given)


def test_pictures_are_not_shown_with_results_of_long_ago() -> None:
    found = Given()
    found.result(0)
    for taken_ms in range(100, 3000, 50):
        found.picture(taken_ms)
    assert all(picture <= MAX_WAIT_NS for picture, *_ in found.given)
