"""Pictures on their way to the recorder.

Shape letters: H W frame pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge.metrics.counters import Counters
from edge.threads.drop_queue import DropQueue
from edge.types import UInt8
from edge.video.packets import EventMark

# whole pictures: 8 of 720p are 22 MB
SHOT_CAPACITY = 8


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture on its way into the recording.

    Attributes:
        image: (H, W, 3) uint8 BGR that nobody will change.
        mark: when it was taken and what happened in it.
    """

    image: UInt8
    mark: EventMark


class ShotQueue(DropQueue[Shot]):
    """Pictures on their way to the recorder.

    Attributes:
        counters: ``dropped``, because encoding was too slow.
    """

    def __init__(self, capacity: int, *, is_lossless: bool) -> None:
        super().__init__(capacity, is_lossless=is_lossless, on_drop=self._dropped)
        self.counters: Counters[str] = Counters()
        self._carried: EventMark | None = None

    def add(self, image: UInt8, mark: EventMark) -> None:
        """Put (H, W, 3) uint8 BGR, from one thread; a picture that was dropped leaves its clip to the next one."""
        carried, self._carried = self._carried, None
        if carried is not None and mark.clip is None:
            mark = replace(mark, events=carried.events, clip=carried.clip)
        self.put(Shot(image, mark))

    def _dropped(self, shot: Shot) -> None:
        self.counters.add("dropped")
        if shot.mark.clip is not None:
            self._carried = shot.mark
