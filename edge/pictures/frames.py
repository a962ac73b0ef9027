"""PyAV's frames into planes and back: nothing is copied on the way in, and BGR is what FFmpeg's scaler makes of it."""

from __future__ import annotations

import threading
from functools import lru_cache, partial
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from edge.pictures.dlpack import place_of
from edge.pictures.on_gpu import GpuPlanes
from edge.pictures.planes import Colour, Matrix, PlaneForm, PlaneFormat, Planes, UInt8

# FFmpeg's names: AVPixelFormat, and AVColorSpace by its numbers (ISO/IEC 23091-2); what says nothing is BT.601
FORMATS: dict[str, PlaneFormat] = {"yuv420p": "i420", "yuvj420p": "i420", "nv12": "nv12"}
MATRICES: dict[int, Matrix] = {1: "bt709", 2: "bt601", 5: "bt601", 6: "bt601", 9: "bt2020"}
NUMBERS: dict[Matrix, int] = {"bt709": 1, "bt601": 5, "bt2020": 9}
LIMITED, FULL = 1, 2
# a slice of a picture is not worth a thread of its own; older PyAV has none
ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 18 else {}
# each thread's scaler: made again for every frame, its tables and threads would cost twice the conversion
_own = threading.local()


def planes_of(frame: Any) -> Planes:
    """A decoded frame, its memory shared and read-only; formats that we have no planes for become BGR."""
    is_on_gpu = frame.format.name == "cuda"
    matrix = MATRICES.get(int(frame.colorspace))
    kind = FORMATS.get(frame.sw_format.name if is_on_gpu else frame.format.name)
    if matrix is None or kind is None:
        return Planes.of(bgr_of(frame))
    is_full = frame.format.name == "yuvj420p" or int(frame.color_range) == FULL
    form = _form(kind, frame.width, frame.height, matrix, is_full)
    if is_on_gpu:
        return _on_gpu(frame, form)
    is_direct = kind == "i420" and not (frame.width % 2 or frame.height % 2)
    planes = Planes(form, _arrays(frame, form), partial(bgr_of, frame) if is_direct else None)
    planes.freeze()
    return planes


@lru_cache(maxsize=64)
def _form(kind: PlaneFormat, width: int, height: int, matrix: Matrix, is_full: bool) -> PlaneForm:
    """One for all frames of a camera: made anew it would cost 15 us in cold caches."""
    return PlaneForm(kind, width, height, Colour(matrix, is_full))


def _on_gpu(frame: Any, form: PlaneForm) -> Planes:
    """A frame that the decoder left on its GPU; formats other than NV12 come down at once."""

    def bring_down() -> list[UInt8]:
        return _arrays(frame.reformat(format=frame.sw_format.name), form)

    if form.format != "nv12":
        return Planes(form, bring_down())
    return GpuPlanes(form, [place_of(plane) for plane in frame.planes], bring_down)


def bgr_of(frame: Any) -> UInt8:
    """A new (H, W, 3) uint8 BGR picture of a decoded frame."""
    if not hasattr(_own, "scaler"):
        _own.scaler = VideoReformatter()
    plane = _own.scaler.reformat(frame, format="bgr24", **ONE_THREAD).planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    image: UInt8 = rows[:, : plane.width * 3].reshape(plane.height, plane.width, 3)
    return image


def bgr_from(planes: Planes) -> UInt8:
    """A new (H, W, 3) uint8 BGR picture of planes; for odd sides FFmpeg's scaler takes another way, which rounds
    otherwise, so they are made even first."""
    return bgr_of(frame_of(planes.even()))[: planes.height, : planes.width]


def frame_of(planes: Planes) -> Any:
    """A copy as PyAV's frame: ``yuv420p``, as FFmpeg's scaler takes four times as long with pairs of chroma."""
    form = PlaneForm("i420", *planes.size, planes.form.colour)
    frame = av.VideoFrame(form.width, form.height, "yuv420p")
    for target, source in zip(_arrays(frame, form), planes.separate, strict=True):
        np.copyto(target, source)
    set_colour(frame, form.colour)
    return frame


def set_colour(of: Any, colour: Colour) -> None:
    """Tell a frame or a codec's context what luma and chroma mean."""
    of.colorspace = NUMBERS[colour.matrix]
    of.color_range = FULL if colour.is_full else LIMITED


def _arrays(frame: Any, form: PlaneForm) -> list[UInt8]:
    """The frame's memory in the form's shapes."""
    # rows lie apart by the line size; of pairs of chroma both numbers lie side by side
    return [
        np.ndarray(shape, np.uint8, plane, 0, (plane.line_size, *((2, 1) if len(shape) == 3 else (1,))))
        for plane, shape in zip(frame.planes, form.shapes, strict=True)
    ]
