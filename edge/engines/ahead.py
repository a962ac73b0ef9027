"""A CPU engine with a thread of its own: while it runs a batch, the next is fitted in and the last decoded.

Numpy, OpenCV and the engines let go of the interpreter while they work, so this needs no process.
"""

from __future__ import annotations

import logging
import queue
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edge.engines.pinning import pin
from edge.errors import EdgeError, EngineError
from edge.interfaces import GivesAway
from edge.models.preprocess import Preprocessor
from edge.threads.worker import Worker

if TYPE_CHECKING:
    from edge.interfaces import Engine, TensorInfo
    from edge.models.manifest import InputSpec
    from edge.pictures.planes import Planes
    from edge.types import Array, Letterbox, UInt8

log = logging.getLogger(__name__)
Value = TypeVar("Value")
# of the job alone: the thread goes on with the next one
FAILURES = (EdgeError, ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
# what is under way ends in that time, unless the engine hangs
CLOSE_TIMEOUT_S = 2.0


class AheadEngine:
    """See ``edge.interfaces.Engine`` and ``PlaneEngine``; at most two batches are under way."""

    takes_planes = True

    def __init__(self, engine: Engine, spec: InputSpec, cores: Sequence[int] = ()) -> None:
        """Args: the engine, closed with this one; what its input looks like; cores for its thread, none: all."""
        self._engine = engine
        # one is read by the engine while the other one is filled
        self._preprocessors = deque(Preprocessor(spec, engine.max_batch) for _ in range(2))
        # of the batch that is decoded and of two that may have ended meanwhile: no memory is asked for again
        self._kept: deque[dict[str, Array]] = deque(({}, {}, {}))
        self._thread = EngineThread()
        self._thread.submit(lambda: pin(cores)).result()
        # of an engine that is dropped without ``close``
        weakref.finalize(self, self._thread.end)
        self._under_way: deque[Future[Mapping[str, Array]]] = deque()
        self._closing: Future[None] | None = None
        self.on_answer: Callable[[], object] = lambda: None

    @property
    def has_answer(self) -> bool:
        """Whether ``collect`` would not wait; ``on_answer`` is called in the engine's thread when that changes."""
        return bool(self._under_way) and self._under_way[0].done()

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def inputs(self) -> Sequence[TensorInfo]:
        return self._engine.inputs

    @property
    def outputs(self) -> Sequence[TensorInfo]:
        return self._engine.outputs

    @property
    def max_batch(self) -> int:
        return self._engine.max_batch

    @property
    def is_fixed_batch(self) -> bool:
        return self._engine.is_fixed_batch

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        return self._thread.submit(lambda: self._engine.infer(tensor)).result()

    def submit_frames(self, images: Sequence[UInt8 | Planes]) -> list[Letterbox]:
        preprocessor = self._preprocessors[0]
        self._preprocessors.rotate()
        pad_to = self.max_batch if self.is_fixed_batch else 0
        tensor, letterboxes = preprocessor.images(images, pad_to=pad_to)
        future = self._thread.submit(lambda: self._infer(tensor))
        self._under_way.append(future)
        future.add_done_callback(lambda _: self.on_answer())
        return letterboxes

    def collect(self) -> Mapping[str, Array]:
        return self._under_way.popleft().result()

    def close(self) -> None:
        """End it, at the latest after ``CLOSE_TIMEOUT_S``: one that hangs is closed if it ever comes back."""
        if self._closing is None:
            # by its own thread: nothing else knows when the engine is not in use
            self._closing = self._thread.submit(self._engine.close)
            self._thread.end()
        self._under_way.clear()
        if not wait([self._closing], CLOSE_TIMEOUT_S).done:
            log.error("%s: the engine hangs; it did not end within %g s", self.name, CLOSE_TIMEOUT_S)
            return
        self._closing.result()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _infer(self, tensor: Array) -> Mapping[str, Array]:
        # the next batch may begin before these are decoded
        outputs = self._engine.infer(tensor)
        if isinstance(self._engine, GivesAway) and self._engine.gives_away:
            return outputs
        self._kept.rotate()
        kept = self._kept[0]
        for name, values in outputs.items():
            if name not in kept or kept[name].shape != values.shape or kept[name].dtype != values.dtype:
                kept[name] = np.empty_like(values)
            np.copyto(kept[name], values)
        return {name: kept[name] for name in outputs}


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
