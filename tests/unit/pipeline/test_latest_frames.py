from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.pipeline.latest_frames import LatestFrames, StreamSlot
from edge.threads.drop_queue import DropQueue
from edge.types import Frame

IMAGE = np.zeros((2, 2, 3), np.uint8)


def frame(stream: str, seq: int) -> Frame:
    return Frame(stream, 0, seq, seq, None, IMAGE)


def make(
    streams: dict[str, str], *, is_lossless: bool = False
) -> tuple[LatestFrames, dict[str, StreamSlot], Counter[str]]:
    """LatestFrames with these streams (name → group), their handles, and a count of drops."""
    latest, drops = LatestFrames(), Counter[str]()
    slots = {name: add(latest, name, group, drops, is_lossless=is_lossless) for name, group in streams.items()}
    return latest, slots, drops


def add(latest: LatestFrames, name: str, group: str, drops: Counter[str], *, is_lossless: bool = False) -> StreamSlot:
    return latest.add(name, group=group, is_lossless=is_lossless, on_drop=lambda gone: drops.update([gone.stream]))


def take(latest: LatestFrames, max_batch: int = 8, linger_s: float = 0.0) -> list[tuple[str, int]]:
    groups = ("a", "b")
    frames = latest.take(dict.fromkeys(groups, max_batch), dict.fromkeys(groups, linger_s), 0.0)
    return [(item.stream, item.seq) for item in frames]


def test_newest_frame_wins_and_the_older_one_is_counted() -> None:
    latest, slots, drops = make({"door": "a"})
    for seq in range(5):
        latest.put(slots["door"], frame("door", seq))
    assert take(latest) == [("door", 4)]
    assert drops["door"] == 4


def test_a_batch_holds_one_frame_of_each_stream_of_one_group() -> None:
    latest, slots, _ = make({"x": "a", "y": "a", "z": "b"})
    for name in ("x", "y", "z"):
        latest.put(slots[name], frame(name, 0))
    assert sorted(take(latest)) == [("x", 0), ("y", 0)]
    assert take(latest) == [("z", 0)]


def test_the_stream_served_longest_ago_comes_first_however_fast_the_others_are() -> None:
    latest, slots, _ = make({"fast": "a", "slow": "a"})
    served: Counter[str] = Counter()
    for turn in range(100):
        latest.put(slots["fast"], frame("fast", turn))
        if turn % 2 == 0:
            latest.put(slots["slow"], frame("slow", turn))
        served.update(name for name, _ in take(latest, max_batch=1))
    assert served["slow"] >= 49


def test_taking_waits_at_most_linger_for_the_other_streams() -> None:
    latest, slots, _ = make({"x": "a", "y": "a"})
    latest.put(slots["x"], frame("x", 0))
    later = threading.Timer(0.05, lambda: latest.put(slots["y"], frame("y", 0)))
    later.start()
    assert sorted(take(latest, linger_s=5.0)) == [("x", 0), ("y", 0)]


def test_an_ended_stream_is_not_waited_for() -> None:
    latest, slots, _ = make({"x": "a", "y": "a"})
    latest.end(slots["y"])
    latest.put(slots["x"], frame("x", 0))
    done = threading.Event()
    thread = threading.Thread(target=lambda: (take(latest, linger_s=30.0), done.set()))
    thread.start()
    assert done.wait(5)


def test_a_lossless_giver_waits_for_room_and_loses_nothing() -> None:
    latest, slots, drops = make({"file": "a"}, is_lossless=True)
    giver = threading.Thread(target=lambda: [latest.put(slots["file"], frame("file", seq)) for seq in range(50)])
    giver.start()
    taken: list[int] = []
    while len(taken) < 50:
        taken += [item.seq for item in latest.take({"a": 4}, {"a": 0.0}, 5.0)]
    giver.join(5)
    assert taken == list(range(50))
    assert not drops


def test_a_stream_without_room_waits_and_holds_nobody_back() -> None:
    latest = LatestFrames()
    has_room = threading.Event()
    stuck = latest.add("stuck", group="a", is_lossless=True, on_drop=lambda _: None, has_room=has_room.is_set)
    free = latest.add("free", group="a", is_lossless=True, on_drop=lambda _: None)
    latest.put(stuck, frame("stuck", 0))
    latest.put(free, frame("free", 0))
    assert take(latest) == [("free", 0)]
    assert take(latest) == []
    has_room.set()
    latest.wake()
    assert take(latest) == [("stuck", 0)]


def test_stopping_wakes_a_giver_that_waits() -> None:
    latest, slots, _ = make({"file": "a"}, is_lossless=True)
    latest.put(slots["file"], frame("file", 0))
    results: list[bool] = []
    giver = threading.Thread(target=lambda: results.append(latest.put(slots["file"], frame("file", 1))))
    giver.start()
    latest.stop()
    giver.join(5)
    assert results == [False]


