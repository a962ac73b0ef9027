"""How packets come from a capture child: their bytes through a ring in shared memory, the rest as messages.

The child never waits for a reader of a live camera: a packet for which there is no room is counted and left out.
"""

from __future__ import annotations

import json
import mmap
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edge.errors import SourceError
from edge.sources.isolation.ring import map_sealed, sealed_memory, send
from edge.video.packets import EVERYTHING, PacketForm, PacketTaker, SoundForm, SoundLevel, SourcePacket, Wanted

if TYPE_CHECKING:
    from edge.sources.isolation.messages import CodedPicture, Group, Level, PacketRing

# the largest key pictures of 4K cameras are 2 MB
RING_BYTES = 4 << 20
# in front of the data, uint64 each, written by the parent: how many bytes it has taken; what is not wanted; whether
# packets may come in groups
HEAD_BYTES, TAKEN, UNWANTED, PATIENT, NUM_NUMBERS = 4096, 0, 1, 2, 3
POLL_S = 0.002
# by what is not wanted
WANTED = tuple(EVERYTHING & ~Wanted(unwanted) for unwanted in range(EVERYTHING.value + 1))


class PacketSender(PacketTaker):
    """The child's side; a ``PacketTaker`` that passes on to its parent.

    Args:
        channel: to the parent.
        wait: called between two looks for room where none may be lost (files); None: what does not fit is lost.
        ring_bytes: size of the ring.
        can_ride: whether a packet, where that may be, goes with the message of its picture: half as many wake-ups.
    """

    def __init__(
        self,
        channel: socket.socket,
        wait: Callable[[float], None] | None = None,
        ring_bytes: int = RING_BYTES,
        *,
        can_ride: bool = False,
    ) -> None:
        self._channel = channel
        self._wait = wait
        self._size = ring_bytes
        self._fd = sealed_memory("edge-packets", HEAD_BYTES + ring_bytes)
        self._memory = memoryview(mmap.mmap(self._fd, HEAD_BYTES + ring_bytes))
        self._head = self._memory[: 8 * NUM_NUMBERS].cast("Q")
        self._at = 0
        self._num_lost = 0
        self._can_ride = can_ride and wait is None
        self._waiting: tuple[SourcePacket, ...] = ()

    @property
    def wanted(self) -> Wanted:
        return WANTED[self._head[UNWANTED] & EVERYTHING.value]

    @property
    def is_patient(self) -> bool:
        return self._head[PATIENT] != 0

    def begin(self, form: PacketForm) -> None:
        sound = None if form.sound is None else {"codec": form.sound.codec, "header": form.sound.header.hex()}
        size = {"width": form.width, "height": form.height}
        facts = {"codec": form.codec, **size, "header": form.header.hex(), "sound": sound}
        send(self._channel, {"kind": "packets", "form": facts, "bytes": self._size}, (self._fd,))

    def take(self, packet: SourcePacket) -> None:
        self.take_group((packet,))

    def take_group(self, packets: Sequence[SourcePacket]) -> None:
        """Pass on ``MAX_GROUP`` at most; those of a file come one by one, as room is made by the parent alone."""
        if self._can_ride and not self._waiting and len(packets) == 1 and self.is_patient:
            self._waiting = tuple(packets)
            return
        packets, self._waiting = (*self._waiting, *packets), ()
        written, at, num_lost = self._written(packets)
        if written and not self._is_sent(written[0] if len(written) == 1 else {"kind": "group", "packets": written}):
            # the parent has not even read its pictures
            self._num_lost += len(packets)
            return
        self._at, self._num_lost = at, num_lost

    def riding(self) -> list[dict[str, Any]]:
        """What goes with the message of a picture: the packet that waited for it, if there is one."""
        written, self._at, self._num_lost = self._written(self._waiting)
        self._waiting = ()
        return written

    def flush(self) -> None:
        """No picture comes with which the packet that waits could go."""
        if self._waiting:
            self.take_group(())

    def _written(self, packets: Sequence[SourcePacket]) -> tuple[list[dict[str, Any]], int, int]:
        """What there is to say of packets that have room, now in the ring; where it goes on, and how many were lost."""
        at, num_lost, written = self._at, self._num_lost, []
        for packet in packets:
            size = len(packet.data)
            if not self._has_room(at + size):
                num_lost += 1
                continue
            self._write(at % self._size, packet.data)
            times = packet.pts, packet.dts, packet.is_key, packet.time_ns, packet.arrived_ns
            facts = (*times, num_lost, packet.camera_ns, packet.is_sound)
            written.append({"kind": "packet", "at": at, "size": size, "facts": facts})
            at, num_lost = at + size, 0
        return written, at, num_lost

    def hear(self, level: SoundLevel) -> None:
        message = {"kind": "level", "dbfs": level.dbfs, "time_ns": level.time_ns}
        # the next one is as good
        with suppress(BlockingIOError):
            self._channel.sendmsg([json.dumps(message).encode()], (), socket.MSG_DONTWAIT)

    def _has_room(self, end: int) -> bool:
        while end - self._head[TAKEN] > self._size:
            if self._wait is None or end - self._at > self._size:
                return False
            self._wait(POLL_S)
        return True

    def _write(self, start: int, packet: bytes) -> None:
        first = min(len(packet), self._size - start)
        data = self._memory[HEAD_BYTES:]
        data[start : start + first] = packet[:first]
        data[: len(packet) - first] = packet[first:]

    def _is_sent(self, message: dict[str, Any]) -> bool:
        try:
            flags = 0 if self._wait is not None else socket.MSG_DONTWAIT
            self._channel.sendmsg([json.dumps(message).encode()], (), flags)
        except BlockingIOError:
            return False
        return True


