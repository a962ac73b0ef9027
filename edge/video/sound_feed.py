"""A camera's sound for who listens now: as Opus, and at times that go on without small steps.

Runs in the thread that reads the camera: a piece of 20 ms takes a fraction of a millisecond.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import av

from edge.video.opus import OpusMaker
from edge.video.packets import PacketForm, PacketTaker, SourcePacket, Wanted

TICKS_PER_S = 90_000
NS_PER_S = 1_000_000_000
# nobody hears sound that is so much too early or late, and a smaller step may be heard
MAX_APART_NS = 40_000_000


class OpusFeed(PacketTaker):
    """Gives sound as Opus: that of the camera, or made of its AAC.

    Args:
        deliver: takes the data of a piece, its time in ticks of 1/90000 s, and ``SourcePacket.time_ns``.
    """

    def __init__(self, deliver: Callable[[bytes, int, int], None]) -> None:
        self._deliver = deliver
        self._maker: OpusMaker | None = None
        self._described: Any = None

    @property
    def wanted(self) -> Wanted:
        return Wanted.SOUND

    def begin(self, form: PacketForm) -> None:
        self._maker = self._described = None
        if form.sound is not None and form.sound.codec != "opus":
            with suppress(av.error.FFmpegError, OSError, IndexError):
                described = av.open(io.BytesIO(form.sound.header), format="mov")
                # its decoder goes with it
                self._described, self._maker = described, OpusMaker()

    def take(self, packet: SourcePacket) -> None:
        if self._maker is None:
            self._deliver(packet.data, packet.pts, packet.time_ns)
            return
        try:
            frames = self._described.streams.audio[0].codec_context.decode(av.Packet(packet.data))
        except (av.error.FFmpegError, OSError):
            # a damaged packet is a moment of silence
            return
        for data, at in self._maker.encode(frames, packet.pts):
            self._deliver(data, at, packet.time_ns + (at - packet.pts) * NS_PER_S // TICKS_PER_S)


class SteadyTimes:
    """Times by a clock of ours for pieces that state their own: these count, while both keep together.

    Args:
        rate: ticks of the times in a second.
        step: they are multiples of it apart.
    """

    def __init__(self, rate: int, step: int = 1) -> None:
        self._rate = rate
        self._step = step
        # of the first piece: its own time, and when it was by our clock
        self._first: tuple[int, int] | None = None

    def place(self, pts: int, time_ns: int) -> int:
        """The time of a piece. Args: its own in ticks of 1/90000 s; by our clock."""
        first = self._first
        if first is None or abs(first[1] + (pts - first[0]) * NS_PER_S // TICKS_PER_S - time_ns) > MAX_APART_NS:
            first = self._first = pts, time_ns
        passed = round((pts - first[0]) * self._rate / TICKS_PER_S / self._step) * self._step
        return first[1] * self._rate // NS_PER_S + passed
