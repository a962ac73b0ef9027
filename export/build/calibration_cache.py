"""Ranges as the calibration cache of TensorRT up to 10, which the DLA needs: before TensorRT 11 it takes no Q/DQ nodes.

The format is text: a line with version and algorithm, then ``tensor: scale`` with the scale as the bits of a big-endian
float32, scale = largest magnitude / 127 (NVIDIA's sampleINT8).
"""

from __future__ import annotations

import struct
from pathlib import Path

from calib.clipping import Method
from calib.graph import GraphIndex, load_float_model
from calib.ranges import RangeTable, load_table
from edge.engines.trt.api import release_of
from edge.errors import DataError

DEFAULT_METHOD: Method = "average"
LARGEST_CODE = 127


def cache_text(table: RangeTable, index: GraphIndex, version: str, method: Method = DEFAULT_METHOD) -> str:
    """The cache for one TensorRT.

    Args:
        table: ranges of this network.
        index: of the ONNX file that will be built; its tensor names go into the cache.
        version: of the TensorRT that will read it: ``10.3.0``.

    Raises:
        DataError: the ranges are of another network, or none of its tensors was measured.
    """
    if table.network_sha256 != index.fingerprint:
        raise DataError(
            f"the ranges were measured on {table.model} (network {table.network_sha256[:12]}…), this is another "
            f"network ({index.fingerprint[:12]}…); run: edge calibrate MODEL.onnx"
        )
    lines = []
    for name, role in index.roles.items():
        found = table.tensors.get(role)
        largest = max(map(abs, found.clip[method])) if found else 0.0
        # a tensor of zeros has no scale; without a line TensorRT computes it in FP16
        if largest > 0:
            lines.append(f"{name}: {scale_bits(largest / LARGEST_CODE)}")
    if not lines:
        raise DataError(f"the ranges of {table.model} hold none of its tensors; run: edge calibrate MODEL.onnx")
    return "\n".join([f"TRT-{version_number(version)}-EntropyCalibration2", *lines]) + "\n"


def cache_of(onnx: Path, ranges: Path, version: str, method: Method = DEFAULT_METHOD) -> str:
    """As ``cache_text``, from files.

    Raises:
        DataError: the ranges cannot be read, or are of another network.
        ModelError: the ONNX file cannot be read.
    """
    return cache_text(load_table(ranges), GraphIndex(load_float_model(onnx)), version, method)


def scale_bits(scale: float) -> str:
    """``0.0179…`` → ``3c92aa10``."""
    return struct.pack(">f", scale).hex()


def version_number(version: str) -> int:
    """The number in a cache's first line: ``8.6.1`` → 8601, ``10.3.0`` → 100300 (NV_TENSORRT_VERSION)."""
    major, minor, patch = (*release_of(version), 0, 0, 0)[:3]
    return major * 10000 + minor * 100 + patch if major >= 10 else major * 1000 + minor * 100 + patch