class PacketReceiver:
    """The parent's side: takes packets out of the ring as their messages come."""

    def __init__(self, taker: PacketTaker) -> None:
        self._taker = taker
        self._memory: memoryview | None = None
        self._head: memoryview | None = None
        self._size = 0
        self._told: tuple[Wanted, bool] | None = None

    def begin(self, message: PacketRing, fd: int) -> None:
        """A ring (closed here) and what its packets are.

        Raises:
            SourceError: it is too small, or could become so.
        """
        self._size = message.size
        self._memory = memoryview(map_sealed(fd, HEAD_BYTES + self._size))
        self._head = self._memory[: 8 * NUM_NUMBERS].cast("Q")
        self._told = None
        self.tell_wanted()
        form = message.form
        sound = None if form.sound is None else SoundForm(form.sound.codec, bytes.fromhex(form.sound.header))
        self._taker.begin(PacketForm(form.codec, form.width, form.height, bytes.fromhex(form.header), sound))

    def take(self, message: CodedPicture) -> None:
        """Copy a packet out of the ring, and give its place back.

        Raises:
            SourceError: it is larger than the ring.
        """
        if self._memory is not None and self._head is not None:
            self._taker.take(self._copied(message, self._memory, self._head))

    def take_group(self, message: Group) -> None:
        """The same for several."""
        if self._memory is not None and self._head is not None:
            self._taker.take_group([self._copied(one, self._memory, self._head) for one in message.packets])

    def _copied(self, message: CodedPicture, memory: memoryview, head: memoryview) -> SourcePacket:
        start, size = message.at % self._size, message.size
        if size > self._size:
            raise SourceError(f"the decoder process sent a packet of {size} bytes in a ring of {self._size}")
        data = memory[HEAD_BYTES:]
        first = min(size, self._size - start)
        copy = bytes(data[start : start + first])
        if first < size:
            copy += bytes(data[: size - first])
        head[TAKEN] = message.at + size
        return SourcePacket(copy, *message.facts)

    def hear(self, message: Level) -> None:
        """How loud it is."""
        self._taker.hear(SoundLevel(message.dbfs, message.time_ns))

    def tell_wanted(self) -> None:
        """Let the child know what the taker wants now."""
        told = self._taker.wanted, self._taker.is_patient
        if self._head is not None and told != self._told:
            self._told = told
            self._head[UNWANTED] = (EVERYTHING & ~told[0]).value
            self._head[PATIENT] = told[1]
