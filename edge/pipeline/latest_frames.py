"""The hand-over from many streams to one thread: the newest item of each, taken fairly, and honest about what it drops.

Each stream either drops its oldest item when full (live: the newest matters) or makes the giver wait (files: all
matter).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

Item = TypeVar("Item")


class StreamSlot(Generic[Item]):
    """What waits of one stream; the handle by which its giver puts frames. Its content belongs to ``LatestFrames``."""

    def __init__(
        self,
        stream: str,
        group: str,
        capacity: int,
        is_lossless: bool,
        on_drop: Callable[[Item], None],
        has_room: Callable[[], bool],
        weight: float,
        lock: threading.Lock,
    ) -> None:
        # who waits for room here must not be woken by what happens to other streams
        self.taken = threading.Condition(lock)
        self.stream = stream
        self.weight = weight
        self.group = group
        self.has_room = has_room
        self.capacity = capacity
        self.is_lossless = is_lossless
        self.on_drop = on_drop
        self.frames: deque[Item] = deque()
        self.last_turn = -1
        # when it is due in virtual time, which goes on by 1 / weight with each frame (start-time fair queueing)
        self.due = 0.0
        self.is_ended = False

    def is_ready(self) -> bool:
        return bool(self.frames) and self.has_room()

    def turn(self) -> tuple[float, int]:
        """The least comes first."""
        return self.due, self.last_turn


class LatestFrames(Generic[Item]):
    """The newest frame of every stream, grouped by model; the stream that was served longest ago comes first."""

    def __init__(self) -> None:
        self._slots: dict[str, StreamSlot[Item]] = {}
        self._lock = threading.Lock()
        self._given = threading.Condition(self._lock)
        self._turn = 0
        self._virtual_time = 0.0
        self._is_stopped = False

    def add(
        self,
        stream: str,
        *,
        group: str,
        is_lossless: bool,
        on_drop: Callable[[Item], None],
        has_room: Callable[[], bool] = lambda: True,
        capacity: int = 1,
        weight: float = 1.0,
    ) -> StreamSlot[Item]:
        """Begin a stream; a former one of this name is not wanted any more.

        Args:
            stream: its name.
            group: streams of the same group may share a batch.
            is_lossless: whether the giver waits for room instead of dropping the oldest frame.
            on_drop: told of every dropped frame, in the giver's thread.
            has_room: whether the stream's results can be taken; while not, its frames wait (call ``wake`` after a
                change), so that a slow output holds back its own stream and no other.
            capacity: frames that may wait.
            weight: under overload a stream of weight 2 is served twice as often as one of weight 1.

        Returns:
            The handle for ``put``, ``end`` and ``remove``: who comes late with it touches no later stream of this name.
        """
        slot = StreamSlot(stream, group, capacity, is_lossless, on_drop, has_room, weight, self._lock)
        with self._lock:
            self._slots[stream] = slot
        return slot

    def remove(self, slot: StreamSlot[Item]) -> None:
        """Forget a stream; frames that waited are dropped. May be called twice."""
        with self._lock:
            if self._slots.get(slot.stream) is slot:
                del self._slots[slot.stream]
            dropped = list(slot.frames)
            slot.frames.clear()
            self._given.notify_all()
            slot.taken.notify_all()
        for frame in dropped:
            slot.on_drop(frame)

    def put(self, slot: StreamSlot[Item], frame: Item) -> bool:
        """Hand over a frame; False when the stream is not wanted any more (the frame was dropped)."""
        with self._lock:
            if slot.is_lossless:
                slot.taken.wait_for(lambda: len(slot.frames) < slot.capacity or self._is_gone(slot))
            # after ``end`` nobody may come by any more to take it, and it would be neither emitted nor counted
            if slot.is_ended or self._is_gone(slot):
                return False
            dropped = slot.frames.popleft() if len(slot.frames) >= slot.capacity else None
            slot.frames.append(frame)
            self._given.notify_all()
        if dropped is not None:
            slot.on_drop(dropped)
        return True

    def end(self, slot: StreamSlot[Item]) -> None:
        """No more frames will come from this stream; those that wait can still be taken."""
        with self._lock:
            slot.is_ended = True
            slot.taken.notify_all()
            self._given.notify_all()

    def take(
        self,
        max_batch: Mapping[str, int],
        linger_s: Mapping[str, float],
        timeout_s: float,
        has_other_work: Callable[[], bool] = lambda: False,
    ) -> list[Item]:
        """Wait for frames and take at most one per stream, all of one group.

        Args:
            max_batch: group → the most frames at once; those of other groups stay.
            linger_s: group → how long to wait for further streams of the group once a frame is there.
            timeout_s: how long to wait for the first frame.
            has_other_work: ends the wait for the first frame (call ``wake`` after a change); it must not wait itself.

        Returns:
            Frames, the stream served longest ago first; none when the time is over or ``stop`` was called.
        """
        with self._lock:
            self._given.wait_for(
                lambda: self._is_stopped or self._group_in_turn(max_batch) is not None or has_other_work(), timeout_s
            )
            group = self._group_in_turn(max_batch)
            if group is None or self._is_stopped:
                return []
            self._linger(group, max_batch[group], linger_s[group])
            return [self._pop(slot) for slot in self._waiting(group)[: max_batch[group]]]

    def discard(self, streams: Collection[str]) -> list[Item]:
        """Take out all that waits of these streams, and give it to nobody else."""
        with self._lock:
            found = [frame for name in streams if name in self._slots for frame in self._slots[name].frames]
            for slot in (self._slots[name] for name in streams if name in self._slots):
                slot.frames.clear()
                slot.taken.notify_all()
        return found

    def ended(self) -> set[str]:
        """Streams that have ended and of which nothing waits any more."""
        with self._lock:
            return {name for name, slot in self._slots.items() if slot.is_ended and not slot.frames}

    def waiting(self) -> dict[str, int]:
        """Stream → frames that wait."""
        with self._lock:
            return {name: len(slot.frames) for name, slot in self._slots.items()}

    @property
    def num_taken(self) -> int:
        """Frames that were taken so far."""
        return self._turn

    def wake(self) -> None:
        """Say that an output has room again, or that there is other work for who takes."""
        with self._lock:
            self._given.notify_all()

    def stop(self) -> None:
        """Wake everybody; nothing can be put or taken any more."""
        with self._lock:
            self._is_stopped = True
            self._given.notify_all()
            for slot in self._slots.values():
                slot.taken.notify_all()

    def _is_gone(self, slot: StreamSlot[Item]) -> bool:
        return self._is_stopped or self._slots.get(slot.stream) is not slot

    def _group_in_turn(self, groups: Collection[str]) -> str | None:
        ready = [slot for slot in self._slots.values() if slot.group in groups and slot.is_ready()]
        return min(ready, key=StreamSlot.turn).group if ready else None

    def _waiting(self, group: str) -> list[StreamSlot[Item]]:
        ready = [slot for slot in self._slots.values() if slot.group == group and slot.is_ready()]
        return sorted(ready, key=StreamSlot.turn)

    def _linger(self, group: str, max_batch: int, linger_s: float) -> None:
        """Wait a little for other streams of the group, unless nothing more can come."""
        deadline = time.monotonic() + linger_s
        while not self._is_stopped:
            alive = sum(
                1 for slot in self._slots.values() if slot.group == group and (slot.frames or not slot.is_ended)
            )
            left = deadline - time.monotonic()
            if left <= 0 or len(self._waiting(group)) >= min(max_batch, alive):
                return
            self._given.wait(left)

    def _pop(self, slot: StreamSlot[Item]) -> Item:
        self._turn += 1
        slot.last_turn = self._turn
        # a stream that was silent has saved up nothing
        start = max(slot.due, self._virtual_time)
        self._virtual_time, slot.due = start, start + 1 / slot.weight
        slot.taken.notify()
        return slot.frames.popleft()
