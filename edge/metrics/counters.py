"""Counting what happens to frames. Produced = emitted + the drops by cause: nothing may vanish uncounted."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from typing import Generic, TypeVar

import numpy as np

from edge.metrics.stages import Stage, StageNs

WINDOW = 512
Name = TypeVar("Name", bound=str)


class Counters(Generic[Name]):
    """Named counts, added to by several threads; the type says which names there are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Name] = Counter()

    def add(self, name: Name, count: int = 1) -> None:
        with self._lock:
            self._counts[name] += count

    def __getitem__(self, name: Name) -> int:
        with self._lock:
            return self._counts[name]

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return {str(name): count for name, count in self._counts.items()}


class Window:
    """The last values of something measured, for its median and 99th percentile. Written by one thread."""

    def __init__(self, size: int = WINDOW) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        self._values.append(value)

    def values(self) -> list[float]:
        """The last of them, oldest first."""
        return list(self._values)

    def percentiles(self) -> tuple[float, float]:
        """Median and 99th percentile, 0 while there is no value."""
        values = self.values()
        if not values:
            return 0.0, 0.0
        median, high = np.percentile(values, (50, 99))
        return float(median), float(high)


class Rate:
    """Events per second over the last seconds. Written by one thread."""

    def __init__(self, span_s: float = 3.0) -> None:
        self._span_ns = int(span_s * 1e9)
        self._times: deque[int] = deque(maxlen=4096)

    def tick(self, now_ns: int) -> None:
        self._times.append(now_ns)
        while self._times and now_ns - self._times[0] > self._span_ns:
            self._times.popleft()

    def per_second(self, now_ns: int) -> float:
        times = list(self._times)
        start = bisect_left(times, now_ns - self._span_ns)
        if len(times) - start < 2 or times[-1] == times[start]:
            return 0.0
        return (len(times) - start - 1) / ((times[-1] - times[start]) / 1e9)


class StageTimes:
    """Milliseconds per stage of the last frames. Written by one thread."""

    def __init__(self) -> None:
        self._windows: dict[Stage, Window] = {}

    def add(self, stage_ns: StageNs) -> None:
        for stage, spent in stage_ns.items():
            self._windows.setdefault(stage, Window()).add(spent / 1e6)

    def snapshot(self) -> dict[str, dict[str, float]]:
        """Stage → its median and 99th percentile in milliseconds."""
        found: dict[str, dict[str, float]] = {}
        for stage, window in list(self._windows.items()):
            median, high = window.percentiles()
            found[stage] = {"median_ms": round(median, 3), "p99_ms": round(high, 3)}
        return found
