"""The way from a worker to the live page: what is watched, and pictures in shared memory.

The daemon makes one ``PageMemory`` per worker process. Its head says, stream by stream, what viewers want now, so that
a worker asks nobody; behind it lie places for pictures, which the worker fills and the daemon empties. While nobody
watches a stream, nothing of its frames goes this way.
Shape letters: H W frame pixels.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.config.workers import NUM_PLACES
from edge.daemon.workers.link import Link, LinkClosedError
from edge.daemon.workers.sounds import SoundSender
from edge.errors import SinkError
from edge.pictures.planes import Colour, PlaneForm, Planes
from edge.server.board import LiveBoard
from edge.server.published import NEVER_NS, WIDTHS, Demand, Made, Plain, make

if TYPE_CHECKING:
    from edge.daemon.workers.link import Message
    from edge.types import Int64, UInt8
    from edge.video.packets import PacketTap

MAX_STREAMS = 1024
# a picture of 4096x2304 with its line; only what is written takes memory
PLACE_BYTES = 30_000_000
# viewers, next annotated JPEG, video, plain video, draws all; then when the next plain JPEG of each width is due
NUM_FLAGS = 5
NUM_FACTS = NUM_FLAGS + len(WIDTHS)
# and whether anybody listens
HEAD_BYTES = 8 * (NUM_PLACES + (NUM_FACTS + 1) * MAX_STREAMS)
START = -(-HEAD_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE


class PageMemory:
    """Shared memory between the daemon and one worker process.

    Attributes:
        fd: of the memory, to be inherited by the worker.
        free: (NUM_PLACES,) int64, 0 where a place is free: the worker sets it, the daemon clears it.
        demands: (MAX_STREAMS, NUM_FACTS) int64, written by the daemon.
        heard: (MAX_STREAMS,) int64, 1 where somebody listens to a stream; written by the daemon.
    """

    def __init__(self, fd: int | None = None) -> None:
        """Args: the memory that the daemon has made; None makes it."""
        size = START + NUM_PLACES * PLACE_BYTES
        if fd is None:
            fd = os.memfd_create("edge-page", os.MFD_CLOEXEC)
            os.ftruncate(fd, size)
        self.fd = fd
        self._memory = mmap.mmap(fd, size)
        head: Int64 = np.frombuffer(self._memory, np.int64, HEAD_BYTES // 8)
        self.free = head[:NUM_PLACES]
        self.heard, demands = np.split(head[NUM_PLACES:], [MAX_STREAMS])
        self.demands = demands.reshape(MAX_STREAMS, NUM_FACTS)

    def place(self, number: int) -> memoryview:
        """The bytes of a place."""
        start = START + number * PLACE_BYTES
        return memoryview(self._memory)[start : start + PLACE_BYTES]

    def take(self, number: int, size: int) -> bytes:
        """What lies in a place, which is free again then."""
        data = bytes(self.place(number)[:size])
        self.free[number] = 0
        return data

    def put_demand(self, index: int, demand: Demand) -> None:
        """Say what viewers of a stream want."""
        flags = (demand.wants_video, demand.wants_plain_video, demand.draws_all)
        plain = (demand.plain_ns.get(width, NEVER_NS) for width in WIDTHS)
        self.demands[index] = (demand.num_viewers, demand.next_jpeg_ns, *flags, *plain)

    def demand(self, index: int) -> Demand:
        """What viewers of a stream want now."""
        viewers, next_ns, video, plain_video, draws_all, *times = self.demands[index].tolist()
        plain = {width: time_ns for width, time_ns in zip(WIDTHS, times, strict=True) if time_ns != NEVER_NS}
        return Demand(viewers, next_ns, bool(video), bool(plain_video), bool(draws_all), plain)

    def close(self) -> None:
        """Let go of the file; the mapping goes with the last array over it."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


class PlaceTaker:
    """The worker's side: takes free places. Any thread."""

    def __init__(self, memory: PageMemory) -> None:
        self.memory = memory
        self._lock = threading.Lock()

    def take(self) -> int | None:
        """A free place, which is this caller's until the daemon has emptied it; None if there is none."""
        with self._lock:
            free = np.flatnonzero(self.memory.free == 0)
            if not len(free):
                return None
            self.memory.free[free[0]] = 1
            return int(free[0])

    def put(self, data: bytes) -> int | None:
        """Put these bytes into a free place; None if there is none, or they are too many."""
        number = self.take() if len(data) <= PLACE_BYTES else None
        if number is not None:
            self.memory.place(number)[: len(data)] = data
        return number

    def give_back(self, number: int) -> None:
        """A place that was not needed after all."""
        self.memory.free[number] = 0


