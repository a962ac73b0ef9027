"""The engine of an installed package as the pipeline runs it: with a deadline, and its outputs looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import EngineError, PartError

if TYPE_CHECKING:
    from edge.interfaces import Engine, TensorInfo
    from edge.threads.guard import Guard
    from edge.types import Array


class GuardedEngine:
    """See ``edge.interfaces.Engine``. Every failure is an ``EngineError`` that the next batch may not have."""

    def __init__(self, engine: Engine, guard: Guard) -> None:
        """Args: the engine, closed with this one; counts what goes wrong."""
        self._engine = engine
        self.guard = guard
        self.name, self.max_batch, self.is_fixed_batch = engine.name, engine.max_batch, engine.is_fixed_batch
        self.inputs: Sequence[TensorInfo] = tuple(engine.inputs)
        self.outputs: Sequence[TensorInfo] = tuple(engine.outputs)

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        try:
            return self.guard.call(lambda: self._checked(self._engine.infer(tensor), len(tensor)))
        except PartError as error:
            raise EngineError(str(error)) from None

    def close(self) -> None:
        try:
            self.guard.close(self._engine.close)
        except PartError as error:
            raise EngineError(str(error)) from None

    def _checked(self, outputs: Mapping[str, Array], batch: int) -> Mapping[str, Array]:
        for tensor in self.outputs:
            found = outputs[tensor.name]
            if not isinstance(found, np.ndarray) or found.dtype != tensor.dtype or len(found) != batch:
                facts = f"{found.shape} {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
                raise PartError(f"output {tensor.name!r}: expected {batch} rows of {tensor.dtype}, found {facts}")
        return outputs
