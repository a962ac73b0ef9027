"""What ``edge accuracy`` found of each camera, for the statistics; read in a thread of its own: disks may hang."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from edge.accuracy.session import FOLDER, last_result

READ_EVERY_S = 30.0


class AccuracyFacts:
    """Keeps the newest results at hand.

    Attributes:
        by_stream: stream → ``at`` (Unix time), ``recall`` and ``precision``; replaced as a whole.
    """

    def __init__(self, folder: Path, streams: Callable[[], Iterable[str]], every_s: float = READ_EVERY_S) -> None:
        """Args: of the state, gives the names of the streams of now, seconds between two looks."""
        self._folder = folder
        self._streams = streams
        self._every_s = every_s
        self.by_stream: Mapping[str, Mapping[str, Any]] = {}

    def run(self, stopping: threading.Event) -> None:
        """Look again and again."""
        while True:
            self.by_stream = dict(self._read())
            if stopping.wait(self._every_s):
                return

    def _read(self) -> Iterable[tuple[str, dict[str, Any]]]:
        for name in self._streams():
            result = last_result(self._folder / FOLDER / name)
            match result:
                case {"at": int(at), "objects": {"recall": dict(recall), "precision": dict(precision)}}:
                    yield name, {"at": at, "recall": recall, "precision": precision}
