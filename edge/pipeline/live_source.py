"""The large picture of a camera for who looks: opened while somebody does, with what was found in the small one.

Its pictures wait until the small picture that was taken with them has been analysed. They then take the place of the
small ones in video, annotated and plain.
Shape letters: N objects, H W frame pixels.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edge.addresses.uris import masked
from edge.errors import SourceError
from edge.overlay import StreamState
from edge.overlay.enlarged import enlarged, enlarged_shapes
from edge.pipeline.second_source import SecondSource
from edge.sources.direct import Decoding
from edge.sources.isolation.ring import RingLimit
from edge.types import Frame, Result, UInt8
from edge.video.event_clock import EventClock, PlacedPackets
from edge.video.packets import PacketForm, PacketTaker, SourcePacket, Wanted

if TYPE_CHECKING:
    from edge.config.schema import StreamSettings
    from edge.overlay import Overlay
    from edge.overlay.overlay import Shape
    from edge.pictures.planes import Planes
    from edge.server.published import Demand
    from edge.sources.deadlines import Deadlines
    from edge.sources.isolation.process import SpareChild
    from edge.sources.prepared import Preparation
    from edge.threads.backoff import HostGate

log = logging.getLogger(__name__)
# somebody who goes and comes back finds it open
LINGER_S = 5.0
# of the newest results and pictures; a picture of 1440p is 6 MB
MAX_RESULTS, MAX_WAITING = 32, 8
# nothing waits longer for its result
MAX_WAIT_NS = 500_000_000
# without a picture for so long the small one is shown again
SILENCE_NS = 1_000_000_000
NO_PICTURE: UInt8 = np.zeros((1, 1, 3), np.uint8)
# one result's delay counts so little that a late one moves nobody
SMOOTHING = 8


class Board(Protocol):
    """What it asks of ``edge.server.board.LiveBoard``."""

    def demand(self, stream: str) -> Demand: ...
    def put_video(self, stream: str, picture: UInt8 | Planes, time_ns: int) -> None: ...


class TakenTimes(PacketTaker):
    """Takes packets for the time of the newest alone: when it was taken, by the clock of what is analysed."""

    def __init__(self) -> None:
        self.newest_ns = 0

    @property
    def wanted(self) -> Wanted:
        return Wanted.PICTURES

    def begin(self, form: PacketForm) -> None:
        self.newest_ns = 0

    def take(self, packet: SourcePacket) -> None:
        self.newest_ns = packet.time_ns


@dataclass(slots=True)
class Seen:
    """A result without its picture, whose place is needed for others.

    Attributes:
        size: of the picture, width and height. taken_ns: when it was taken. shown_ns: when it was shown.
        is_met: whether a large picture stands for it.
    """

    result: Result
    size: tuple[int, int]
    taken_ns: int
    shown_ns: int
    is_met: bool = False


class Pairing:
    """Which result belongs to which large picture, and when that is known.

    Args:
        give: takes each picture with its result and its time on the line of the results' ``shown_ns``.
    """

    def __init__(self, give: Callable[[Planes, Seen, int], None]) -> None:
        self._give = give
        self._results: deque[Seen] = deque(maxlen=MAX_RESULTS)
        self._waiting: deque[tuple[Planes, int]] = deque(maxlen=MAX_WAITING)
        self._delay_ns = 0
        self._period_ns = 0

    def note(self, result: Result, taken_ns: int, shown_ns: int) -> None:
        """A result was shown; the thread of the output."""
        last = self._results[-1] if self._results else None
        self._delay_ns = _smoothed(self._delay_ns, shown_ns - taken_ns)
        if last is not None and taken_ns > last.taken_ns:
            self._period_ns = _smoothed(self._period_ns, min(taken_ns - last.taken_ns, MAX_WAIT_NS))
        frame = result.frame
        bare = Frame(frame.stream, frame.epoch, frame.seq, frame.captured_ns, frame.pts_ns, NO_PICTURE)
        size = frame.width, frame.height
        self._results.append(Seen(replace(result, frame=bare, draw=None), size, taken_ns, shown_ns))

    def take(self, planes: Planes, taken_ns: int, now_ns: int) -> None:
        """A large picture has come; what has waited long enough is given."""
        self._waiting.append((planes, taken_ns))
        # half a period later the nearer of two results is known
        wait_ns = min(self._delay_ns + self._period_ns // 2, MAX_WAIT_NS)
        while self._waiting and now_ns - self._waiting[0][1] >= wait_ns:
            self._pair(*self._waiting.popleft())

    def clear(self) -> None:
        """Nothing waits any more."""
        self._waiting.clear()

    def _pair(self, planes: Planes, taken_ns: int) -> None:
        seen = min(tuple(self._results), key=lambda one: abs(one.taken_ns - taken_ns), default=None)
        if seen is None or abs(seen.taken_ns - taken_ns) > MAX_WAIT_NS:
            # nothing is analysed now: no picture stands still with boxes of before
            return
        # the page knows a result by its time: one picture has exactly that
        is_first = not seen.is_met and abs(seen.taken_ns - taken_ns) <= self._period_ns // 2
        seen.is_met = seen.is_met or is_first
        self._give(planes, seen, seen.shown_ns + (0 if is_first else taken_ns - seen.taken_ns))


class LiveSource(SecondSource):
    """Opens ``live_source`` while somebody watches the stream as video.

    Args:
        config: of the stream.
        clock: of the camera.
        board: where its pictures are shown.
        preparation: what is done to the pictures: masks above all.
        overlay: draws on the annotated ones; its own, as it remembers trails.
        shapes: gives lines and zones, in pixels of what is analysed.
        rate: gives the results a second.
    """

    def __init__(
        self,
        config: StreamSettings,
        clock: EventClock,
        board: Board,
        preparation: Preparation,
        overlay: Overlay,
        *,
        shapes: Callable[[], Sequence[Shape]],
        rate: Callable[[], float | None],
    ) -> None:
        assert config.live_source is not None
        super().__init__("live_source", config, config.live_source)
        self._clock = clock
        self._board = board
        self._preparation = preparation
        self._overlay = overlay
        self._shapes = shapes
        self._rate = rate
        self._rings = RingLimit()
        self._pairing = Pairing(self._show)
        self._watched_s = float("-inf")
        self._shown_ns = 0
        self.num_shown = 0

    @property
    def is_showing(self) -> bool:
        """Whether its pictures stand in the place of the small ones now."""
        return time.monotonic_ns() - self._shown_ns < SILENCE_NS

    def note(self, result: Result, shown_ns: int) -> None:
        """A result was shown; the thread of the output."""
        if self.state == "streaming":
            self._pairing.note(result, self._clock.taken_ns(result.frame.captured_ns), shown_ns)

    def stats(self) -> dict[str, object]:
        return {**super().stats(), "shown": self.num_shown}

    def _is_needed(self) -> bool:
        demand = self._board.demand(self._config.name)
        now_s = time.monotonic()
        if demand.wants_video or demand.wants_plain_video:
            self._watched_s = now_s
        return now_s - self._watched_s < LINGER_S

    def _open_once(self, stopping: threading.Event, gate: HostGate, deadlines: Deadlines, spare: SpareChild) -> None:
        # what reads a camera is imported when one is opened
        from edge.sources.choose import open_source

        times, config = TakenTimes(), self._config

        def is_over() -> bool:
            return stopping.is_set() or not self._is_needed()

        with self._attempt(gate, is_over):
            source = open_source(
                self._address,
                decoding=Decoding("av", config.transport, config.hardware, config.hardware_device),
                preparation=self._preparation,
                is_stopping=is_over,
                deadlines=deadlines,
                is_isolated=True,
                rings=self._rings,
                spare=spare,
                packets=PlacedPackets(times, self._clock),
                allow_hosts=config.allow_hosts,
            )
        try:
            self._set_state("streaming", "")
            while (picture := source.read_planes()) is not None:
                # a copy: what waits would hold up its decoder
                self._pairing.take(picture[0].copy(), times.newest_ns or source.captured_ns, time.monotonic_ns())
        finally:
            source.close()
            self._pairing.clear()
            self._shown_ns = 0
        if not is_over():
            raise SourceError(f"{masked(self._address)}: the stream ended")

    def _show(self, planes: Planes, seen: Seen, time_ns: int) -> None:
        demand = self._board.demand(self._config.name)
        if demand.wants_plain_video:
            self._board.put_video(self._config.name, planes, time_ns)
        if demand.wants_video:
            self._board.put_video(self._config.name, self._drawn(planes, seen), time_ns)
        self._shown_ns = time.monotonic_ns()
        self.num_shown += 1

    def _drawn(self, planes: Planes, seen: Seen) -> UInt8:
        small = seen.result.frame
        scale = planes.width / seen.size[0], planes.height / seen.size[1]
        frame = Frame(small.stream, small.epoch, small.seq, small.captured_ns, small.pts_ns, planes)
        self._overlay.shapes = enlarged_shapes(self._shapes(), scale)
        age_ms = (time.monotonic_ns() - seen.taken_ns) / 1e6
        return self._overlay.draw(enlarged(seen.result, frame, scale), StreamState("live", self._rate(), age_ms))


def _smoothed(known: int, new: int) -> int:
    return new if not known else known + (new - known) // SMOOTHING
