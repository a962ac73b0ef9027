"""Frames of any size into the engine's input, on the GPU: uploaded as they are, fitted in by the letterbox kernel.

Shape letters: B batch, H W frame pixels. A picture is (H, W, 3) BGR, or NV12 as OpenCV has it: (H * 3 / 2, W), the
luma rows first and the rows of U V pairs behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.engines.cuda.launches import Colours, Picture, letterboxes
from edge.engines.cuda.memory import TensorMemory
from edge.models.preprocess import fit

if TYPE_CHECKING:
    from edge.engines.cuda.context import Driver
    from edge.models.manifest import InputSpec
    from edge.types import Letterbox, UInt8

# memory grows in these steps, so that a camera that changes its size a little changes nothing
STEP_BYTES = 1 << 20
HD_HEIGHT = 720


class FrameFitter:
    """Fits the frames of one batch in flight. Each row has memory for one frame, which only ever grows."""

    def __init__(self, driver: Driver, kernels: Any, spec: InputSpec) -> None:
        """Args: the GPU, the loaded kernels, the engine's input as the manifest describes it."""
        self._driver = driver
        self._kernels = kernels
        self._spec = spec
        self._staging: list[TensorMemory] = []

    def write(self, images: Sequence[UInt8], address: int, stream: Any) -> list[Letterbox]:
        """Issue the uploads and the kernels on a stream; the images may change once this returns.

        Args:
            images: B pictures of any sizes.
            address: of the engine's input.

        Raises:
            GpuError: no memory for a larger frame, or a kernel could not be started.
        """
        frames = []
        for row, image in enumerate(images):
            memory = self._memory(row, image.nbytes)
            np.copyto(memory.host[: image.nbytes].reshape(image.shape), image)
            memory.upload(image.nbytes, stream)
            frames.append(self._placed(image.shape, memory.address))
        for step in letterboxes(self._spec, frames, address):
            self._driver.launch(self._kernels, step, stream)
        return [box for box, _ in frames]

    def close(self) -> None:
        """Give the memory back; call it in the driver's scope, when nothing runs any more."""
        self._staging.clear()

    def _placed(self, shape: tuple[int, ...], source: int) -> tuple[Letterbox, Picture]:
        if len(shape) == 3:
            height, width, channels = shape
            return fit(width, height, self._spec), Picture(source, width * channels)
        rows, width = shape
        height = rows * 2 // 3
        if rows % 3 or width % 2 or height % 2:
            raise ValueError(f"expected NV12 of an even width and height, found an array of {rows}x{width}")
        # a matrix is not told: cameras of these sizes send that of their standard (ITU-R BT.601 and BT.709)
        colours = Colours("bt709" if height >= HD_HEIGHT else "bt601")
        return fit(width, height, self._spec), Picture.nv12(source, width, source + width * height, width, colours)

    def _memory(self, row: int, num_bytes: int) -> TensorMemory:
        while len(self._staging) <= row:
            self._staging.append(self._new(num_bytes))
        if len(self._staging[row].host) < num_bytes:
            # the batch before this one is done with it: its slot was collected
            with self._driver.scope():
                self._staging[row] = self._new(num_bytes)
        return self._staging[row]

    def _new(self, num_bytes: int) -> TensorMemory:
        return TensorMemory(self._driver, (-(-num_bytes // STEP_BYTES) * STEP_BYTES,), "uint8")
