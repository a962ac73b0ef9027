"""Queues from one thread to another: what all of them share, and the one that is bounded by its number of items."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class HandOver(Generic[Item]):
    """Items that wait for the thread that takes them. What may wait is up to the kind of queue."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        # written under the lock, read by whoever watches over progress
        self.num_taken = 0

    def get(self, timeout_s: float | None = None) -> Item | None:
        """The oldest item; None when closed and empty, or when the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_closed, timeout_s)
            if not self._items:
                return None
            item = self._items.popleft()
            self.num_taken += 1
            self._on_taken(item)
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Nothing more will come; what waits can still be taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Nothing more will come."""
        with self._changed:
            return self._is_closed

    @property
    def is_finished(self) -> bool:
        """Closed and empty."""
        with self._changed:
            return self._is_closed and not self._items

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)

    def _on_taken(self, item: Item) -> None:
        """An item has left; called under the lock."""


class DropQueue(HandOver[Item]):
    """Bounded by the number of its items: where it is full, the oldest is dropped, or the giver waits."""

    def __init__(self, capacity: int, *, is_lossless: bool, on_drop: Callable[[Item], None]) -> None:
        """Args: how many items wait at most, whether a giver waits for room, who is told of a dropped item."""
        super().__init__()
        self._capacity = capacity
        self._is_lossless = is_lossless
        self._on_drop = on_drop

    def put(self, item: Item) -> None:
        """Hand over an item; after ``close`` it is dropped."""
        dropped: Item | None = None
        with self._changed:
            if self._is_lossless:
                self._changed.wait_for(lambda: len(self._items) < self._capacity or self._is_closed)
            if self._is_closed:
                dropped = item
            else:
                if len(self._items) >= self._capacity:
                    dropped = self._items.popleft()
                self._items.append(item)
            self._changed.notify_all()
        if dropped is not None:
            self._on_drop(dropped)
