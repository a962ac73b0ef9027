"""The thread of one engine: works off what it is given, in order, and never holds up the end of the process."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from edge.errors import EdgeError, EngineError
from edge.worker import Worker

Value = TypeVar("Value")
# of the job alone: the thread goes on with the next one
FAILURES = (EdgeError, ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


class EngineThread:
    """A daemon thread: those of ``ThreadPoolExecutor`` are waited for without limit when the process ends."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._current: Future[Any] | None = None
        self._is_closed = False
        self._failure: BaseException | None = None
        self._worker = Worker("engine", lambda _: self._run(), self._note_end)
        self._worker.start()

    def submit(self, job: Callable[[], Value]) -> Future[Value]:
        """Have a function called, after all that came before. What it raises is raised where its result is asked for.

        Raises:
            EngineError: after ``end``.
        """
        if self._is_closed:
            raise EngineError("the engine is closed")
        future: Future[Value] = Future()
        self._jobs.put((future, job))
        # it may have ended a moment ago: then nobody else answers this one
        if self._failure is not None:
            self._refuse_waiting(self._failure)
        return future

    def end(self) -> None:
        """Let the thread end after what it was given; does not wait. May be called twice."""
        self._is_closed = True
        self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for its end, so long at most."""
        self._worker.join(timeout_s)

    def _run(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """Do one job; its own function, so that nothing of the job is kept while the thread waits for the next."""
        given = self._jobs.get()
        if given is None:
            return False
        self._current, job = given
        try:
            self._current.set_result(job())
        except FAILURES as error:
            self._current.set_exception(error)
        self._current = None
        return True

    def _note_end(self, worker: Worker) -> None:
        """A failure of no foreseen kind ends the thread: all that waits, and all that comes, hears of it."""
        if worker.failure is None:
            return
        if self._current is not None:
            self._current.set_exception(worker.failure)
        self._failure = worker.failure
        self._refuse_waiting(worker.failure)

    def _refuse_waiting(self, failure: BaseException) -> None:
        while True:
            try:
                given = self._jobs.get_nowait()
            except queue.Empty:
                return
            if given is not None:
                given[0].set_exception(failure)
