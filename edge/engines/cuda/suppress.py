"""Greedy NMS on an engine's own outputs, where they lie: the scores of doubles become 0 before anything is downloaded.

Shape letters: B batch, K boxes. Only for outputs that are boxes already (head ``edgenet`` of models with NMS).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge.engines.cuda.launches import Launch, NmsMemory, greedy_nms, nms_bytes, silence_doubles

if TYPE_CHECKING:
    from edge.engines.cuda.context import Driver
    from edge.interfaces import TensorInfo
    from edge.models.manifest import Manifest

WANTED = {"boxes": "float32", "scores": "float32", "labels": "int32"}


def can_suppress(manifest: Manifest, outputs: Sequence[TensorInfo]) -> bool:
    """Whether the model wants NMS and gives boxes (B, K, 4), scores and labels (B, K) as the kernel reads them."""
    found = {info.name: info.dtype for info in outputs}
    return manifest.needs_nms and manifest.head == "edgenet" and found == WANTED


class Suppressor:
    """The NMS of one batch in flight: its scratch memory and its launches per batch size, made once."""

    def __init__(self, driver: Driver, kernels: Any, addresses: Mapping[str, int], rows: int, num: int) -> None:
        """Args: the GPU, the loaded kernels, output name → address, the largest batch, boxes per frame."""
        self._driver = driver
        self._kernels = kernels
        self._num = num
        self._scratch = {name: driver.device_memory(size) for name, size in nms_bytes(rows, num).items()}
        self._memory = NmsMemory(
            xyxy=addresses["boxes"],
            score=addresses["scores"],
            class_id=addresses["labels"],
            **{name: int(memory) for name, memory in self._scratch.items()},
        )
        self._steps: dict[tuple[int, float], Sequence[Launch]] = {}

    def issue(self, rows: int, threshold: float, stream: Any) -> None:
        """Start the kernels for the first ``rows`` frames, in the order of the stream."""
        key = (rows, threshold)
        if key not in self._steps:
            steps = greedy_nms(self._memory, rows, self._num, threshold)
            self._steps[key] = (*steps, silence_doubles(self._memory, rows, self._num))
        for step in self._steps[key]:
            self._driver.launch(self._kernels, step, stream)
