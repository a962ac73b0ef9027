"""A sink: ``lines:FILE`` writes stream, number and objects; ``lines:raise`` and ``lines:hang`` do that instead."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edge.errors import SinkError
from edge.types import Result


class LinesSink:
    def __init__(self, place: str, *, stream: str, classes: Sequence[str], fps: float) -> None:
        self.name = f"lines:{place}"
        self._place = place
        self._classes = classes
        if place == "refuse":
            raise SinkError("lines:refuse: no line is taken today; come back tomorrow")
        self._file = None if place in ("raise", "hang") else Path(place).open("w", encoding="utf-8")  # noqa: SIM115 - closed by close

    def write(self, result: Result, picture: Callable[[], np.ndarray]) -> None:
        if self._place == "raise":
            raise KeyError("line")
        if self._place == "hang":
            time.sleep(3600)
        assert self._file is not None
        names = [self._classes[number] for number in result.detections.class_id]
        self._file.write(f"{result.frame.stream} {result.frame.seq} {picture().shape} {names}\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
