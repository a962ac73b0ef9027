"""A guard runs the calls of a foreign part in one thread, with a deadline, counts what fails, and ends it in time."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from edge.errors import PartError, SinkError
from edge.packages.plugins import check_prediction, check_tracks
from edge.threads.guard import Guard, Lent
from edge.types import Detections, Tracks


@pytest.fixture
def guard() -> Iterator[Guard]:
    made = Guard("door: stage 'x'", 0.05)
    yield made
    made.end()


def fail() -> None:
    raise KeyError("key")


def test_it_gives_what_the_part_answers_and_calls_it_in_one_thread(guard: Guard) -> None:
    first = guard.open(threading.get_ident)
    assert first != threading.get_ident()
    assert [guard.call(threading.get_ident) for _ in range(3)] == [first] * 3
    assert guard.stats() == {"state": "on", "reason": "", "calls": 3, "failures": 0, "late": 0, "skipped": 0}


def test_what_a_part_raises_is_one_line_with_its_place(guard: Guard) -> None:
    with pytest.raises(PartError, match=r"^door: stage 'x': KeyError: 'key' \(test_guard.py:\d+\)$"):
        guard.call(fail)

    def refuse() -> None:
        raise SinkError("no disk;\n come back")

    with pytest.raises(PartError, match=r"^door: stage 'x': no disk; come back$"):
        guard.call(refuse)


def test_even_the_end_of_the_process_is_only_a_failure(guard: Guard) -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(PartError, match="SystemExit: 3"):
        guard.call(leave)
    assert guard.call(lambda: 7) == 7


def test_five_failures_in_a_row_switch_it_off_and_an_answer_between_them_does_not(guard: Guard) -> None:
    for _ in range(4):
        with pytest.raises(PartError):
            guard.call(fail)
    assert guard.call(lambda: 1) == 1
    for _ in range(5):
        assert not guard.is_off
        with pytest.raises(PartError):
            guard.call(fail)
    assert guard.is_off
    with pytest.raises(PartError, match="switched off after 5 failures in a row"):
        guard.call(lambda: pytest.fail("it is off"))
    assert guard.stats()["failures"] == 9


def test_a_late_answer_is_lost_and_the_next_call_waits_for_its_end(guard: Guard) -> None:
    order: list[int] = []

    def slow() -> int:
        time.sleep(0.08)
        order.append(1)
        return 1

    with pytest.raises(PartError, match="no answer within 50 ms"):
        guard.call(slow)
    assert guard.call(lambda: order.append(2) or 2) == 2
    assert order == [1, 2]
    assert guard.stats()["late"] == 1


def test_where_others_wait_nobody_waits_twice_for_a_part_that_hangs() -> None:
    let_go = threading.Event()
    guard = Guard("door: tracker 'x'", 0.1, is_shared=True)
    with pytest.raises(PartError, match="no answer within 100 ms"):
        guard.call(let_go.wait)
    began, waited = time.monotonic(), []
    while not guard.is_off:
        begin = time.monotonic()
        with pytest.raises(PartError):
            guard.call(lambda: 1)
        waited.append(time.monotonic() - begin)
        time.sleep(0.005)
    # one failure more for each 100 ms that it hangs
    assert 0.35 < time.monotonic() - began < 5
    assert sorted(waited)[len(waited) // 2] < 0.01
    facts = guard.stats()
    assert facts["failures"] == 5 and facts["calls"] == 5 + int(str(facts["skipped"]))
    let_go.set()
    guard.end()


def test_a_part_that_hangs_is_left_behind_when_it_is_closed() -> None:
    guard, let_go = Guard("x", 0.02), threading.Event()
    with pytest.raises(PartError):
        guard.call(let_go.wait)
    began = time.monotonic()
    guard.close(lambda: pytest.fail("it is busy"), 0.05)
    guard.close(lambda: pytest.fail("it is closed"), 0.05)
    assert time.monotonic() - began < 2
    let_go.set()


def test_closing_is_done_in_the_thread_of_the_part_and_once(guard: Guard) -> None:
    thread, closed = guard.open(threading.get_ident), []
    guard.close(lambda: closed.append(threading.get_ident()))
    guard.close(lambda: closed.append(threading.get_ident()))
    assert closed == [thread]


def test_nothing_of_a_call_is_kept_after_it(guard: Guard) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    seen = weakref.ref(image)
    guard.call(lambda image=image: image.mean())
    del image
    # the young: a test keeps many old objects
    gc.collect(1)
    assert seen() is None


def test_what_was_lent_for_a_call_is_refused_afterwards() -> None:
    lent = Lent(lambda number: number + 1)
    assert lent(1) == 2
    lent.take_back()
    with pytest.raises(PartError, match="whose time was over"):
        lent(1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"xyxy": np.zeros((2, 4))}, r"Detections.xyxy: expected \(2, 4\) float32, found \(2, 4\) float64"),
        ({"class_id": np.array([0, 3], np.int32)}, "class_id: expected 0 to 2, the classes of the manifest"),
        ({"class_id": [0, 1]}, r"class_id: expected \(2\) int32, found list"),
        ({"keypoints": np.zeros((2, 17, 2), np.float32)}, r"keypoints: expected \(2, K, 3\) float32"),
    ],
)
def test_arrays_of_a_head_that_do_not_fit_are_refused(change: dict[str, object], expected: str) -> None:
    whole = {"xyxy": np.zeros((2, 4), np.float32), "score": np.ones(2, np.float32), "class_id": np.zeros(2, np.int32)}
    assert len(check_prediction(Detections(**whole), 3)) == 2  # type: ignore[arg-type]
    with pytest.raises(PartError, match=expected):
        check_prediction(Detections(**{**whole, **change}), 3)  # type: ignore[arg-type]


def test_what_is_no_prediction_and_no_tracks_is_refused() -> None:
    with pytest.raises(PartError, match=r"expected Detections or another prediction of edge.types, found list"):
        check_prediction([], 3)
    with pytest.raises(PartError, match="expected Tracks, found NoneType"):
        check_tracks(None, 0)


def test_tracks_of_a_tracker_that_do_not_fit_are_refused() -> None:
    one = Tracks(
        np.ones(2, np.int64),
        np.zeros((2, 4), np.float32),
        np.ones(2, np.float32),
        np.zeros(2, np.int32),
        np.zeros(2, np.float32),
        np.zeros((2, 2), np.float32),
        np.array([0, -1], np.int32),
    )
    with pytest.raises(PartError, match="two tracks of one frame have the same id"):
        check_tracks(one, 1)
    with pytest.raises(PartError, match="expected indices of the 0 detections, or -1"):
        check_tracks(one, 0)
    assert len(check_tracks(Tracks.empty(), 3)) == 0