class WorkerBoard(LiveBoard):
    """The board of a worker: shows its frames on that of the daemon. See ``LiveBoard``."""

    def __init__(self, link: Link, places: PlaceTaker) -> None:
        super().__init__()
        self._link = link
        self._places = places
        self._indices: dict[str, int] = {}
        # frames that found no free place, while the daemon was busy
        self.num_missed = 0

    def set_index(self, stream: str, index: int) -> None:
        """Where the demand for a stream stands; before the stream begins."""
        self._indices[stream] = index

    def demand(self, stream: str) -> Demand:
        return self._places.memory.demand(self._indices[stream])

    def set_sound(self, stream: str, sound: PacketTap | None) -> None:
        if sound is not None:
            heard, index = self._places.memory.heard, self._indices[stream]
            sound.listen(SoundSender(stream, self._link, lambda: bool(heard[index])))

    def publish(
        self,
        stream: str,
        result_json: bytes,
        picture: Callable[[], UInt8] | None = None,
        events: Sequence[bytes] = (),
        plain: Plain | None = None,
        captured_ns: int = 0,
        has_video: bool = True,
    ) -> int:
        demand = self.demand(stream)
        demand = demand if has_video else demand.without_video()
        told = [event.decode() for event in events]
        number = self._place() if demand.num_viewers else None
        if number is None:
            self._show(stream, told, {})
            return self._clock_ns()
        try:
            made = make(demand, self._clock_ns(), picture, plain)
            # the daemon shows it by this time too: what is shown next to it was placed by that
            shown_ns = self._clock_ns()
            facts = {**self._fill(number, result_json, made), "captured_ns": captured_ns, "shown_ns": shown_ns}
        except SinkError:
            self._places.give_back(number)
            raise
        self._give(number, self._show(stream, told, facts))
        return shown_ns

    def put_video(self, stream: str, picture: UInt8 | Planes, time_ns: int) -> None:
        planes, number = Planes.of(picture), self._place()
        if number is None:
            return
        facts = _put_planes(self._places.memory.place(number), 0, planes)
        if facts is not None:
            shown = {"place": number, "picture": facts, "is_plain": isinstance(picture, Planes), "time_ns": time_ns}
            self._give(number, self._send("video", may_drop=True, stream=stream, **shown))
        else:
            self._give(number, False)

    def _place(self) -> int | None:
        number = self._places.take()
        self.num_missed += number is None
        return number

    def _give(self, number: int, is_given: bool) -> None:
        """A place that the daemon empties now, or that was filled for nothing."""
        if not is_given:
            self._places.give_back(number)
            self.num_missed += 1

    def _fill(self, number: int, result_json: bytes, made: Made) -> dict[str, object]:
        """Write into a place what was made; what lies there. Video that has no room there is left out."""
        place = self._places.memory.place(number)
        facts: dict[str, object] = {"place": number, "num_encoded": made.num_encoded}
        at = 0
        for name, data in (("result", result_json), ("marks", made.marks)):
            place[at : at + len(data)] = data
            facts[name], at = len(data), at + len(data)
        # places of about one size share a picture, which lies there once
        lies_at = dict[int, tuple[int, int]]()
        for jpeg in made.jpegs.values():
            if id(jpeg) not in lies_at:
                place[at : at + len(jpeg)] = jpeg
                lies_at[id(jpeg)], at = (at, len(jpeg)), at + len(jpeg)
        facts["jpegs"] = [[width, *lies_at[id(jpeg)]] for width, jpeg in made.jpegs.items()]
        for name, planes in (
            ("video", None if made.video is None else Planes.of(made.video)),
            ("plain", made.plain_video),
        ):
            lies = None if planes is None else _put_planes(place, at, planes)
            if planes is not None and lies is not None:
                facts[name], at = lies, at + planes.form.num_bytes
        return facts

    def _show(self, stream: str, events: list[str], facts: dict[str, object]) -> bool:
        if not (events or facts):
            return True
        return self._send("show", may_drop=not events, stream=stream, events=events, **facts)

    def _send(self, kind: str, *, may_drop: bool, **facts: object) -> bool:
        try:
            return self._link.send(kind, may_drop=may_drop, **facts)
        except LinkClosedError:
            # the daemon is gone: this process ends by itself
            return False


@dataclass(frozen=True, slots=True)
class ShownPage:
    """The daemon's side of one worker's page."""

    memory: PageMemory
    board: LiveBoard

    def show(self, message: Message) -> None:
        """Put on the board what a worker shows."""
        stream, events = message["stream"], [event.encode() for event in message["events"]]
        if "place" not in message:
            self.board.tell(stream, events)
            return
        place = self.memory.place(message["place"])
        ends = message["result"], message["result"] + message["marks"]
        result, marks = bytes(place[: ends[0]]), bytes(place[ends[0] : ends[1]])
        copies = {at: bytes(place[at : at + size]) for _, at, size in message["jpegs"]}
        jpegs = {width: copies[at] for width, at, _ in message["jpegs"]}
        video, plain = (_copied(place, message.get(name)) for name in ("video", "plain"))
        self.memory.free[message["place"]] = 0
        made = Made(jpegs, marks, None if video is None else video.bgr, plain, message["num_encoded"])
        times = {"captured_ns": message["captured_ns"], "shown_ns": message["shown_ns"]}
        self.board.show(stream, result, made, events, **times)

    def show_video(self, message: Message) -> None:
        """Show a picture in video that belongs to no frame; see ``LiveBoard.put_video``."""
        planes = _copied(self.memory.place(message["place"]), message["picture"])
        self.memory.free[message["place"]] = 0
        if planes is not None:
            picture = planes if message["is_plain"] else planes.bgr
            self.board.put_video(message["stream"], picture, message["time_ns"])


def _put_planes(place: memoryview, at: int, planes: Planes) -> list[Any] | None:
    """Write a picture into a place, from a byte on; what ``_copied`` needs, None where it has no room there."""
    form = planes.form
    if at + form.num_bytes > len(place):
        return None
    form.over(np.frombuffer(place, np.uint8, form.num_bytes, at)).take(planes)
    return [at, form.format, form.width, form.height, form.colour.matrix, form.colour.is_full]


def _copied(place: memoryview, facts: list[Any] | None) -> Planes | None:
    """The picture that lies in a place, in memory of its own."""
    if facts is None:
        return None
    at, kind, width, height, matrix, is_full = facts
    form = PlaneForm(kind, width, height, Colour(matrix, is_full))
    return form.over(np.frombuffer(place, np.uint8, form.num_bytes, at).copy())
