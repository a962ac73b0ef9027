"""What is told at the end of a run: different tracks, crossings, visits; and a budget of frames."""

from __future__ import annotations

import threading

import numpy as np

from edge.pipeline.tally import MAX_KNOWN, FrameBudget, Tally
from edge.types import Detections, Event, Frame, Result, Tracks


def result(ids: list[int], classes: list[int], events: tuple[Event, ...] = ()) -> Result:
    count = len(ids)
    tracks = Tracks(
        track_id=np.array(ids, np.int64),
        xyxy=np.zeros((count, 4), np.float32),
        score=np.ones(count, np.float32),
        class_id=np.array(classes, np.int32),
        age=np.zeros(count, np.int32),
        velocity=np.zeros((count, 2), np.float32),
        detection=np.arange(count, dtype=np.int32),
    )
    frame = Frame("door", 0, 0, 0, None, np.zeros((4, 4, 3), np.uint8))
    return Result(frame, Detections.empty(), tracks, events)


def test_a_track_counts_once_however_many_frames_show_it() -> None:
    tally = Tally(["person", "car"])
    for _ in range(10):
        tally.add(result([1, 2], [0, 1]))
    tally.add(result([2, 3], [1, 1]))
    told = tally.as_dict()
    assert (told["tracks"], told["tracks_by_class"]) == (3, {"car": 2, "person": 1})


def test_memory_is_bounded_and_tracks_in_view_stay_known() -> None:
    tally = Tally(["person"])
    for number in range(1, 2 * MAX_KNOWN):
        tally.add(result([0, number], [0, 0]))
    assert tally.as_dict()["tracks"] == 2 * MAX_KNOWN
    assert len(tally._known) == MAX_KNOWN


def test_crossings_and_visits_are_counted_by_class_and_what_never_happened_is_0() -> None:
    tally = Tally(["person"], ["gate", "door"], ["yard"])
    crossed = Event("line_crossed", "door", 0, 1, {"line": "gate", "direction": "in", "class": "person"})
    entered = Event("zone_entered", "door", 0, 1, {"zone": "yard", "class": "person"})
    tally.add(result([], [], (crossed, crossed, entered, Event("camera_frozen", "door", 0))))
    told = tally.as_dict()
    assert told["lines"]["gate"] == {"in": 2, "out": 0, "by_class": {"in": {"person": 2}, "out": {}}}
    assert told["lines"]["door"]["in"] == told["lines"]["door"]["out"] == 0
    assert (told["zones"]["yard"]["entered"], told["zones"]["yard"]["left"]) == (1, 0)


def test_a_budget_is_exact_over_many_threads() -> None:
    budget, taken = FrameBudget(1000), []
    threads = [threading.Thread(target=lambda: taken.append(sum(budget.take() for _ in range(400)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1000
