"""What this machine's GPUs are, asked of the driver itself: no context, no memory."""

from __future__ import annotations

import ctypes
from typing import Any

# CUdevice_attribute of the driver API
COMPUTE_CAPABILITY_MAJOR = 75
COMPUTE_CAPABILITY_MINOR = 76


def find_compute_capability(index: int = 0) -> str | None:
    """Compute capability of a GPU, None without it."""
    found = _device(index)
    if found is None:
        return None
    driver, device = found
    numbers = []
    for attribute in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR):
        value = ctypes.c_int()
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) != 0:
            return None
        numbers.append(value.value)
    return f"{numbers[0]}.{numbers[1]}"


def describe_gpu(index: int = 0) -> str | None:
    """Its name and the CUDA release of the driver, ``NVIDIA L4, CUDA 12.8``; None without it."""
    found = _device(index)
    if found is None:
        return None
    driver, device = found
    name, version = ctypes.create_string_buffer(256), ctypes.c_int()
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"{name.value.decode(errors='replace')}, CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def _device(index: int) -> tuple[Any, ctypes.c_int] | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return None
    return driver, device
