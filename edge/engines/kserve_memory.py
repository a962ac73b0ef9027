"""Shared memory between this process and a model server on the same machine: a batch and its answer, without a copy."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient.utils import shared_memory

if TYPE_CHECKING:
    from edge.interfaces import TensorInfo
    from edge.types import Array

# a server that takes longer has other troubles
REGISTER_S, FORGET_S = 2.0, 0.2


class SharedSlot:
    """Room for one batch and its answer. What the server wrote is valid until the slot is used again."""

    def __init__(self, client: Any, num_bytes: int, outputs: Sequence[TensorInfo], max_batch: int) -> None:
        """Make it known to the server.

        Args:
            client: of the server.
            num_bytes: of the largest batch.
            outputs: those whose size is known; the others come with the answer.
            max_batch: rows of the largest batch.

        Raises:
            InferenceServerException, SharedMemoryException: the server, or this machine, has no room.
        """
        self._client = client
        self._outputs: dict[str, tuple[int, int]] = {}
        self.num_input_bytes = num_bytes
        end = num_bytes
        for tensor in outputs:
            size = max_batch * row_bytes(tensor)
            self._outputs[tensor.name] = (end, size)
            end += size
        self.name = f"edge-{os.getpid()}-{secrets.token_hex(8)}"
        self._region = shared_memory.create_shared_memory_region(self.name, self.name, end, create_only=True)
        with ExitStack() as undo:
            undo.callback(self.forget)
            client.register_system_shared_memory(self.name, f"/{self.name}", end, client_timeout=REGISTER_S)
            undo.pop_all()

    def write(self, tensor: Array, given: Any) -> None:
        """Put a batch in, and tell the request where it is."""
        shared_memory.set_shared_memory_region(self._region, [tensor])
        given.set_shared_memory(self.name, tensor.nbytes)

    def ask(self, wanted: Any, name: str) -> None:
        """Tell the request where the server shall put an output."""
        if name in self._outputs:
            offset, size = self._outputs[name]
            wanted.set_shared_memory(self.name, size, offset)

    def read(self, name: str, dtype: str, shape: tuple[int, ...]) -> Array | None:
        """An output; None for one that came with the answer. Raises: ValueError: it is larger than agreed."""
        if name not in self._outputs:
            return None
        offset, size = self._outputs[name]
        if math.prod(shape) * np.dtype(dtype).itemsize > size:
            raise ValueError(f"output {name!r}: {shape} {dtype} is more than the {size} bytes that were agreed")
        # memory that somebody looks at cannot be freed
        found: Array = np.array(shared_memory.get_contents_as_numpy(self._region, np.dtype(dtype), list(shape), offset))
        return found

    def unregister(self) -> None:
        """Have the server forget it. Raises: InferenceServerException: it does not answer."""
        self._client.unregister_system_shared_memory(self.name, client_timeout=FORGET_S)

    def forget(self) -> None:
        """Free the memory here; a server that still writes keeps its own hold of it."""
        shared_memory.destroy_shared_memory_region(self._region)


def row_bytes(tensor: TensorInfo) -> int:
    """Bytes of one row of an output whose sizes are all known."""
    return math.prod(size or 0 for size in tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize


def sized(tensors: Sequence[TensorInfo]) -> list[TensorInfo]:
    """Those of which every row has the same size."""
    return [tensor for tensor in tensors if None not in tensor.shape[1:]]