def test_removing_a_stream_counts_what_waited() -> None:
    latest, slots, drops = make({"door": "a"})
    latest.put(slots["door"], frame("door", 0))
    latest.remove(slots["door"])
    assert drops["door"] == 1
    assert latest.put(slots["door"], frame("door", 1)) is False


def test_a_late_giver_touches_no_later_stream_of_the_same_name() -> None:
    latest, slots, drops = make({"door": "a"})
    old = slots["door"]
    latest.remove(old)
    new = add(latest, "door", "a", drops)
    assert latest.put(old, frame("door", 7)) is False
    latest.end(old)
    latest.remove(old)
    assert latest.ended() == set()
    assert latest.put(new, frame("door", 0))
    assert take(latest) == [("door", 0)]


def test_a_lossless_giver_that_waits_is_sent_away_when_its_stream_begins_anew() -> None:
    latest, slots, drops = make({"door": "a"}, is_lossless=True)
    latest.put(slots["door"], frame("door", 0))
    results: list[bool] = []
    giver = threading.Thread(target=lambda: results.append(latest.put(slots["door"], frame("door", 1))))
    giver.start()
    latest.remove(slots["door"])
    add(latest, "door", "a", drops, is_lossless=True)
    giver.join(5)
    assert results == [False]
    assert latest.waiting() == {"door": 0}


@given(st.lists(st.sampled_from(["put x", "put y", "take"]), max_size=200))
def test_every_frame_comes_out_or_is_counted(actions: list[str]) -> None:
    latest, slots, drops = make({"x": "a", "y": "a"})
    given_count, taken = 0, 0
    for seq, action in enumerate(actions):
        if action == "take":
            taken += len(take(latest))
        else:
            latest.put(slots[action[-1]], frame(action[-1], seq))
            given_count += 1
    assert given_count == taken + sum(drops.values()) + sum(latest.waiting().values())


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 5))
def test_a_drop_queue_keeps_order_and_counts(puts: list[bool], capacity: int) -> None:
    dropped: list[int] = []
    queue: DropQueue[int] = DropQueue(capacity, is_lossless=False, on_drop=dropped.append)
    taken: list[int] = []
    number = 0
    for is_put in puts:
        if is_put:
            queue.put(number)
            number += 1
        elif (item := queue.get(0.0)) is not None:
            taken.append(item)
        assert len(queue) <= capacity
    assert taken == sorted(taken)
    assert len(taken) + len(dropped) + len(queue) == number


def test_a_queue_counts_what_was_taken_for_whoever_watches_over_progress() -> None:
    queue: DropQueue[int] = DropQueue(4, is_lossless=False, on_drop=lambda _: None)
    for item in range(3):
        queue.put(item)
    assert queue.num_taken == 0
    assert [queue.get(0.0) for _ in range(4)] == [0, 1, 2, None]
    assert queue.num_taken == 3


def test_a_stream_that_was_silent_has_saved_up_no_turns() -> None:
    latest, slots, _ = make({"busy": "a", "silent": "a"})
    for turn in range(50):
        latest.put(slots["busy"], frame("busy", turn))
        assert take(latest, max_batch=1) == [("busy", turn)]
    served = []
    for turn in range(50, 58):
        for name in ("busy", "silent"):
            latest.put(slots[name], frame(name, turn))
        served += [name for name, _ in take(latest, max_batch=1)]
    assert served.count("busy") == served.count("silent") == 4


def test_a_closed_queue_gives_what_waits_and_then_nothing() -> None:
    queue: DropQueue[int] = DropQueue(2, is_lossless=True, on_drop=lambda _: None)
    queue.put(1)
    queue.close()
    assert not queue.is_finished
    assert queue.get(1.0) == 1
    assert queue.get(1.0) is None
    assert queue.is_finished


def test_closing_wakes_a_giver_that_waits() -> None:
    dropped: list[int] = []
    queue: DropQueue[int] = DropQueue(1, is_lossless=True, on_drop=dropped.append)
    queue.put(1)
    giver = threading.Thread(target=lambda: queue.put(2))
    giver.start()
    queue.close()
    giver.join(5)
    assert not giver.is_alive()
    assert dropped == [2]


@pytest.mark.parametrize("count", [1, 3])
def test_a_worker_keeps_its_failure_and_tells_its_owner(count: int) -> None:
    from edge.threads.worker import Worker

    ended: list[Worker] = []

    def fail(_: threading.Event) -> None:
        raise RuntimeError("boom")

    workers = [Worker(f"w{index}", fail, ended.append) for index in range(count)]
    for worker in workers:
        worker.start()
    assert all(worker.join(5) for worker in workers)
    assert len(ended) == count
    assert all(isinstance(worker.failure, RuntimeError) for worker in workers)
