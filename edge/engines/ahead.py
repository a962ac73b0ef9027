"""A CPU engine with a thread of its own: while it runs a batch, the next is fitted in and the last decoded.

Numpy, OpenCV and the engines let go of the interpreter while they work, so this needs no process.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait

import numpy as np

from edge.engines.ahead_thread import EngineThread
from edge.engines.pinning import pin
from edge.interfaces import Engine, TensorInfo
from edge.manifest import InputSpec
from edge.preprocess import Preprocessor
from edge.types import Array, Letterbox, UInt8

log = logging.getLogger(__name__)
# what is under way ends in that time, unless the engine hangs
CLOSE_TIMEOUT_S = 2.0


class AheadEngine:
    """See ``edge.interfaces.Engine`` and ``FrameEngine``; at most two batches are under way."""

    def __init__(self, engine: Engine, spec: InputSpec, cores: Sequence[int] = ()) -> None:
        """Args: the engine, closed with this one; what its input looks like; cores for its thread, none: all."""
        self._engine = engine
        # one is read by the engine while the other one is filled
        self._preprocessors = deque(Preprocessor(spec, engine.max_batch) for _ in range(2))
        self._thread = EngineThread()
        self._thread.submit(lambda: pin(cores)).result()
        # of an engine that is dropped without ``close``
        weakref.finalize(self, self._thread.end)
        self._under_way: deque[Future[Mapping[str, Array]]] = deque()
        self._closing: Future[None] | None = None

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

    def submit_frames(self, images: Sequence[UInt8]) -> list[Letterbox]:
        preprocessor = self._preprocessors[0]
        self._preprocessors.rotate()
        pad_to = self.max_batch if self.is_fixed_batch else 0
        tensor, letterboxes = preprocessor.images(images, pad_to=pad_to)
        self._under_way.append(self._thread.submit(lambda: self._infer(tensor)))
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
        return {name: np.array(values) for name, values in self._engine.infer(tensor).items()}
