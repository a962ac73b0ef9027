"""A camera's own packets on their way from its demuxer to its recording: unchanged, and in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Flag, auto
from pathlib import Path
from typing import Protocol, TypeAlias

from edge.metrics.counters import Counters
from edge.threads.drop_queue import HandOver

# 30 s of 4 Mbit/s: what a slow disk may lag behind
QUEUE_BYTES = 16 << 20
# what an item costs next to its data, so that a flood of small ones is bounded too
ITEM_BYTES = 256
# the year 2116, in nanoseconds since 1970
MAX_WALL_NS = 1 << 62
# of packets that are passed on together
MAX_GROUP = 32
# how long a file that is read faster than it is written waits for the disk
LOSSLESS_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class SoundForm:
    """What the packets of a sound are: FFmpeg's name, and the beginning of an MP4 file that describes them."""

    codec: str
    header: bytes


@dataclass(frozen=True, slots=True)
class PacketForm:
    """What a run of packets is; each opening of a source begins one.

    Attributes:
        codec: FFmpeg's name, ``h264``, ``hevc``, …
        width, height: pixels.
        header: parameter sets with start codes (may be empty: they come with the key pictures), or, where the packets
            have lengths instead of start codes, the beginning of an MP4 file that describes them.
        sound: of the packets that are sound; None where none come.
    """

    codec: str
    width: int
    height: int
    header: bytes
    sound: SoundForm | None = None

    @property
    def has_start_codes(self) -> bool:
        """Whether NAL units begin with start codes (Annex B of H.264 and H.265)."""
        return self.header[4:8] != b"ftyp"


@dataclass(frozen=True, slots=True)
class SourcePacket:
    """One coded picture as the camera sent it.

    Attributes:
        data: its bytes.
        pts, dts: when it is shown and decoded, in ticks of 1/90000 s.
        is_key: whether decoding can begin here.
        time_ns: the stream's time, by which its frames are stamped too.
        arrived_ns: ``time.monotonic_ns()``.
        lost_before: packets of the run that were dropped since the one before.
        camera_ns: when it was taken by the camera's own clock, ns since 1970; 0 where the camera has not said (RTCP).
        is_sound: whether it is sound; its times are those of the pictures.
    """

    data: bytes
    pts: int
    dts: int
    is_key: bool
    time_ns: int
    arrived_ns: int
    lost_before: int = 0
    camera_ns: int = 0
    is_sound: bool = False


@dataclass(frozen=True, slots=True)
class SoundLevel:
    """How loud the last moments were.

    Attributes:
        dbfs: root of the mean square against full scale, in decibels; a sine of full scale has -3.
        time_ns: the stream's time at their end.
    """

    dbfs: float
    time_ns: int


class Wanted(Flag):
    """What a taker can use now; what nobody wants is neither passed on nor encoded."""

    PICTURES = auto()
    SOUND = auto()


NOTHING = Wanted(0)
EVERYTHING = Wanted.PICTURES | Wanted.SOUND


@dataclass(frozen=True, slots=True)
class EventMark:
    """What a result says to the recording.

    Attributes:
        time_ns: the frame's ``time_ns``.
        captured_ns: when it was captured, ``time.monotonic_ns()``.
        events: kinds of its events.
        clip: the file that they go into, in events mode.
        boxes: what was found in it, as the JSON of ``edge.recording.boxes``; empty where that is not kept.
        boxes_ns: when the picture in which it was found was taken; 0: ``time_ns``.
    """

    time_ns: int
    captured_ns: int
    events: tuple[str, ...] = ()
    clip: Path | None = None
    boxes: str = ""
    boxes_ns: int = 0


Item: TypeAlias = PacketForm | SourcePacket | EventMark


class PacketTaker(Protocol):
    """Takes the packets of a source, in the thread that reads it. Never holds up a live source."""

    @property
    def wanted(self) -> Wanted:
        """What may be passed on now; asked before each packet."""
        return EVERYTHING

    @property
    def is_patient(self) -> bool:
        """Whether packets may come a moment later and several at a time: they are kept, and nobody watches."""
        return False

    def begin(self, form: PacketForm) -> None:
        """The source was opened; its packets follow."""

    def take(self, packet: SourcePacket) -> None: ...

    def take_group(self, packets: Sequence[SourcePacket]) -> None:
        """Several that came one after the other."""
        for packet in packets:
            self.take(packet)

    def hear(self, level: SoundLevel) -> None:
        """How loud it is, where that is measured."""
        return


