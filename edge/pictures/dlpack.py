"""Where an array of another library lies, by the DLPack exchange format (github.com/dmlc/dlpack, version 0)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

CUDA = 2


class _Tensor(ctypes.Structure):
    """``DLTensor``."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("device_type", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("num_axes", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Rows of bytes.

    Attributes:
        address: of the first one.
        stride: bytes from one row to the next.
        device: number of the GPU that they lie on; None for the memory of the processor.
        owner: while this is referred to, they are there.
    """

    address: int
    stride: int
    device: int | None
    owner: Any


def place_of(exporter: Any) -> Place:
    """Where the rows of an (H, W) or (H, W, C) array of bytes lie.

    Args:
        exporter: with ``__dlpack__``. What was enqueued on it must be waited for by whoever reads it.
    """
    capsule = exporter.__dlpack__()
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    # the capsule was not renamed, so it frees the array itself when it goes
    tensor = ctypes.cast(pointer_of(capsule, b"dltensor"), ctypes.POINTER(_Tensor)).contents
    assert (tensor.bits, tensor.lanes) == (8, 1) and tensor.num_axes in (2, 3), "expected rows of bytes"
    shape = tensor.shape[: tensor.num_axes]
    stride = tensor.strides[0] if tensor.strides else shape[1] * (shape[2] if tensor.num_axes == 3 else 1)
    device = tensor.device if tensor.device_type == CUDA else None
    return Place(tensor.data + tensor.offset, stride, device, capsule)
