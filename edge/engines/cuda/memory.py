"""One tensor on both sides of the bus, allocated once for the largest batch and reused by every batch."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edge.engines.cuda.context import Driver
    from edge.types import Array


class TensorMemory:
    """Pinned host memory and the GPU's view of it.

    Where CPU and GPU share their memory both are the same bytes and nothing is copied.

    Attributes:
        host: (B, …) array, B the largest batch; written before ``upload``, read after ``download`` is done.
        address: of the tensor on the GPU.
    """

    def __init__(self, driver: Driver, shape: tuple[int, ...], dtype: str) -> None:
        self._driver = driver
        self.host: Array = driver.pinned(shape, dtype)
        self.is_mapped = driver.is_integrated
        self._device: Any = None
        if self.is_mapped:
            self.address = driver.mapped_address(self.host)
        else:
            self._device = driver.device_memory(prod(shape) * np.dtype(dtype).itemsize)
            self.address = int(self._device)

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes, on both sides together."""
        return self.host.nbytes * (1 if self.is_mapped else 2)

    def upload(self, batch: int, stream: Any) -> None:
        """Send the first ``batch`` rows to the GPU, in the order of the stream."""
        if not self.is_mapped:
            self._driver.upload(self.address, self.host[:batch], stream)

    def download(self, batch: int, stream: Any) -> None:
        """Fetch the first ``batch`` rows from the GPU, in the order of the stream."""
        if not self.is_mapped:
            self._driver.download(self.host[:batch], self.address, stream)
