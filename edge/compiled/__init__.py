"""The loop's inner arithmetic in C, for the processes that infer: one call where NumPy needs forty.

Between two runs of an engine the caches are cold, and each call of NumPy costs 3 to 30 microseconds there, however
small its arrays. Each part is built when Edgeloop is installed where a C compiler is; without one, NumPy does the same,
bit for bit, in two to six times the time. To build it in a checkout: ``pip install -e .``
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

PARTS = ("_boxes", "_lines", "_tracks")
SWITCH = "EDGELOOP_COMPILED"


def built(name: str) -> Any:
    """A module of this folder, None where it was not built or ``EDGELOOP_COMPILED=off`` leaves it out."""
    if os.environ.get(SWITCH) == "off":
        return None
    try:
        return importlib.import_module(f"edge.compiled.{name}")
    except ImportError:
        return None


def flat(values: NDArray[Any], dtype: type = np.float32) -> NDArray[Any]:
    """The values as the parts in C read them: of this dtype, one after the other; not copied where they are so."""
    return np.ascontiguousarray(values, dtype)
