"""Keeps frames by day: output threads choose and hand over, one thread writes. Nobody waits for a disk."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from edge.metrics.clock import WallClock
from edge.metrics.counters import Counters
from edge.night.choose import Chooser, Reason
from edge.night.frames import CameraFrames
from edge.threads.drop_queue import DropQueue

if TYPE_CHECKING:
    from edge.config.night import NightSettings
    from edge.config.schema import StreamSettings
    from edge.types import Frame, Result, UInt8

log = logging.getLogger(__name__)
# pictures of full size that may wait for the disk
CAPACITY = 8
IDLE_S = 0.5
JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A frame to be kept; its picture is a copy."""

    frames: CameraFrames
    wall_ns: int
    reasons: tuple[Reason, ...]
    image: UInt8


class Keeper:
    """Writes what cameras hand over. ``run`` it in a thread of its own.

    Attributes:
        counters: ``kept``, ``dropped`` (the disk was too slow), ``errors``.

    Args:
        settings: how much is kept.
        folder: of the night.
        clock: the time of day.
    """

    def __init__(self, settings: NightSettings, folder: Path, clock: WallClock | None = None) -> None:
        self.counters: Counters[str] = Counters()
        self._settings, self._folder = settings, folder
        self._clock = clock or WallClock()
        self._waiting: DropQueue[_Chosen] = DropQueue(CAPACITY, is_lossless=False, on_drop=self._on_drop)
        self._cameras: dict[str, CameraFrames] = {}
        self._error = ""

    def sink_of(self, stream: StreamSettings) -> NightSink | None:
        """What takes the results of a stream; None where its frames cannot be kept, which is said."""
        try:
            frames = CameraFrames(self._folder, stream.name, self._settings, masks_of(stream))
        except OSError as error:
            log.warning("night: %s: no frames are kept of it (%s)", stream.name, error.strerror or error)
            return None
        self._cameras[stream.name] = frames
        return NightSink(stream.name, frames, self)

    def offer(self, frame: Frame, frames: CameraFrames, reasons: list[Reason]) -> None:
        """Take a frame if its hour has a place for it; nothing waits. Any thread."""
        wall_ns = frame.captured_ns + self._clock.offset_ns
        chosen: list[Reason] = ["random"] if frames.wants(wall_ns, is_random=True) else []
        if reasons and frames.wants(wall_ns, is_random=False):
            chosen += reasons
        if chosen:
            self._waiting.put(_Chosen(frames, wall_ns, tuple(dict.fromkeys(chosen)), frame.image.copy()))

    def note_disagreement(self, frame: Frame) -> None:
        """Take a frame that the model which runs and one on trial see differently. Any thread."""
        frames = self._cameras.get(frame.stream)
        if frames is not None:
            self.offer(frame, frames, ["disagreement"])

    def run(self, stopping: threading.Event) -> None:
        """Write until asked to stop, or until ``close``."""
        while not stopping.is_set() and not self._waiting.is_finished:
            chosen = self._waiting.get(IDLE_S)
            if chosen is not None:
                self._write(chosen)

    def write_waiting(self) -> None:
        """Write all that waits now; as ``run`` would, for who has no thread."""
        while (chosen := self._waiting.get(0.0)) is not None:
            self._write(chosen)

    def close(self) -> None:
        """Nothing more comes; what waits is still written."""
        self._waiting.close()

    def stats(self) -> Mapping[str, object]:
        """What is known now, as JSON values."""
        return {**self.counters.snapshot(), "error": self._error}

    def _write(self, chosen: _Chosen) -> None:
        # a later frame may have taken the place meanwhile, which the frames themselves find out
        is_encoded, data = cv2.imencode(".jpg", chosen.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        assert is_encoded
        try:
            chosen.frames.keep(chosen.wall_ns, chosen.reasons, data.tobytes())
        except OSError as error:
            self.counters.add("errors")
            self._complain(f"{error.strerror or error}")
        else:
            self.counters.add("kept")
            self._complain("")

    def _complain(self, reason: str) -> None:
        """Say what goes wrong once, until it goes well again."""
        if reason and reason != self._error:
            log.warning("night: %s: frames cannot be kept (%s)", self._folder, reason)
        self._error = reason

    def _on_drop(self, _: _Chosen) -> None:
        self.counters.add("dropped")


class NightSink:
    """Looks at every result of a stream; used by its output thread."""

    def __init__(self, stream: str, frames: CameraFrames, keeper: Keeper) -> None:
        self.name = f"night:{stream}"
        self._frames, self._keeper = frames, keeper
        self._chooser = Chooser()

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        """Hand over the frame, as the model saw it, where it is worth it; the drawn picture is of no use here."""
        self._keeper.offer(result.frame, self._frames, self._chooser.reasons(result))

    def close(self) -> None:
        pass


def masks_of(stream: StreamSettings) -> str:
    """A hash of what hides parts of a camera's picture; empty where nothing does."""
    if not stream.masks:
        return ""
    facts = stream.model_dump(mode="json", include={"masks", "roi", "rotate"})
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
