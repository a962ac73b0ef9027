"""Frames of any size into the engine's input, on the GPU: uploaded as they are, fitted in by the letterbox kernel.

Shape letters: B batch, H W frame pixels. A picture is ``Planes`` (BGR, I420, NV12), (H, W, 3) BGR, or NV12 as OpenCV
has it: (H * 3 / 2, W), the luma rows first and the rows of U V pairs behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge.engines.cuda.launches import Picture, letterboxes
from edge.engines.cuda.memory import TensorMemory
from edge.models.preprocess import fit
from edge.pictures.on_gpu import GpuPlanes
from edge.pictures.planes import Colour, PlaneForm, Planes

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
        self._in_use: Sequence[Planes] = ()

    def write(self, images: Sequence[UInt8 | Planes], address: int, stream: Any) -> list[Letterbox]:
        """Issue the uploads and the kernels on a stream; the images may change once this returns.

        Args:
            images: B pictures of any sizes.
            address: of the engine's input.

        Raises:
            GpuError: no memory for a larger frame, or a kernel could not be started.
        """
        frames = []
        pictures = [_planes(image) for image in images]
        if any(self._is_here(picture) for picture in pictures):
            self._driver.after_default_stream(stream)
        # what the decoder left on this GPU stays until the batch is done: its slot was collected before the next write
        self._in_use = pictures
        for row, picture in enumerate(pictures):
            if self._is_here(picture):
                frames.append((fit(*picture.size, self._spec), _decoded(picture)))
                continue
            memory = self._memory(row, picture.form.num_bytes)
            # behind each other, whatever lies between the decoder's rows
            picture.form.over(memory.host).take(picture)
            memory.upload(picture.form.num_bytes, stream)
            frames.append((fit(*picture.size, self._spec), _placed(picture.form, memory.address)))
        for step in letterboxes(self._spec, frames, address):
            self._driver.launch(self._kernels, step, stream)
        return [box for box, _ in frames]

    def close(self) -> None:
        """Give the memory back; call it in the driver's scope, when nothing runs any more."""
        self._staging.clear()
        self._in_use = ()

    def _is_here(self, picture: Planes) -> bool:
        return isinstance(picture, GpuPlanes) and picture.device == self._driver.index

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


def _planes(image: UInt8 | Planes) -> Planes:
    if isinstance(image, Planes) or image.ndim == 3:
        return Planes.of(image)
    rows, width = image.shape
    height = rows * 2 // 3
    if rows % 3 or width % 2 or height % 2:
        raise ValueError(f"expected NV12 of an even width and height, found an array of {rows}x{width}")
    # a matrix is not told: cameras of these sizes send that of their standard (ITU-R BT.601 and BT.709)
    form = PlaneForm("nv12", width, height, Colour("bt709" if height >= HD_HEIGHT else "bt601"))
    return Planes(form, (image[:height], image[height:].reshape(height // 2, width // 2, 2)))


def _decoded(picture: Planes) -> Picture:
    """NV12 that lies where the decoder left it."""
    assert isinstance(picture, GpuPlanes)
    luma, pairs = picture.places
    return Picture.nv12(luma.address, luma.stride, pairs.address, pairs.stride, picture.form.colour)


def _placed(form: PlaneForm, address: int) -> Picture:
    """Planes that lie one behind the other from this address on."""
    width, luma = form.width, form.width * form.height
    half = -(-form.width // 2)
    match form.format:
        case "bgr":
            return Picture(address, width * 3)
        case "nv12":
            return Picture.nv12(address, width, address + luma, half * 2, form.colour)
        case "i420":
            blue = address + luma
            return Picture.i420(address, width, blue, blue + half * -(-form.height // 2), half, form.colour)
