"""Calls into parts that others have written: each part in a thread of its own, with a deadline, counted.

What a part raises costs one call; what it does too slowly, or never ends, costs the wait for one call.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast, runtime_checkable

from edge.errors import PartError
from edge.threads.worker import Worker, caught, described

log = logging.getLogger(__name__)
Value = TypeVar("Value")
# so many failures in a row are no accident
MAX_IN_A_ROW = 5
# opening may import a large library
OPEN_LIMIT_S = 60.0
# of a call that other streams wait for
PART_LIMIT_S = 0.2
CLOSE_LIMIT_S = 5.0
REPORT_EVERY_S = 1.0


class Guard:
    """Guards one part of one stream. One thread calls at a time; any thread may ask for ``stats``.

    All calls of a part run in the same thread, in the order in which they were made. A call that is not over keeps the
    next one waiting, and is counted as a failure again each time its limit passes.

    Attributes:
        name: of the part, for people: ``door: stage 'blink'``.
        reason: what went wrong last; why it is off, once it is.
        is_off: it failed too often and is not called any more.
    """

    def __init__(self, name: str, limit_s: float, *, is_shared: bool = False, is_silent: bool = False) -> None:
        """Prepare; nothing is called before ``open``.

        Args:
            name: of the part.
            limit_s: how long a call may take.
            is_shared: whether other streams wait meanwhile: while the part is busy, nobody waits for it again.
            is_silent: whether whoever calls says what failed; that it was switched off is always said here.
        """
        self.name = name
        self.reason = ""
        self.is_off = False
        self._limit_s = limit_s
        self._is_shared = is_shared
        self._is_silent = is_silent
        self._calls: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        self._last: _Call[Any] | None = None
        self._worker = Worker(name, lambda _: self._serve())
        self._has_started = self._is_closed = False
        self._num_calls = self._num_failures = self._num_late = self._num_skipped = self._num_in_a_row = 0
        self._failed_s = self._told_s = float("-inf")

    def open(self, act: Callable[[], Value], limit_s: float = OPEN_LIMIT_S) -> Value:
        """Make the part; raises what it raises as ``PartError``, and counts nothing."""
        try:
            return self._run(act, limit_s)
        except PartError:
            self._calls.put(None)
            raise

    def run(self, act: Callable[[], Value]) -> Value:
        """As ``call``, but a failure is not counted: whoever calls gives the part up for it."""
        return self._run(act, self._limit_s)

    def call(self, act: Callable[[], Value]) -> Value:
        """Have the part do something.

        Raises:
            PartError: it failed, was late, is busy with an earlier call, or is off; counted here.
        """
        if self.is_off:
            raise PartError(self.reason)
        self._num_calls += 1
        if not self._is_free():
            raise self._note_busy()
        try:
            value = self._run(act, self._limit_s)
        except PartError as error:
            self._note(str(error))
            raise
        self._num_in_a_row = 0
        return value

    def close(self, act: Callable[[], object], limit_s: float = CLOSE_LIMIT_S) -> None:
        """Close the part and end its thread; a part that hangs is left behind. May be called twice.

        Raises:
            PartError: closing failed or took too long.
        """
        if self._is_closed or not self._has_started:
            return
        self._is_closed = True
        try:
            if self._last is None or self._last.is_over.wait(0.0 if self.is_off else limit_s):
                self._run(act, limit_s)
        finally:
            self._calls.put(None)

    def end(self) -> None:
        """End its thread after what it does now; does not wait."""
        self._calls.put(None)

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        return {
            "state": "off" if self.is_off else "on",
            "reason": self.reason,
            "calls": self._num_calls,
            "failures": self._num_failures,
            "late": self._num_late,
            "skipped": self._num_skipped,
        }

    def _is_free(self) -> bool:
        return self._last is None or self._last.is_over.wait(0.0 if self._is_shared else self._limit_s)

    def _run(self, act: Callable[[], Value], limit_s: float) -> Value:
        if not self._has_started:
            self._has_started = True
            self._worker.start()
        call = self._last = _Call(act)
        self._calls.put(call)
        if not call.is_over.wait(limit_s):
            self._num_late += 1
            raise PartError(f"{self.name}: no answer within {limit_s * 1e3:g} ms")
        # nothing of the call is kept: pictures that were lent go back
        self._last = None
        if call.failure is not None:
            raise PartError(f"{self.name}: {described(call.failure)}") from call.failure
        return cast("Value", call.value)

    def _note_busy(self) -> PartError:
        """It still does what it was asked before: one failure more for each time that its limit passed."""
        text = f"{self.name}: it still works on an earlier call"
        if self._is_shared and time.monotonic() - self._failed_s < self._limit_s:
            self._num_skipped += 1
        else:
            self._num_late += 1
            self._note(text)
        return PartError(text)

    def _note(self, reason: str) -> None:
        self._failed_s = time.monotonic()
        self._num_failures += 1
        self._num_in_a_row += 1
        self.reason = reason
        if self._num_in_a_row >= MAX_IN_A_ROW:
            self.reason = f"{reason}; switched off after {self._num_in_a_row} failures in a row until the next start"
            self.is_off = True
            log.error("%s", self.reason)
        elif not self._is_silent and self._failed_s - self._told_s >= REPORT_EVERY_S:
            self._told_s = self._failed_s
            log.warning("%s (%d failures so far)", reason, self._num_failures)

    def _serve(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """Do one call; its own function, so that nothing of the call is kept while the thread waits for the next."""
        call = self._calls.get()
        if call is None:
            return False
        call.failure = caught(call.run)
        call.is_over.set()
        return True


@runtime_checkable
class Guarded(Protocol):
    """What stands before a part that is guarded."""

    @property
    def guard(self) -> Guard: ...


class Lent:
    """A function that a part may use during one call; later it is refused, for others use the same then."""

    def __init__(self, act: Callable[..., Any]) -> None:
        self._lock = threading.Lock()
        self._act: Callable[..., Any] | None = act

    def __call__(self, *args: Any) -> Any:
        """Raises: PartError: the call is over."""
        with self._lock:
            if self._act is None:
                raise PartError("it asked for something of a frame whose time was over")
            return self._act(*args)

    def take_back(self) -> None:
        """End it; waits for a use that is under way."""
        with self._lock:
            self._act = None


class _Call(Generic[Value]):
    """One call on its way through the thread."""

    def __init__(self, act: Callable[[], Value]) -> None:
        self._act = act
        self.is_over = threading.Event()
        self.value: Value | None = None
        self.failure: BaseException | None = None

    def run(self) -> None:
        self.value = self._act()