class PacketTap(PacketTaker):
    """Passes packets on, and gives them to whoever listens besides.

    Args:
        taker: who gets all of them; None: nobody else.
        on_level: told how loud it is.
    """

    def __init__(
        self, taker: PacketTaker | None = None, on_level: Callable[[SoundLevel], None] = lambda level: None
    ) -> None:
        self._takers: tuple[PacketTaker, ...] = () if taker is None else (taker,)
        self._on_level = on_level
        self._lock = threading.Lock()
        self.form: PacketForm | None = None

    @property
    def wanted(self) -> Wanted:
        takers = self._takers
        # asked all the time, and flags are slow to join
        if len(takers) == 1:
            return takers[0].wanted
        wanted = NOTHING
        for taker in takers:
            wanted |= taker.wanted
        return wanted

    @property
    def is_patient(self) -> bool:
        return all(taker.is_patient for taker in self._takers)

    @property
    def has_sound(self) -> bool:
        """Whether sound comes now."""
        return self.form is not None and self.form.sound is not None

    def listen(self, listener: PacketTaker) -> None:
        """Give it what comes from now on, beginning with the form of the present run."""
        form = self.form
        if form is not None:
            listener.begin(form)
        with self._lock:
            self._takers = (*self._takers, listener)

    def leave(self, listener: PacketTaker) -> None:
        """Give it nothing more."""
        with self._lock:
            self._takers = tuple(taker for taker in self._takers if taker is not listener)

    def begin(self, form: PacketForm) -> None:
        self.form = form
        for taker in self._takers:
            taker.begin(form)

    def take(self, packet: SourcePacket) -> None:
        kind = Wanted.SOUND if packet.is_sound else Wanted.PICTURES
        for taker in self._takers:
            if kind in taker.wanted:
                taker.take(packet)

    def take_group(self, packets: Sequence[SourcePacket]) -> None:
        match self._takers:
            case (taker,) if taker.wanted == EVERYTHING:
                taker.take_group(packets)
            case _:
                for packet in packets:
                    self.take(packet)

    def hear(self, level: SoundLevel) -> None:
        self._on_level(level)


class PacketQueue(HandOver[Item], PacketTaker):
    """From capture, and from the output of results, to the recorder's thread. What does not fit is counted.

    Args:
        limit_bytes: of all that waits.
        is_lossless: whether ``take`` waits for room (files) instead of dropping.

    Attributes:
        counters: ``packets``, ``packets_lost``, ``marks_lost``.
    """

    def __init__(self, limit_bytes: int = QUEUE_BYTES, *, is_lossless: bool = False) -> None:
        super().__init__()
        self.counters: Counters[str] = Counters()
        self._limit_bytes = limit_bytes
        self._is_lossless = is_lossless
        self._num_bytes = 0
        self._num_lost = 0

    @property
    def is_patient(self) -> bool:
        return True

    def begin(self, form: PacketForm) -> None:
        """Packets of another run follow."""
        with self._changed:
            self._num_lost = 0
            # of two runs without a packet between them only the second matters: openings are never piled up
            if self._items and isinstance(self._items[-1], PacketForm):
                self._num_bytes -= _cost(self._items.pop())
            self._append(form)

    def take(self, packet: SourcePacket) -> None:
        """Add a packet; after ``close`` it is dropped, and no loss: the recording has ended."""
        self.take_group((packet,))

    def take_group(self, packets: Sequence[SourcePacket]) -> None:
        with self._changed:
            for packet in packets:
                self._add(packet)

    def _add(self, packet: SourcePacket) -> None:
        if self._is_closed:
            return
        if self._is_lossless and not self._num_lost:
            self._changed.wait_for(lambda: self._has_room(packet) or self._is_closed, LOSSLESS_WAIT_S)
        if not self._has_room(packet):
            self._num_lost += 1 + packet.lost_before
            self.counters.add("packets_lost")
            return
        lost, self._num_lost = self._num_lost, 0
        self.counters.add("packets")
        self._append(replace(packet, lost_before=packet.lost_before + lost) if lost else packet)

    def mark(self, mark: EventMark) -> None:
        """Say what a result has shown."""
        with self._changed:
            last = self._items[-1] if self._items else None
            if isinstance(last, EventMark) and not (last.events or last.boxes):
                # only the newest time matters, and the last one is still the newest
                self._num_bytes -= _cost(self._items.pop())
            if self._has_room(mark):
                self._append(mark)
            elif mark.events or mark.boxes:
                self.counters.add("marks_lost")

    @property
    def num_bytes(self) -> int:
        """Of all that waits."""
        return self._num_bytes

    def _has_room(self, item: Item) -> bool:
        return self._num_bytes + _cost(item) <= self._limit_bytes and not self._is_closed

    def _on_taken(self, item: Item) -> None:
        self._num_bytes -= _cost(item)

    def _append(self, item: Item) -> None:
        if self._is_closed:
            return
        self._items.append(item)
        self._num_bytes += _cost(item)
        # that there was nothing is heard with the next packet
        if not isinstance(item, EventMark) or item.events:
            self._changed.notify_all()


def _cost(item: Item) -> int:
    match item:
        case SourcePacket():
            return len(item.data) + ITEM_BYTES
        case PacketForm():
            return len(item.header) + (len(item.sound.header) if item.sound else 0) + ITEM_BYTES
        case EventMark():
            return len(item.boxes) + ITEM_BYTES
