"""An engine that finds nothing, for measuring everything around the engine, and for fault drills."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import EngineError
from edge.interfaces import TensorInfo

if TYPE_CHECKING:
    from edge.models.manifest import InputSpec
    from edge.types import Array


class NullEngine:
    """Takes any batch and gives ``boxes``, ``scores`` and ``labels`` of zero; see ``edge.interfaces.Engine``."""

    name = "null"
    is_fixed_batch = False

    def __init__(
        self, spec: InputSpec, *, max_batch: int = 16, seconds: float = 0.0, fail_at: int | None = None
    ) -> None:
        """Args: what it takes, the largest batch, how long a batch takes, the batch at which it breaks."""
        size = (spec.height, spec.width)
        shape = (None, *size, 3) if spec.layout == "nhwc" else (None, 3, *size)
        self.max_batch = max_batch
        self.inputs: Sequence[TensorInfo] = [TensorInfo(spec.name, shape, spec.dtype)]
        self.outputs: Sequence[TensorInfo] = [
            TensorInfo("boxes", (None, 1, 4), "float32"),
            TensorInfo("scores", (None, 1), "float32"),
            TensorInfo("labels", (None, 1), "int32"),
        ]
        self._seconds = seconds
        self._fail_at = fail_at
        self._num_batches = 0
        self._boxes = np.zeros((max_batch, 1, 4), np.float32)
        self._scores = np.zeros((max_batch, 1), np.float32)
        self._labels = np.zeros((max_batch, 1), np.int32)

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        if self._num_batches == self._fail_at:
            raise EngineError(f"null: broke at batch {self._fail_at}, as it was told to")
        self._num_batches += 1
        if self._seconds:
            time.sleep(self._seconds)
        size = len(tensor)
        return {"boxes": self._boxes[:size], "scores": self._scores[:size], "labels": self._labels[:size]}

    def close(self) -> None:
        self._fail_at = self._num_batches
