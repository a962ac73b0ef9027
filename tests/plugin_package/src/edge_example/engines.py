"""An engine: the mean brightness of each picture, without any library. It breaks when the file says so."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge.interfaces import TensorInfo
from edge.models.manifest import Manifest


class BrightEngine:
    name = "bright 1.0"
    is_fixed_batch = False

    def __init__(self, path: Path, manifest: Manifest, *, threads: int | None, max_batch: int | None) -> None:
        self._mood = path.read_text(encoding="utf-8")
        spec = manifest.input
        self.max_batch = max_batch or 4
        self.inputs = [TensorInfo(spec.name, (None, spec.height, spec.width, 3), "uint8")]
        self.outputs = [TensorInfo("mean", (None, 1), "float32")]

    def infer(self, tensor: np.ndarray) -> Mapping[str, np.ndarray]:
        if self._mood == "raise":
            raise ZeroDivisionError("the engine is broken")
        if self._mood == "hang":
            time.sleep(3600)
        mean = tensor.reshape(len(tensor), -1).mean(1, keepdims=True).astype(np.float32)
        return {"means" if self._mood == "misname" else "mean": mean}

    def close(self) -> None:
        pass
