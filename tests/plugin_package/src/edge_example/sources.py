"""A source: ``counter://PICTURES?fps=25&raise=10&hang=10`` counts in grey levels."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit

import numpy as np

from edge.errors import SourceError
from edge.interfaces import SourceInfo


class CounterSource:
    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        options = {key: int(values[0]) for key, values in parse_qs(parts.query).items()}
        if not parts.netloc.isdigit():
            raise SourceError(f"{uri}: expected counter://PICTURES")
        self._fps = options.get("fps", 25)
        self._raise_at, self._hang_at = options.get("raise", -1), options.get("hang", -1)
        self._count = int(parts.netloc)
        self._next = 0
        is_live = bool(options.get("live", 1))
        self.info = SourceInfo(96, 64, self._fps, is_live=is_live, num_frames=None, decoder="counter")

    def read(self) -> tuple[np.ndarray, int | None] | None:
        number = self._next
        self._next += 1
        if number == self._count:
            return None
        if number == self._raise_at:
            raise ZeroDivisionError("the counter is broken")
        if number == self._hang_at:
            time.sleep(3600)
        if self.info.is_live:
            time.sleep(1 / self._fps)
        image = np.full((64, 96, 3), number % 200, np.uint8)
        return image, None if self.info.is_live else number * 1_000_000_000 // self._fps

    def close(self) -> None:
        pass
